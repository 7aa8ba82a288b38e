"""Holders of locks near the end of the lease, and all owned work as one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from cluster.envelope import Kind
from cluster.keys import Keys
from cluster.locks import Lock
from node.lockholders import LockHolders
from node.owners import Owners

P, Q = b"{n@app:h|1-1}", b"{n@app:h|1-2}"


@dataclass
class FakeLocks:
    """Locks that are held."""

    held: dict[bytes, list[Lock]] = field(default_factory=dict)
    lost: list[Callable[[Lock], None]] = field(default_factory=list)

    @property
    def holders(self) -> Collection[bytes]:
        return self.held.keys()

    def on_lost(self, handler: Callable[[Lock], None]) -> None:
        self.lost.append(handler)

    def of(self, pid: bytes) -> list[Lock]:
        return self.held.get(pid, [])

    def owns(self) -> bool:
        return bool(self.held)

    def process_ended(self, pid: bytes) -> None:
        del self.held[pid]


class World:
    """Holders of locks, a lease under which owned work may run or not, and what was sent."""

    def __init__(self) -> None:
        self.locks = FakeLocks()
        self.may_run = True
        self.sent: list[tuple[int, bytes]] = []
        locks: Any = self.locks
        self.holders = LockHolders(locks, Keys("c"), self, lambda item: self.sent.append((item[0], item[1])))

    def may_run_owned(self, lease: int) -> bool:
        return self.may_run

    def hold(self, pid: bytes, *names: str) -> None:
        self.locks.held[pid] = [Lock(name, pid.decode(), 40 + at, 7, "x") for at, name in enumerate(names)]


class TestHolders:
    def test_are_cancelled_once_and_then_killed(self) -> None:
        world = World()
        holders = world.holders
        world.hold(P, "a")
        holders.in_doubt()
        holders.in_doubt()
        assert world.sent == [(Kind.CANCEL, P)]
        holders.kill_owned()
        assert world.sent[1:] == [(Kind.TERMINATE, P)]
        assert holders.owns()
        holders.process_ended(P)
        assert not holders.owns()

    def test_go_on_when_the_lease_answers_again_and_are_warned_anew(self) -> None:
        world = World()
        holders = world.holders
        world.hold(P, "a")
        holders.in_doubt()
        holders.sure()
        holders.in_doubt()
        assert world.sent == [(Kind.CANCEL, P)] * 2

    def test_do_nothing_more_when_the_lease_may_be_over(self) -> None:
        world = World()
        holders = world.holders
        world.hold(P, "a")
        assert holders.may_act(P)
        world.may_run = False
        assert not holders.may_act(P)
        assert world.sent == [(Kind.TERMINATE, P)]
        assert holders.may_act(Q), "who holds nothing is not concerned"

    def test_write_under_the_tokens_of_all_their_locks(self) -> None:
        world = World()
        holders = world.holders
        world.hold(P, "a", "b")
        assert holders.fences_of(P) == [("/wippy/c/locks/a", 40), ("/wippy/c/locks/b", 41)]
        assert holders.fences_of(Q) == []

    def test_are_killed_when_they_lost_a_lock(self) -> None:
        world = World()
        world.locks.lost[0](Lock("a", P.decode(), 40, 7, "x"))
        assert world.sent == [(Kind.TERMINATE, P)]


@dataclass
class Part:
    """Owned work of one kind."""

    pids: set[bytes]
    allows: bool = True
    told: list[str] = field(default_factory=list)

    @property
    def guarded(self) -> set[bytes]:
        return self.pids

    def may_act(self, pid: bytes) -> bool:
        return self.allows or pid not in self.pids

    def in_doubt(self) -> None:
        self.told.append("in doubt")

    def kill_owned(self) -> None:
        self.told.append("kill")

    def sure(self) -> None:
        self.told.append("sure")

    def owns(self) -> bool:
        return bool(self.pids)


class TestOwners:
    def test_are_asked_and_told_together(self) -> None:
        services, locks = Part({P}), Part({Q})
        owners = Owners(services, locks)
        assert P in owners.guarded
        assert Q in owners.guarded
        assert sorted(owners.guarded) == [P, Q]
        assert len(owners.guarded) == 2
        for tell in (owners.in_doubt, owners.kill_owned, owners.sure):
            tell()
        assert services.told == locks.told == ["in doubt", "kill", "sure"]

    def test_one_no_is_enough(self) -> None:
        owners = Owners(Part({P}), Part({P, Q}, allows=False))
        assert not owners.may_act(P)
        assert not owners.may_act(Q)

    def test_nothing_is_owned_when_no_part_owns(self) -> None:
        owners = Owners(Part(set()), Part(set()))
        assert not owners.guarded
        assert not owners.owns()
        assert Owners(Part(set()), Part({Q})).owns()
