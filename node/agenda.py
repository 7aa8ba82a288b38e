"""What a node still has to do so that its resources are what the registry says. Pure.

One ``Item`` per entry that is not yet as it should be. ``aim`` compares with what was done and
notes what changed; ``due`` gives what may be worked on now: an entry after those it names, a
removed one after its users. Only a first try makes others wait: an entry that fails is tried
again by itself, with a growing delay, and nobody else is held up or touched again. It is tried at
once when its own content or something it names has changed.

Times are seconds of any clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cluster.registry import Entry, RegistryState
from cluster.registry.order import creation_order, references

FIRST_RETRY, LAST_RETRY = 0.5, 30.0
NEVER = -1


@dataclass
class Item:
    """An entry to bring to ``wanted`` (None: remove it), as version ``version`` says."""

    id: str
    wanted: Entry | None
    version: int
    rank: int = 0
    names: frozenset[str] = frozenset()
    """Ids that ``wanted`` names."""
    has_placeholders: bool = False
    attempts: int = 0
    due: float = 0.0
    reason: str = ""
    running: bool = False
    changed: bool = False
    """The registry moved on while it was worked on."""

    @property
    def untried(self) -> bool:
        """Nobody knows yet what becomes of it at this version."""
        return self.attempts == 0 or self.changed


@dataclass
class Agenda:
    """``concerns`` says of a kind whether anybody here brings it about."""

    concerns: Callable[[str], bool]
    done: dict[str, Entry] = field(default_factory=dict)
    """Entries as they were brought about last."""
    items: dict[str, Item] = field(default_factory=dict)
    target: RegistryState | None = None

    def aim(self, state: RegistryState, changed: Iterable[str] | None = None) -> None:
        """The registry says ``state`` now; ``changed`` since it was told last, when that is known."""
        before, self.target = self.target, state
        if before is None:
            changed = {entry.id for entry in state.entries()}
        elif changed is None:
            changed = state.differs_from(before)
        concerned = {id for id in changed if self._concerns(state.get(id)) or id in self.done or id in self.items}
        concerned |= self._users_of_variables(state, concerned)
        for id in concerned:
            self._want(id, state.get(id), state.version)
        self._rank()

    def _concerns(self, entry: Entry | None) -> bool:
        return entry is not None and self.concerns(entry.kind)

    def _users_of_variables(self, state: RegistryState, changed: Iterable[str]) -> set[str]:
        """What has a placeholder may mean something else when the variables changed."""
        if not any(_is_env(state.get(id)) or _is_env(self.done.get(id)) for id in changed):
            return set()
        present = [entry for id in self.done if (entry := state.get(id)) is not None]
        return {entry.id for entry in present if _has_placeholders(entry)}

    def _want(self, id: str, entry: Entry | None, version: int) -> None:
        wanted = entry if self._concerns(entry) else None
        if wanted is None and id not in self.done and id not in self.items:
            return
        item = self.items.get(id)
        if item is None:
            item = self.items[id] = Item(id, wanted, version)
        else:
            item.wanted, item.version = wanted, version
            item.attempts, item.due, item.changed = 0, 0.0, item.running
        item.names = frozenset() if wanted is None else frozenset(references(wanted))
        item.has_placeholders = wanted is not None and _has_placeholders(wanted)

    def _rank(self) -> None:
        entries = [entry for id in self.items if (entry := self._named(id)) is not None]
        for rank, id in enumerate(creation_order(entries)):
            self.items[id].rank = rank

    def _named(self, id: str) -> Entry | None:
        item = self.items.get(id)
        return None if item is None else item.wanted or self.done.get(id)

    def due(self, now: float) -> list[Item]:
        """What may be worked on now."""
        untried = {id: item for id, item in self.items.items() if item.untried}
        users = self._users(untried)
        return sorted(
            (
                item
                for item in self.items.values()
                if not item.running and item.due <= now and not self._waits(item, untried, users)
            ),
            key=lambda item: item.rank,
        )

    def _users(self, untried: dict[str, Item]) -> dict[str, set[str]]:
        """What was brought about and names an entry that is to go, as long as it is not tried itself."""
        going = {id for id, item in self.items.items() if item.wanted is None}
        users: dict[str, set[str]] = {id: set() for id in going}
        if going:
            for id in untried:
                if id in self.done:
                    for named in going.intersection(references(self.done[id])) - {id}:
                        users[named].add(id)
        return users

    @staticmethod
    def _waits(item: Item, untried: dict[str, Item], users: dict[str, set[str]]) -> bool:
        if item.attempts:
            return False
        if item.wanted is None:
            # a circle that was let in all the same is cut: the one ranked last goes first
            return any(untried[user].wanted is not None or untried[user].rank > item.rank for user in users[item.id])
        named = [untried[id] for id in item.names if id in untried]
        if item.has_placeholders:
            named += [other for other in untried.values() if _is_env(other.wanted)]
        return any(other.rank < item.rank for other in named)

    def begin(self, item: Item) -> Entry | None:
        """``item`` is being worked on; what it was before."""
        item.running, item.changed = True, False
        return self.done.get(item.id)

    def finish(self, item: Item, wanted: Entry | None, reason: str, now: float) -> None:
        """What was to become ``wanted`` has become it, or has not because of ``reason``."""
        item.running = False
        if not reason:
            self._note_done(item, wanted)
        item.reason = reason
        if item.changed:
            item.changed = False
            return
        if reason:
            item.due = now + min(FIRST_RETRY * 2.0**item.attempts, LAST_RETRY)
            item.attempts += 1
        else:
            del self.items[item.id]

    def _note_done(self, item: Item, wanted: Entry | None) -> None:
        if wanted is None:
            self.done.pop(item.id, None)
        else:
            self.done[item.id] = wanted
        for other in self.items.values():
            if other.attempts and _names(other, item):
                other.due = 0.0

    def next_due(self) -> float | None:
        """When something that failed is to be tried again."""
        return min((item.due for item in self.items.values() if not item.running and item.attempts), default=None)

    def version(self) -> int:
        """The newest version up to which every entry was tried, ``NEVER`` before the first."""
        if self.target is None:
            return NEVER
        untried = [item.version for item in self.items.values() if item.untried]
        return min(untried) - 1 if untried else self.target.version

    def failing(self) -> list[Item]:
        """Entries that are not what the registry says because of an error, by id."""
        return sorted((item for item in self.items.values() if item.reason), key=lambda item: item.id)


def _is_env(entry: Entry | None) -> bool:
    return entry is not None and entry.kind.startswith("env.")


def _has_placeholders(entry: Entry) -> bool:
    return "${" in str(entry.data)


def _names(item: Item, other: Item) -> bool:
    """Whether what ``item`` becomes may depend on ``other``; variables are named by other names than their ids."""
    return other.id in item.names or (item.has_placeholders and _is_env(other.wanted))
