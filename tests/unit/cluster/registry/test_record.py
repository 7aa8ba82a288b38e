from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cluster.registry.record import (
    BadRecord,
    Blob,
    ChangeRecord,
    SnapshotRecord,
    VersionNotFound,
    decode_head,
    encode_head,
)

TIME = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)


@pytest.mark.parametrize("overlay", [None, 0, 77])
def test_a_change_survives_its_stored_form(overlay: int | None) -> None:
    record = ChangeRecord(
        Blob("u" * 32, 3, "ab" * 32, 9), "me", TIME, "why", 2, overlay, "a:x" if overlay is not None else ""
    )
    assert ChangeRecord.decode(record.encode()) == record


def test_a_snapshot_survives_its_stored_form() -> None:
    record = SnapshotRecord(Blob("u" * 32, 3, "ab" * 32, 9))
    assert SnapshotRecord.decode(record.encode()) == record


@pytest.mark.parametrize(
    "raw",
    [b"", b"{}", b"[]", b'{"u":"x","chunks":1,"sha":"s","author":"a","time":"noon","message":"","changed":1}', b"\xff"],
)
def test_what_is_no_record_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRecord):
        ChangeRecord.decode(raw)
    if raw != b"" and raw[:4] != b'{"u"':
        with pytest.raises(BadRecord):
            SnapshotRecord.decode(raw)


def test_the_head_is_a_plain_number() -> None:
    assert encode_head(12) == b"12"
    assert decode_head(b"12") == 12
    for raw in (b"", b"-1", b"x", b"1.5"):
        with pytest.raises(BadRecord):
            decode_head(raw)


def test_a_version_that_is_not_there_says_what_is() -> None:
    assert "v3 to v9" in str(VersionNotFound(1, 3, 9))
    assert "nothing was ever published" in str(VersionNotFound(1, -1, -1))
