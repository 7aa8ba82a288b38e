"""system.lock: what the caller is told."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.errors import LockTaken, OutcomeUnknown, Unavailable
from cluster.etcd import LeaseGone
from cluster.locks import Lock
from node.modules.locks import LocksModule
from tests.unit.node.modules.conftest import PID

LEASE = 77


class FakeLocks:
    """A table of locks; ``raising`` is what the next acquisition fails with."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.raising: Exception | None = None

    async def acquire(self, name: str, pid: bytes, lease: int) -> Lock:
        assert lease == LEASE
        if self.raising is not None:
            raise self.raising
        if name in self.held:
            raise LockTaken(name, self.held[name].decode())
        self.held[name] = pid
        return Lock(name, pid.decode(), 5, lease, "x")

    async def release(self, name: str, pid: bytes) -> bool:
        if self.held.get(name) != pid:
            return False
        del self.held[name]
        return True

    def token(self, name: str, pid: bytes) -> int | None:
        return 5 if self.held.get(name) == pid else None


class FakeLease:
    """A lease that is good for so many more questions."""

    def __init__(self) -> None:
        self.good_for = 1000

    def current(self) -> int:
        return LEASE

    def may_start_owned(self, lease: int) -> bool:
        self.good_for -= 1
        return self.good_for >= 0


@pytest.fixture
def locks() -> FakeLocks:
    return FakeLocks()


@pytest.fixture
def lease() -> FakeLease:
    return FakeLease()


@pytest.fixture
async def asker(asking: Any, locks: FakeLocks, lease: FakeLease) -> Any:
    return await asking(LocksModule(locks, lease))


async def test_a_lock_is_acquired_has_a_token_and_is_released(asker: Any) -> None:
    assert await asker.value("locks", "acquire", b"a") is True
    assert await asker.value("locks", "fence", b"a") == 5
    assert await asker.value("locks", "release", b"a") is True
    assert await asker.value("locks", "release", b"a") is False
    assert (await asker.error("locks", "fence", b"a"))[b"kind"] == b"NotFound"


async def test_a_held_lock_names_its_holder(asker: Any, locks: FakeLocks) -> None:
    locks.held["a"] = b"{b@app:h|1-1}"
    error = await asker.error("locks", "acquire", b"a")
    assert (error[b"kind"], error[b"details"]) == (b"AlreadyExists", {b"holder": b"{b@app:h|1-1}"})


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (Unavailable("etcd is away"), b"Unavailable"),
        (LeaseGone(LEASE), b"Unavailable"),
        (OutcomeUnknown("no answer"), b"Timeout"),
        (ValueError("expected the name of a lock"), b"Invalid"),
    ],
)
async def test_a_failure_says_what_became_of_it(asker: Any, locks: FakeLocks, raised: Exception, kind: bytes) -> None:
    locks.raising = raised
    assert (await asker.error("locks", "acquire", b"a"))[b"kind"] == kind


@pytest.mark.parametrize("good_for", [0, 1])
async def test_under_a_lease_that_is_not_sure_nothing_is_held(
    asker: Any, locks: FakeLocks, lease: FakeLease, good_for: int
) -> None:
    """Neither when it is asked for, nor when the answer comes."""
    lease.good_for = good_for
    error = await asker.error("locks", "acquire", b"a")
    assert (error[b"kind"], error[b"retryable"]) == (b"Unavailable", True)
    assert locks.held == {}


@pytest.mark.parametrize("name", [b"", 5, None])
async def test_what_is_no_name_is_refused(asker: Any, name: Any) -> None:
    assert (await asker.error("locks", "acquire", name))[b"kind"] == b"Invalid"


async def test_a_lock_is_of_the_calling_process(asker: Any, locks: FakeLocks) -> None:
    await asker.value("locks", "acquire", b"a")
    assert locks.held == {"a": PID}
    other = b"{node-1@app:processes|1-9}"
    assert (await asker.ask("locks", "release", b"a", pid=other))[1] == [False]
