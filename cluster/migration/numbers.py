"""Numbers that keep messages in order over two ways: each node numbers what it sends to processes that may move.

A number grows in the order of sending, over restarts of the node too (the incarnation is its upper part), so that one
number for each sending node tells whether something later has been accepted already. What has is refused: late is
worse than lost.
"""

from __future__ import annotations

from collections.abc import Mapping

COUNTER_BITS = 40
"""Of each number, for one incarnation: a million sends in a second for twelve days."""


class Stamps:
    """The numbers a node gives. One row for all destinations, so that nothing is kept for any of them."""

    def __init__(self, incarnation: int) -> None:
        self._last = incarnation << COUNTER_BITS

    def next(self) -> int:
        self._last += 1
        return self._last


class Accepted:
    """The highest number accepted from each node. It travels with the process."""

    def __init__(self, highest: Mapping[str, int] | None = None) -> None:
        self._highest = dict(highest or {})

    @property
    def highest(self) -> dict[str, int]:
        return dict(self._highest)

    def accept(self, node: str, number: int) -> bool:
        """Whether nothing sent later by the node was accepted before.

        What has no number (0) was sent before its node knew that the process may move: before all that has one.
        """
        if not number:
            return node not in self._highest
        if number <= self._highest.get(node, 0):
            return False
        self._highest[node] = number
        return True

    def note(self, node: str, number: int) -> None:
        """It was accepted, whatever came before. A node that numbers no more has forgotten that the process may move:
        then what it sends until it knows again has no number, and is later than all that had one."""
        if number:
            self._highest[node] = number
        else:
            self._highest.pop(node, None)
