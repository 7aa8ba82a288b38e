from __future__ import annotations

from cluster.etcd import KeyEvent, KeyValue
from cluster.registry.chunks import Chunks


def event(key: str, value: bytes = b"", *, deleted: bool = False) -> KeyEvent:
    return KeyEvent(deleted, KeyValue(key, value, 1, 1, 1, 0))


def test_the_oldest_go_when_the_bytes_get_too_many() -> None:
    chunks = Chunks(max_bytes=10)
    for key in "abc":
        chunks.note(event(key, b"xxxx"))
    assert dict(chunks) == {"b": b"xxxx", "c": b"xxxx"}
    chunks.note(event("d", b"x" * 11))
    assert not chunks


def test_a_chunk_that_was_replaced_or_deleted_counts_once() -> None:
    chunks = Chunks(max_bytes=10)
    for _ in range(5):
        chunks.note(event("a", b"xxxx"))
    chunks.note(event("b", b"xxxx"))
    assert len(chunks) == 2
    chunks.note(event("a", deleted=True))
    chunks.note(event("c", b"xxxx"))
    assert sorted(chunks) == ["b", "c"]
