"""What a watch knows of the keys it follows: pure, no clock and no network.

Groups events by revision, and compares a state read anew with what was known, so that a
watch whose history was thrown away can tell its subscribers exactly the difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cluster.etcd import rpc_pb2 as rpc
from cluster.etcd.values import Batch, KeyEvent, KeyValue, decode_key, encode_key, prefix_end

_DELETE = rpc.Event.DELETE


def batches_of(events: Iterable[rpc.Event], *, after: int) -> list[Batch]:
    """The events by revision, in order; those up to revision ``after`` were seen before and are left out."""
    batches: list[Batch] = []
    current = after
    for event in events:
        kv = KeyValue.of(event.kv)
        if kv.mod_revision <= after:
            continue
        if kv.mod_revision != current:
            current = kv.mod_revision
            batches.append(Batch(current, []))
        batches[-1].events.append(KeyEvent(event.type == _DELETE, kv))
    return batches


def ranges_without(prefix: str, holes: Sequence[str]) -> list[tuple[str, str]]:
    """The ranges (first key, end) of all keys under ``prefix`` that are under none of ``holes``."""
    to_the_end = b"\0"
    end = prefix_end(encode_key(prefix))
    begin = encode_key(prefix)
    ranges = []
    for hole in sorted(encode_key(one) for one in holes):
        if begin < hole:
            ranges.append((begin, hole))
        begin = max(begin, prefix_end(hole))
        if prefix_end(hole) == to_the_end:
            break
    else:
        if begin < end or end == to_the_end:
            ranges.append((begin, end))
    return [(decode_key(begin), decode_key(end)) for begin, end in ranges]


def under(batch: Batch, prefix: str) -> Batch:
    """The part of the batch under ``prefix``."""
    return Batch(batch.revision, [event for event in batch.events if event.kv.key.startswith(prefix)], batch.relist)


def _gone(key: str, revision: int) -> KeyEvent:
    return KeyEvent(True, KeyValue(key, b"", 0, revision, 0, 0))


@dataclass
class Known:
    """The mod_revision of every key followed, but for those under the prefixes in ``holes``."""

    holes: tuple[str, ...] = ()
    mods: dict[str, int] = field(default_factory=dict)

    def note(self, batch: Batch) -> None:
        """Remember what a batch of a watch changed."""
        for event in batch.events:
            if event.kv.key.startswith(self.holes):
                continue
            if event.deleted:
                self.mods.pop(event.kv.key, None)
            else:
                self.mods[event.kv.key] = event.kv.mod_revision

    def replace(self, kvs: Sequence[KeyValue], revision: int) -> Batch:
        """Take ``kvs``, read at ``revision``, for the truth; the differences as one batch.

        A deletion that was not seen is dated at ``revision``.
        """
        mods = {kv.key: kv.mod_revision for kv in kvs}
        events = [_gone(key, revision) for key in self.mods if key not in mods]
        events += [KeyEvent(False, kv) for kv in kvs if self.mods.get(kv.key) != kv.mod_revision]
        self.mods = mods
        return Batch(revision, events, relist=True)

    def forget_revisions(self) -> None:
        """The store went back in time: a revision known says nothing about the value now."""
        self.mods = dict.fromkeys(self.mods, -1)

    def is_current(self, count: int, newest: int, applied: int) -> bool:
        """Whether nothing changed since revision ``applied``, given a later count and highest mod_revision.

        No key newer than ``applied`` means that the keys of then are a part of those known,
        and with an equal count they are the same: nothing was deleted either. A key that
        came and went in between leaves no trace.
        """
        return newest <= applied and count == len(self.mods)
