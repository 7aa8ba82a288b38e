"""The scanner: one regular expression cuts a chunk into gaps, tokens and kinds.

Three parallel lists. ``gaps[i]`` is the white space and comments before ``texts[i]``, so
joining them gives the source back, and erasing or inserting is an assignment to
``texts[i]``. ``kinds[i]`` is what the grammar looks at: an operator or keyword is its own
kind, the rest are NAME, NUMBER, STRING and EOF. The lists end with spare EOFs, so that
the grammar looks ahead without asking for the length.
"""

from __future__ import annotations

import re
from typing import NoReturn

from node.lua.dialect.syntax import LuaSyntaxError

NAME, NUMBER, STRING, EOF = "<name>", "<number>", "<string>", "<eof>"
KEYWORDS = frozenset(
    (
        "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in",
        "local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
    )
)  # fmt: skip
RESERVED_PREFIX = "__w_"

_BAD = "<bad>"
_HABITS = {
    "!=": "Lua writes ~=",
    "&&": "Lua writes and",
    "||": "Lua writes or",
    "++": "Lua writes x = x + 1",
    "+=": "Lua writes x = x + y",
    "-=": "Lua writes x = x - y",
    "*=": "Lua writes x = x * y",
    "/=": "Lua writes x = x / y",
}
_LOOKAHEAD = 4
_OPERATORS = frozenset(
    (
        "+", "-", "*", "/", "//", "%", "^", "#", "&", "~", "|", "<<", ">>", "==", "~=", "<=", ">=", "<", ">", "=",
        "(", ")", "{", "}", "[", "]", "::", ";", ":", ",", ".", "..", "...", "->", "!", "?", "@",
    )
)  # fmt: skip

# Possessive wherever a text could make the scanner try again: its time is linear in the text.
_SCAN = re.compile(
    r"""
    ( (?: \s++ | -- (?: \[(=*+)\[ (?s:.*?) \]\2\] | (?!\[=*+\[) [^\n\r]*+ ) )*+ )
    (   [A-Za-z_]\w*+
      | "[^"\\\r\n]*+ (?: \\ (?> z\s*+ | \r\n | \n\r | (?s:.) ) [^"\\\r\n]*+ )*+"
      | '[^'\\\r\n]*+ (?: \\ (?> z\s*+ | \r\n | \n\r | (?s:.) ) [^'\\\r\n]*+ )*+'
      | ["'] [^\r\n]*+
      | 0[xX] (?: [pP][+-]? | [\w.] )*+
      | \.?+\d (?: [eE][+-]? | [\w.] )*+
      | --(?s:.*+) | -> | \.\.\.? | == | ~= | <[=<]? | >[=>]? | // | ::
      | \[ (=*+) \[ (?: (?s:.*?) \]\4\] | (?s:.*+) )
      | (?s:.)
      | \Z )
    """,
    re.VERBOSE | re.ASCII,
)
_NUMBER = re.compile(
    r"0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)(?:[pP][+-]?\d+)?|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?",
    re.ASCII,
)
_ESCAPE = re.compile(
    r"""\\(?: [abfnrtvz\\"'\n\r] | x[0-9a-fA-F]{2} | u\{0*(?:[0-7][0-9a-fA-F]{7}|[0-9a-fA-F]{1,7})\}
          | [01]\d\d | 2[0-4]\d | 25[0-5] | \d{1,2}(?!\d) )""",
    re.ASCII | re.VERBOSE,
)
_LONG_OPEN = re.compile(r"\[(=*)\[")
_LINE_END = re.compile(r"\r\n|\n\r|\n|\r")
_NOT_LINE_END = re.compile(r"[^\r\n]")


class Tokens:
    """A chunk cut into tokens. Raises LuaSyntaxError for text that is no token."""

    __slots__ = ("chunk", "gaps", "kinds", "texts")

    def __init__(self, source: str, chunk: str) -> None:
        found = _SCAN.findall(_body(source))
        self.chunk = chunk
        self.gaps: list[str] = [piece[0] for piece in found]
        self.texts: list[str] = [piece[2] for piece in found]
        kind_of = {text: _classify(text) for text in set(self.texts)}
        self.kinds: list[str] = [kind_of[text] for text in self.texts]
        if _BAD in kind_of.values():
            at = self.kinds.index(_BAD)
            self.refuse(at, _complaint(self.texts[at]))
        self.gaps.extend([""] * _LOOKAHEAD)
        self.texts.extend([""] * _LOOKAHEAD)
        self.kinds.extend([EOF] * _LOOKAHEAD)

    def line(self, at: int) -> int:
        """The line, from 1, on which token ``at`` begins."""
        before = "".join(map(str.__add__, self.gaps[:at], self.texts[:at])) + self.gaps[at]
        return len(_LINE_END.findall(before)) + 1

    def same_line(self, at: int) -> bool:
        """Whether token ``at`` stands on the line where the one before it ends."""
        gap = self.gaps[at]
        return "\n" not in gap and "\r" not in gap

    def near(self, at: int) -> str:
        """Token ``at`` as an error message shows it, with advice where it is a habit from another language."""
        if self.kinds[at] == EOF:
            return "the end of the chunk"
        for first in (at, at - 1):
            if first >= 0 and not self.gaps[first + 1]:
                pair = self.texts[first] + self.texts[first + 1]
                if pair in _HABITS:
                    return f"{pair!r} ({_HABITS[pair]})"
        text = _LINE_END.split(self.texts[at], maxsplit=1)[0]
        return repr(text if len(text) <= 40 else text[:37] + "...")

    def erase(self, start: int, stop: int) -> None:
        """Turn the tokens from ``start`` up to ``stop`` into white space of the same shape."""
        texts = self.texts
        for at in range(start, stop):
            text = texts[at]
            texts[at] = _NOT_LINE_END.sub(" ", text) if "\n" in text or "\r" in text else " " * len(text)

    def split(self, at: int) -> None:
        """Cut the two-character operator ``at`` into two tokens: nested generics close with ``>>`` or ``>=``."""
        first, second = self.texts[at][0], self.texts[at][1]
        self.gaps.insert(at + 1, "")
        self.texts[at : at + 1] = [first, second]
        self.kinds[at : at + 1] = [first, second]

    def join(self) -> str:
        """The chunk as text again."""
        return "".join(map(str.__add__, self.gaps, self.texts))

    def refuse(self, at: int, message: str) -> NoReturn:
        """Raise LuaSyntaxError at token ``at``."""
        raise LuaSyntaxError(self.chunk, self.line(at), message)


def _body(source: str) -> str:
    """The source without byte order mark and without the text of a ``#`` first line, which ``load`` wouldn't skip."""
    source = source.removeprefix("\ufeff")
    if not source.startswith("#"):
        return source
    end = _LINE_END.search(source)
    return source[end.start() :] if end else ""


def _classify(text: str) -> str:
    first = text[:1]
    if first.isalpha() or first == "_":
        if text in KEYWORDS:
            return text
        return NAME if first.isascii() and not text.startswith(RESERVED_PREFIX) else _BAD
    if text in _OPERATORS:
        return text
    if first in ('"', "'"):
        return STRING if _is_finished(text) and not _bad_escape(text) else _BAD
    if first == "[":
        return STRING if _is_closed(text) else _BAD
    if not text:
        return EOF
    return NUMBER if _NUMBER.fullmatch(text) else _BAD


def _is_finished(text: str) -> bool:
    """Whether a quoted string ends with its own quote: not with an escaped one, nor with the line."""
    return len(text) > 1 and text[-1] == text[0] and (len(text) - len(text[:-1].rstrip("\\"))) % 2 == 1


def _is_closed(text: str) -> bool:
    opened = _LONG_OPEN.match(text)
    return opened is not None and text.endswith(f"]{opened[1]}]") and len(text) >= 2 * len(opened[0])


def _bad_escape(text: str) -> str:
    """The first escape sequence Lua doesn't know, or an empty text."""
    if "\\" not in text:
        return ""
    left = _ESCAPE.sub("", text)
    at = left.find("\\")
    return left[at : at + 4].rstrip(text[0]) if at >= 0 else ""


def _complaint(text: str) -> str:
    if text.startswith(RESERVED_PREFIX):
        return f"the name {text!r} is reserved: names that begin with {RESERVED_PREFIX!r} belong to the runtime"
    if text.startswith("--"):
        return "this long comment is never closed"
    if text[0] == "[":
        return "this long string is never closed"
    if text[0] in "\"'":
        if not _is_finished(text):
            return f"this string is not closed on its line: {text[:40]}"
        return f"unknown escape sequence {_bad_escape(text)!r} in a string"
    if text[0] in ".0123456789":
        return f"malformed number {text[:40]!r}"
    return f"unexpected character {text[0]!r}"
