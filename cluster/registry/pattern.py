"""Regular expressions in linear time, for patterns that come from applications.

Python's ``re`` backtracks: a short pattern can hold the event loop for minutes. Here a
pattern becomes a non-deterministic automaton whose states advance together (Thompson), so the
cost is at most text length times pattern size; the sets of states met are remembered, which
makes the common case one look-up per character. The syntax is what RE2 and Python share:
literals, ``.``, classes, ``\\d \\w \\s``, groups, ``|``, ``* + ? {m,n}`` (lazy forms mean the same,
as only "does it occur" is asked), ``^ $ \\b \\B`` and a leading ``(?i)``. Look-around and
back-references do not exist here and are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

MAX_PATTERN = 512
MAX_STATES = 2_000
MAX_TEXT = 8_192
_MAX_MEMO = 4_096

Test = Callable[[str], bool]


class BadPattern(ValueError):
    """A pattern outside the supported syntax or over the limits; the text says what."""


@dataclass(slots=True, eq=False)
class _State:
    """Consumes one character when ``test`` holds, or none (``empty``) when the assertion holds."""

    test: Test | None = None
    assertion: str = ""
    following: list[_State] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of the automaton: one way in, one way out."""

    start: _State
    end: _State


@dataclass(slots=True, eq=False)
class _Node:
    """A set of states the automaton can be in after what was read: one state of the deterministic one.

    ``before`` is the class of the last character; None in ``following`` means that the pattern occurred.
    """

    states: frozenset[int]
    before: str
    following: dict[str, _Node | None] = field(default_factory=dict)
    accepts_end: bool | None = None


class Pattern:
    """A compiled pattern. Raises BadPattern when built from a bad one."""

    def __init__(self, source: str) -> None:
        if len(source) > MAX_PATTERN:
            raise BadPattern(f"pattern of {len(source)} characters is over the limit of {MAX_PATTERN}")
        parser = _Parser(source)
        whole = parser.whole()
        self._states = parser.states
        place = {state: number for number, state in enumerate(self._states)}
        self._start = place[whole.start]
        self._end = place[whole.end]
        self._next = [[place[state] for state in each.following] for each in self._states]
        self._forget()

    def _forget(self) -> None:
        self._first = _Node(frozenset(), "")
        self._nodes = {(self._first.states, ""): self._first}
        self._known = 0

    def search(self, text: str) -> bool:
        """Whether it occurs anywhere in ``text`` (its first 8,192 characters)."""
        node = self._first
        for character in text[:MAX_TEXT]:
            try:
                following = node.following[character]
            except KeyError:
                following = self._read(node, character)
            if following is None:
                return True
            node = following
        if node.accepts_end is None:
            node.accepts_end = self._end in self._closure(node.states | {self._start}, node.before, "")
        return node.accepts_end

    def _read(self, node: _Node, character: str) -> _Node | None:
        """Where ``character`` leads, found out once and remembered; everything is forgotten when it gets too much."""
        if self._known >= _MAX_MEMO:
            self._forget()
        reached = self._closure(node.states | {self._start}, node.before, character)
        following = None
        if self._end not in reached:
            key = (self._step(reached, character), "w" if _is_word(character) else " ")
            following = self._nodes.setdefault(key, _Node(*key))
        node.following[character] = following
        self._known += 1
        return following

    def _closure(self, states: frozenset[int], before: str, after: str) -> frozenset[int]:
        """Everything reachable without consuming a character, standing between ``before`` and ``after``."""
        reached = set(states)
        waiting = list(states)
        while waiting:
            number = waiting.pop()
            state = self._states[number]
            if state.test is not None or not _holds(state.assertion, before, after):
                continue
            for following in self._next[number]:
                if following not in reached:
                    reached.add(following)
                    waiting.append(following)
        return frozenset(reached)

    def _step(self, states: frozenset[int], character: str) -> frozenset[int]:
        return frozenset(
            following
            for number in states
            if (test := self._states[number].test) is not None and test(character)
            for following in self._next[number]
        )


def _holds(assertion: str, before: str, after: str) -> bool:
    match assertion:
        case "^":
            return not before
        case "$":
            return not after
        case "b":
            return _is_word(before) is not _is_word(after)
        case "B":
            return _is_word(before) is _is_word(after)
        case _:
            return True


def _is_word(character: str) -> bool:
    return character == "_" or (character.isascii() and character.isalnum())


def _is_digit(character: str) -> bool:
    return character.isascii() and character.isdigit()


def _is_space(character: str) -> bool:
    return character != "" and character in " \t\n\r\f\v"


def _not(test: Test) -> Test:
    return lambda character: not test(character)


_CLASSES: dict[str, Test] = {
    "d": _is_digit,
    "D": _not(_is_digit),
    "w": _is_word,
    "W": _not(_is_word),
    "s": _is_space,
    "S": _not(_is_space),
}
_POSIX: dict[str, Test] = {
    "alpha": str.isalpha,
    "digit": _is_digit,
    "alnum": str.isalnum,
    "upper": str.isupper,
    "lower": str.islower,
    "space": _is_space,
    "word": _is_word,
    "punct": lambda c: c.isascii() and c.isprintable() and not c.isalnum() and c != " ",
}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}


class _Parser:
    """Recursive descent from source to automaton."""

    def __init__(self, source: str) -> None:
        self.states: list[_State] = []
        self._fold = source.startswith("(?i)")
        self._source = source[4:] if self._fold else source
        self._at = 0
        self._depth = 0

    def whole(self) -> _Piece:
        piece = self._alternatives()
        if self._at < len(self._source):
            raise self._bad("unbalanced ')'")
        return piece

    def _bad(self, why: str) -> BadPattern:
        return BadPattern(f"{why} at position {self._at} of {self._source!r}")

    def _peek(self) -> str:
        return self._source[self._at : self._at + 1]

    def _take(self, text: str) -> bool:
        if self._source.startswith(text, self._at):
            self._at += len(text)
            return True
        return False

    def _state(self, test: Test | None = None, assertion: str = "") -> _State:
        if len(self.states) >= MAX_STATES:
            raise BadPattern(f"pattern needs more than {MAX_STATES} states; use smaller counts")
        state = _State(test, assertion)
        self.states.append(state)
        return state

    def _single(self, test: Test | None = None, assertion: str = "") -> _Piece:
        start, end = self._state(test, assertion), self._state()
        start.following.append(end)
        return _Piece(start, end)

    def _alternatives(self) -> _Piece:
        branches = [self._sequence()]
        while self._take("|"):
            branches.append(self._sequence())
        if len(branches) == 1:
            return branches[0]
        start, end = self._state(), self._state()
        for branch in branches:
            start.following.append(branch.start)
            branch.end.following.append(end)
        return _Piece(start, end)

    def _sequence(self) -> _Piece:
        start = end = self._state()
        while self._peek() not in ("", "|", ")"):
            piece = self._repeated()
            end.following.append(piece.start)
            end = piece.end
        return _Piece(start, end)

    def _repeated(self) -> _Piece:
        begin = self._at
        piece = self._atom()
        after = self._at
        counts = self._counts()
        if counts is None:
            return piece
        rest = self._at
        if self._counts() is not None:
            raise self._bad("nothing to repeat")
        low, high = counts
        copies = [piece]
        for _ in range(max(low, 1 if high is None else high) - 1):
            self._at = begin
            copies.append(self._atom())
            if self._at != after:
                raise self._bad("bad repeat")
        self._at = rest
        return self._repeat(copies, low, endless=high is None, none=high == 0)

    def _repeat(self, copies: list[_Piece], low: int, *, endless: bool, none: bool) -> _Piece:
        start, end = self._state(), self._state()
        if none:
            start.following.append(end)
            return _Piece(start, end)
        last = start
        for number, copy in enumerate(copies):
            if number >= low:
                last.following.append(end)
            last.following.append(copy.start)
            last = copy.end
        last.following.append(end)
        if endless:
            last.following.append(copies[-1].start)
        return _Piece(start, end)

    def _counts(self) -> tuple[int, int | None] | None:
        counts: tuple[int, int | None] | None = None
        if self._take("*"):
            counts = (0, None)
        elif self._take("+"):
            counts = (1, None)
        elif self._take("?"):
            counts = (0, 1)
        elif self._peek() == "{":
            counts = self._braces()
        if counts is not None:
            self._take("?")
        return counts

    def _braces(self) -> tuple[int, int | None] | None:
        close = self._source.find("}", self._at)
        low, comma, high = self._source[self._at + 1 : max(close, 0)].partition(",")
        if close < 0 or not _number(low) or not (high == "" or _number(high)):
            return None  # a brace that counts nothing stands for itself
        self._at = close + 1
        if not comma:
            return int(low), int(low)
        if high and int(high) < int(low):
            raise self._bad("counts in the wrong order")
        return int(low), int(high) if high else None

    def _atom(self) -> _Piece:
        character = self._peek()
        self._at += 1
        match character:
            case "(":
                return self._group()
            case "[":
                return self._single(self._set())
            case ".":
                return self._single(lambda c: c != "\n")
            case "^" | "$":
                return self._single(assertion=character)
            case "*" | "+" | "?":
                raise self._bad("nothing to repeat")
            case "\\":
                return self._escaped()
            case _:
                return self._single(self._literal(character))

    def _group(self) -> _Piece:
        self._depth += 1
        if self._depth > 50:
            raise self._bad("groups nested deeper than 50")
        if self._take("?") and not self._take(":"):
            named = self._take("P<") or self._take("<")
            close = self._source.find(">", self._at)
            if not named or self._peek() in ("=", "!") or close < 0:
                raise self._bad("look-around, flags and back-references are not supported")
            self._at = close + 1
        piece = self._alternatives()
        if not self._take(")"):
            raise self._bad("missing ')'")
        self._depth -= 1
        return piece

    def _escaped(self) -> _Piece:
        character = self._peek()
        if character in ("b", "B"):
            self._at += 1
            return self._single(assertion=character)
        if character in ("A", "z"):
            self._at += 1
            return self._single(assertion="^" if character == "A" else "$")
        return self._single(self._escape())

    def _escape(self) -> Test:
        """A class or a literal after a backslash."""
        character = self._peek()
        self._at += 1
        if test := _CLASSES.get(character):
            return test
        if character == "":
            raise self._bad("trailing backslash")
        if character.isalnum() and character not in _CONTROLS:
            raise self._bad(f"\\{character} is not supported")
        return self._literal(_CONTROLS.get(character, character))

    def _literal(self, character: str) -> Test:
        if self._fold:
            folded = character.casefold()
            return lambda c: c.casefold() == folded
        return lambda c: c == character

    def _set(self) -> Test:
        negated = self._take("^")
        tests: list[Test] = [self._member()]  # the first may be ']' itself
        while not self._take("]"):
            tests.append(self._member())
        kept = tuple(tests)
        if negated:
            return lambda c: not any(test(c) for test in kept)
        return lambda c: any(test(c) for test in kept)

    def _member(self) -> Test:
        for name, test in _POSIX.items():
            if self._take(f"[:{name}:]"):
                return test
        character = self._peek()
        self._at += 1
        if character == "":
            raise self._bad("missing ']'")
        if character == "\\":
            if self._peek() in _CLASSES:
                return self._escape()
            character = self._plain_escape()
        if self._peek() == "-" and self._source[self._at + 1 : self._at + 2] not in ("]", ""):
            self._at += 1
            return self._range(character)
        return self._literal(character)

    def _plain_escape(self) -> str:
        character = self._peek()
        self._at += 1
        if character == "" or (character.isalnum() and character not in _CONTROLS):
            raise self._bad(f"\\{character} is not supported here")
        return _CONTROLS.get(character, character)

    def _range(self, low: str) -> Test:
        high = self._peek()
        self._at += 1
        if high == "\\":
            high = self._plain_escape()
        if high < low:
            raise self._bad(f"range {low}-{high} is in the wrong order")
        if self._fold:
            return lambda c: any(low <= form <= high for form in _cases(c))
        return lambda c: low <= c <= high


def _cases(character: str) -> Iterator[str]:
    yield character
    yield character.lower()
    yield character.upper()


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 4
