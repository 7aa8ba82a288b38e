"""Regular expressions in linear time, for patterns that come from applications.

Python's ``re`` backtracks: a short pattern can hold the event loop for minutes. Here a
pattern becomes a non-deterministic automaton whose states advance together (Thompson), so the
cost is at most text length times pattern size; the sets of states met are remembered, which
makes the common case one look-up per character. That product is bounded too (``MAX_COST``), over all
texts one pattern is held against: an event loop waits for it. The syntax is what RE2 and Python share:
literals, ``.``, classes, ``\\d \\w \\s``, groups, ``|``, ``* + ? {m,n}`` (lazy forms mean the same,
as only "does it occur" is asked), ``^ $ \\b \\B`` and a leading ``(?i)``. Look-around and
back-references do not exist here and are refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.registry.automaton import BadPattern as BadPattern
from cluster.registry.automaton import Parser
from cluster.registry.characters import is_word

MAX_PATTERN = 512
MAX_TEXT = 8_192
MAX_COST = 4_000_000
"""In characters that were met before; a third of a second or so."""
_VISIT = 30
"""What it costs to find out where one state leads, in such characters (measured)."""
_MAX_MEMO = 4_096


@dataclass(slots=True, eq=False)
class _Node:
    """A set of states the automaton can be in after what was read: one state of the deterministic one.

    ``before`` is the class of the last character; None in ``following`` means that the pattern occurred.
    """

    states: frozenset[int]
    before: str
    following: dict[str, _Node | None] = field(default_factory=dict)
    accepts_end: bool | None = None


class TooCostly(BadPattern):
    """The pattern was held against so much text that others wait."""


class Pattern:
    """A compiled pattern. Raises BadPattern when built from a bad one."""

    def __init__(self, source: str) -> None:
        if len(source) > MAX_PATTERN:
            raise BadPattern(f"pattern of {len(source)} characters is over the limit of {MAX_PATTERN}")
        parser = Parser(source)
        whole = parser.whole()
        self._states = parser.states
        place = {state: number for number, state in enumerate(self._states)}
        self._start = place[whole.start]
        self._end = place[whole.end]
        self._left = MAX_COST
        self._next = [[place[state] for state in each.following] for each in self._states]
        self._forget()

    def _forget(self) -> None:
        self._first = _Node(frozenset(), "")
        self._nodes = {(self._first.states, ""): self._first}
        self._known = 0

    def search(self, text: str) -> bool:
        """Whether it occurs anywhere in ``text`` (its first 8,192 characters). Raises TooCostly."""
        node = self._first
        text = text[:MAX_TEXT]
        self._spend(len(text))
        for character in text:
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

    def _spend(self, cost: int) -> None:
        self._left -= cost
        if self._left < 0:
            raise TooCostly("the pattern takes too long on so much text; use a simpler one, or narrow what is searched")

    def _read(self, node: _Node, character: str) -> _Node | None:
        """Where ``character`` leads, found out once and remembered; everything is forgotten when it gets too much."""
        if self._known >= _MAX_MEMO:
            self._forget()
        reached = self._closure(node.states | {self._start}, node.before, character)
        self._spend(_VISIT * len(reached))
        following = None
        if self._end not in reached:
            key = (self._step(reached, character), "w" if is_word(character) else " ")
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
            return is_word(before) is not is_word(after)
        case "B":
            return is_word(before) is is_word(after)
        case _:
            return True
