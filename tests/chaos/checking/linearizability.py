"""Is there an order of these operations that a single register could have shown?

The search of Wing and Gong ("Testing and Verifying Concurrent Objects", 1993) with the memory of Lowe ("Testing for
Linearizability", 2017): operations are taken one by one, each from those that began before the first end among those
that are left, and a set of taken operations with a state that was met before is not searched again. Each key is
searched by itself (Herlihy and Wing: linearizability is local). An operation without an end may have taken effect at
any time after its begin, or never: it is taken only where it changes the state, and need not be taken at all.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Generic, TypeVar

State = TypeVar("State", bound=Hashable)
MOST_STEPS = 2_000_000


class TooMuch(Exception):
    """The search was given up: neither shown nor refuted."""


@dataclass(frozen=True)
class Step(Generic[State]):
    """One operation: ``apply(state)`` is the state after it, None where it can't have had the answer it had."""

    begin: float
    end: float
    apply: Callable[[State], State | None]
    shown: str

    @property
    def may_be_left_out(self) -> bool:
        return self.end == inf


@dataclass(frozen=True)
class Verdict(Generic[State]):
    """The order that was found; or, without one, the longest, its state, and what could not come next."""

    linearizable: bool
    order: list[Step[State]]
    state: State
    stuck: list[Step[State]]

    def __str__(self) -> str:
        if self.linearizable:
            return f"linearizable: {len(self.order)} operations"
        last = "\n".join(f"    {one.shown}" for one in self.order[-8:])
        stuck = "\n".join(f"    {one.shown}" for one in self.stuck)
        return f"no order explains it; the longest ends\n{last}\n in the state {self.state!r}, then none of\n{stuck}"


def check(steps: Sequence[Step[State]], initial: State, most_steps: int = MOST_STEPS) -> Verdict[State]:
    """Search for an order. Raises TooMuch."""
    return _Search(steps, most_steps).run(initial)


class _Search(Generic[State]):
    """A depth-first search whose path is a list, so that long histories don't end the stack."""

    def __init__(self, steps: Sequence[Step[State]], most_steps: int) -> None:
        self._steps = sorted(steps, key=lambda step: step.begin)
        self._required = sum(1 << i for i, step in enumerate(self._steps) if not step.may_be_left_out)
        self._met: set[tuple[int, State]] = set()
        self._left = most_steps

    def run(self, initial: State) -> Verdict[State]:
        path: list[int] = []
        states, taken = [initial], 0
        choices = [self._choices(0, initial)]
        best: tuple[list[int], State, int] = ([], initial, 0)
        while choices:
            if taken & self._required == self._required:
                return Verdict(True, self._named(path), states[-1], [])
            if not choices[-1]:
                choices.pop()
                states.pop()
                if path:
                    taken &= ~(1 << path.pop())
                continue
            index, state = choices[-1].pop()
            key = (taken | 1 << index, state)
            if key in self._met:
                continue
            self._met.add(key)
            self._left -= 1
            if self._left < 0:
                raise TooMuch(f"no verdict on {len(self._steps)} operations; last: {self._named(path)[-1:]}")
            taken |= 1 << index
            path.append(index)
            states.append(state)
            choices.append(self._choices(taken, state))
            if len(path) > len(best[0]):
                best = (path.copy(), state, taken)
        longest, state, taken = best
        return Verdict(False, self._named(longest), state, self._must_come(taken))

    def _next(self, taken: int) -> list[int]:
        """Those that began before the first end among those that are left."""
        first_end = inf
        found = []
        for index in range(_lowest_zero(taken), len(self._steps)):
            step = self._steps[index]
            if step.begin > first_end:
                break
            if not taken >> index & 1:
                found.append(index)
                first_end = min(first_end, step.end)
        return [index for index in found if self._steps[index].begin <= first_end]

    def _must_come(self, taken: int) -> list[Step[State]]:
        return [self._steps[i] for i in self._next(taken) if not self._steps[i].may_be_left_out]

    def _choices(self, taken: int, state: State) -> list[tuple[int, State]]:
        """What may come next and the state after it, the most promising last: what ended first."""
        found = []
        for index in self._next(taken):
            step = self._steps[index]
            after = step.apply(state)
            if after is not None and not (step.may_be_left_out and after == state):
                found.append((index, after))
        found.sort(key=lambda choice: -self._steps[choice[0]].end)
        return found

    def _named(self, path: list[int]) -> list[Step[State]]:
        return [self._steps[index] for index in path]


def _lowest_zero(bits: int) -> int:
    return (~bits & (bits + 1)).bit_length() - 1
