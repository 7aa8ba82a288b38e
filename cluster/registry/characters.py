"""Classes of characters in regular expressions: ``\\d \\w \\s``, their opposites, and the named ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator

Test = Callable[[str], bool]


def is_word(character: str) -> bool:
    return character == "_" or (character.isascii() and character.isalnum())


def is_digit(character: str) -> bool:
    return character.isascii() and character.isdigit()


def is_space(character: str) -> bool:
    return character != "" and character in " \t\n\r\f\v"


def negated(test: Test) -> Test:
    return lambda character: not test(character)


CLASSES: dict[str, Test] = {
    "d": is_digit,
    "D": negated(is_digit),
    "w": is_word,
    "W": negated(is_word),
    "s": is_space,
    "S": negated(is_space),
}
POSIX: dict[str, Test] = {
    "alpha": str.isalpha,
    "digit": is_digit,
    "alnum": str.isalnum,
    "upper": str.isupper,
    "lower": str.islower,
    "space": is_space,
    "word": is_word,
    "punct": lambda c: c.isascii() and c.isprintable() and not c.isalnum() and c != " ",
}
CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}


def cases(character: str) -> Iterator[str]:
    yield character
    yield character.lower()
    yield character.upper()


def is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 4
