"""Who on this node is to hear of the end of the process, and what has been heard of it.

Each (re-)assertion has a number of its own and is repeated until it is answered under that number: an answer to an
earlier one comes from a place the process may have left since, and settles nothing.
"""

from __future__ import annotations

from cluster.migration.items import Assertion, Watcher


class Watches:
    """The watchers of this node. Each hears at most once."""

    def __init__(self, first: int = 0) -> None:
        self._numbers = first
        self._asserted: dict[Watcher, Assertion] = {}
        self._unanswered: set[Watcher] = set()

    @property
    def any(self) -> bool:
        """Whether somebody here is to hear."""
        return bool(self._asserted)

    @property
    def unanswered(self) -> list[Assertion]:
        """What is to be said again."""
        return [self._asserted[watcher] for watcher in self._asserted if watcher in self._unanswered]

    def add(self, watcher: Watcher) -> None:
        """A watcher that is known where the process is."""
        self._asserted[watcher] = Assertion(watcher, self._numbers)

    def assert_one(self, watcher: Watcher) -> Assertion:
        self._numbers += 1
        assertion = self._asserted[watcher] = Assertion(watcher, self._numbers)
        self._unanswered.add(watcher)
        return assertion

    def assert_all(self) -> list[Assertion]:
        return [self.assert_one(watcher) for watcher in list(self._asserted)]

    def answered(self, assertion: Assertion) -> bool:
        """Whether the answer counts."""
        if self._asserted.get(assertion.watcher) != assertion:
            return False
        self._unanswered.discard(assertion.watcher)
        return True

    def remove(self, watcher: Watcher) -> bool:
        """It has heard, or wants to hear no more. Whether it was there."""
        self._unanswered.discard(watcher)
        return self._asserted.pop(watcher, None) is not None

    def remove_all(self) -> list[Watcher]:
        watchers = list(self._asserted)
        self._asserted.clear()
        self._unanswered.clear()
        return watchers
