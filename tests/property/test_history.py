"""A subscriber that follows the batches has etcd's state, whatever the cuts, repeats and re-reads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cluster.etcd import Batch, KeyValue
from cluster.etcd import rpc_pb2 as rpc
from cluster.etcd.history import Known, batches_of, ranges_without

KEYS = [f"/k/{name}" for name in "abc"] + ["/k/hole/x", "/k/hole/y"]
HOLE = "/k/hole/"


class Following(RuleBasedStateMachine):
    """A model of etcd with its log, and a watch that is sent pieces of the log."""

    def __init__(self) -> None:
        super().__init__()
        self.revision = 1
        self.log: list[rpc.Event] = []
        self.store: dict[str, KeyValue] = {}
        self.known = Known(holes=(HOLE,))
        self.after = 1
        self.told: dict[str, int] = {}
        self.last_told = 0

    @rule(changes=st.dictionaries(st.sampled_from(KEYS), st.booleans(), min_size=1, max_size=3))
    def transaction(self, changes: dict[str, bool]) -> None:
        """One revision: each key put (true) or deleted (false)."""
        self.revision += 1
        for key, is_put in changes.items():
            if is_put:
                self.store[key] = KeyValue(key, b"", self.revision, self.revision, 1, 0)
                self.log.append(rpc.Event(kv=rpc.KeyValue(key=key.encode(), mod_revision=self.revision)))
            elif self.store.pop(key, None):
                kv = rpc.KeyValue(key=key.encode(), mod_revision=self.revision)
                self.log.append(rpc.Event(type=rpc.Event.DELETE, kv=kv))

    @rule(start=st.integers(0, 5), length=st.integers(1, 4))
    def etcd_sends(self, start: int, length: int) -> None:
        """Up to ``length`` revisions, beginning up to ``start`` before what comes next: repeats after a reconnect."""
        first = self.after + 1 - start
        end = self.after + length
        for batch in batches_of([one for one in self.log if first <= one.kv.mod_revision <= end], after=self.after):
            assert batch.revision > self.last_told
            self.known.note(batch)
            self.after = batch.revision
            self.tell(batch)

    @rule()
    def history_is_lost(self) -> None:
        kvs = [kv for key, kv in sorted(self.store.items()) if not key.startswith(HOLE)]
        self.after = self.revision
        self.tell(self.known.replace(kvs, self.revision))

    def tell(self, batch: Batch) -> None:
        self.last_told = batch.revision
        for event in batch.events:
            key = event.kv.key
            if event.deleted:
                assert key in self.told or key.startswith(HOLE)
                self.told.pop(key, None)
            else:
                assert self.told.get(key) != event.kv.mod_revision
                self.told[key] = event.kv.mod_revision

    def outside_the_hole(self) -> dict[str, int]:
        return {key: kv.mod_revision for key, kv in self.store.items() if not key.startswith(HOLE)}

    @invariant()
    def subscriber_knows_what_the_watch_knows(self) -> None:
        assert {key: mod for key, mod in self.told.items() if not key.startswith(HOLE)} == self.known.mods

    @invariant()
    def proof_of_being_current_is_sound_and_succeeds_when_all_was_sent(self) -> None:
        now = self.outside_the_hole()
        is_current = self.known.is_current(len(now), max(now.values(), default=0), self.after)
        if is_current:
            assert self.known.mods == now
        if self.after == self.revision:
            assert is_current


TestFollowing = Following.TestCase


@given(st.text("abc/", max_size=4), st.lists(st.text("abc/", max_size=4), max_size=3), st.text("abc/", max_size=6))
def test_ranges_cover_exactly_the_prefix_without_its_holes(prefix: str, tails: list[str], tail: str) -> None:
    holes = [prefix + tail for tail in tails]
    for key in (prefix + tail, tail):
        wanted = key.startswith(prefix) and not key.startswith(tuple(holes)) if holes else key.startswith(prefix)
        ranges = ranges_without(prefix, holes)
        found = sum(begin <= key and (key < end or end == "\0") for begin, end in ranges)
        assert found == int(wanted)
