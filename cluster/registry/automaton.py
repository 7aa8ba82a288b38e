"""The automaton of a regular expression: states, and the parser that makes them of a pattern.

Thompson's construction: each part of a pattern becomes a piece with one way in and one way out.
``Parser(source).whole()`` is the whole; a pattern outside the syntax (see ``pattern``) or over the limits is
refused with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.registry.characters import (
    CLASSES,
    CONTROLS,
    POSIX,
    Test,
    cases,
    is_number,
)

MAX_STATES = 2_000


class BadPattern(ValueError):
    """A pattern outside the supported syntax or over the limits; the text says what."""


@dataclass(slots=True, eq=False)
class State:
    """Consumes one character when ``test`` holds, or none (``empty``) when the assertion holds."""

    test: Test | None = None
    assertion: str = ""
    following: list[State] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the automaton: one way in, one way out."""

    start: State
    end: State


class Parser:
    """Recursive descent from source to automaton."""

    def __init__(self, source: str) -> None:
        self.states: list[State] = []
        self._fold = source.startswith("(?i)")
        self._source = source[4:] if self._fold else source
        self._at = 0
        self._depth = 0

    def whole(self) -> Piece:
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

    def _state(self, test: Test | None = None, assertion: str = "") -> State:
        if len(self.states) >= MAX_STATES:
            raise BadPattern(f"pattern needs more than {MAX_STATES} states; use smaller counts")
        state = State(test, assertion)
        self.states.append(state)
        return state

    def _single(self, test: Test | None = None, assertion: str = "") -> Piece:
        start, end = self._state(test, assertion), self._state()
        start.following.append(end)
        return Piece(start, end)

    def _alternatives(self) -> Piece:
        branches = [self._sequence()]
        while self._take("|"):
            branches.append(self._sequence())
        if len(branches) == 1:
            return branches[0]
        start, end = self._state(), self._state()
        for branch in branches:
            start.following.append(branch.start)
            branch.end.following.append(end)
        return Piece(start, end)

    def _sequence(self) -> Piece:
        start = end = self._state()
        while self._peek() not in ("", "|", ")"):
            piece = self._repeated()
            end.following.append(piece.start)
            end = piece.end
        return Piece(start, end)

    def _repeated(self) -> Piece:
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

    def _repeat(self, copies: list[Piece], low: int, *, endless: bool, none: bool) -> Piece:
        start, end = self._state(), self._state()
        if none:
            start.following.append(end)
            return Piece(start, end)
        last = start
        for number, copy in enumerate(copies):
            if number >= low:
                last.following.append(end)
            last.following.append(copy.start)
            last = copy.end
        last.following.append(end)
        if endless:
            last.following.append(copies[-1].start)
        return Piece(start, end)

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
        if close < 0 or not is_number(low) or not (high == "" or is_number(high)):
            return None  # a brace that counts nothing stands for itself
        self._at = close + 1
        if not comma:
            return int(low), int(low)
        if high and int(high) < int(low):
            raise self._bad("counts in the wrong order")
        return int(low), int(high) if high else None

    def _atom(self) -> Piece:
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

    def _group(self) -> Piece:
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

    def _escaped(self) -> Piece:
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
        if test := CLASSES.get(character):
            return test
        if character == "":
            raise self._bad("trailing backslash")
        if character.isalnum() and character not in CONTROLS:
            raise self._bad(f"\\{character} is not supported")
        return self._literal(CONTROLS.get(character, character))

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
        for name, test in POSIX.items():
            if self._take(f"[:{name}:]"):
                return test
        character = self._peek()
        self._at += 1
        if character == "":
            raise self._bad("missing ']'")
        if character == "\\":
            if self._peek() in CLASSES:
                return self._escape()
            character = self._plain_escape()
        if self._peek() == "-" and self._source[self._at + 1 : self._at + 2] not in ("]", ""):
            self._at += 1
            return self._range(character)
        return self._literal(character)

    def _plain_escape(self) -> str:
        character = self._peek()
        self._at += 1
        if character == "" or (character.isalnum() and character not in CONTROLS):
            raise self._bad(f"\\{character} is not supported here")
        return CONTROLS.get(character, character)

    def _range(self, low: str) -> Test:
        high = self._peek()
        self._at += 1
        if high == "\\":
            high = self._plain_escape()
        if high < low:
            raise self._bad(f"range {low}-{high} is in the wrong order")
        if self._fold:
            return lambda c: any(low <= form <= high for form in cases(c))
        return lambda c: low <= c <= high
