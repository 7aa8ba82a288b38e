"""One replica: never two processes, and no rest while one may live."""

from __future__ import annotations

import asyncio
from typing import Any

from cluster.supervision import ServiceState
from node.kinds import decode
from node.kinds.service import ProcessService
from node.replica import Replica
from tests.sim.memory_etcd import run_virtually
from tests.unit.node.services import NODE, Host, service, turns


class World:
    """A replica and what it told."""

    def __init__(self, **lifecycle: Any) -> None:
        spec = decode(service(lifecycle=lifecycle), lambda name: None)
        assert isinstance(spec, ProcessService)
        self.host = Host()
        self.may_start = True
        self.fenced: list[bytes] = []
        self.rested: list[ServiceState] = []
        self.replica = Replica(
            "app:s",
            0,
            spec,
            self.host.ports,
            NODE,
            may_start=lambda: self.may_start,
            ready=self._ready,
            fence=self.fenced.append,
            on_pid=lambda pid: None,
            on_rest=self.rested.append,
        )

    async def _ready(self) -> None:
        return

    async def start(self) -> bytes:
        self.replica.start()
        await turns()
        return self.host.start()


async def test_a_process_that_ends_as_soon_as_it_starts_is_seen_to_run_and_to_end() -> None:
    world = World()
    pid = await world.start()
    world.host.exit(pid)
    await turns()
    assert world.rested == [ServiceState.EXITED]
    assert world.replica.started.is_set()
    assert world.host.asked == []


def test_a_stop_while_the_start_is_under_way_waits_for_its_outcome_and_ends_the_process() -> None:
    async def scenario() -> None:
        world = World()
        world.replica.start()
        await turns()
        stopping = asyncio.ensure_future(world.replica.stop("test"))
        await turns()
        assert not stopping.done(), "the process may come to life yet"
        pid = world.host.start()
        await stopping
        assert world.host.alive == []
        assert world.host.cancelled == [(pid, b"test")]

    run_virtually(scenario())


def test_a_start_that_came_too_late_leaves_no_second_process() -> None:
    async def scenario() -> None:
        world = World(start_timeout="1s", restart={"initial_delay": "1s", "jitter": 0})
        world.replica.start()
        await asyncio.sleep(2.5)  # timed out, and asked for again
        assert len(world.host.asked) == 2
        first, second = world.host.start(), world.host.start()
        await turns()
        assert world.host.alive == [world.replica.pid]
        assert sorted(world.fenced) == sorted([first, second]), "also the unwanted one is fenced while it lives"

    run_virtually(scenario())


async def test_the_exit_of_another_process_is_none_of_its_own() -> None:
    world = World()
    pid = await world.start()
    world.host.watchers[b"{n1@app:processes|1-zz}"] = world.host.watchers[pid]
    world.host.exit(b"{n1@app:processes|1-zz}", "crash")
    await turns()
    assert world.replica.pid == pid
    assert world.host.asked == []


def test_a_process_that_ignores_cancel_is_killed_after_its_stop_timeout() -> None:
    async def scenario() -> None:
        world = World(stop_timeout="2s")
        pid = await world.start()
        world.host.obeys = False
        loop = asyncio.get_running_loop()
        began = loop.time()
        stopping = asyncio.ensure_future(world.replica.stop("test"))
        while not world.host.terminated:
            await asyncio.sleep(0.1)
        assert 2.0 <= loop.time() - began < 2.3
        assert not world.replica.finished.is_set()
        world.host.exit(pid, "terminated")
        await stopping
        assert world.rested == [ServiceState.FAILED]

    run_virtually(scenario())


def test_a_stop_returns_only_when_the_process_is_gone_however_long_that_takes() -> None:
    async def scenario() -> None:
        world = World(stop_timeout="1s")
        pid = await world.start()
        world.host.obeys = False
        stopping = asyncio.ensure_future(world.replica.stop("test"))
        await asyncio.sleep(60)
        assert not stopping.done()
        assert len(world.host.terminated) > 1, "it is tried again"
        world.host.exit(pid, "terminated")
        await stopping

    run_virtually(scenario())


def test_nothing_is_started_while_it_may_not() -> None:
    async def scenario() -> None:
        world = World()
        world.may_start = False
        world.replica.start()
        await asyncio.sleep(30)
        assert world.host.asked == []
        world.may_start = True
        await asyncio.sleep(0.2)
        assert len(world.host.asked) == 1

    run_virtually(scenario())


def test_a_service_that_ends_because_it_lost_its_name_is_started_again() -> None:
    async def scenario() -> None:
        world = World()
        pid = await world.start()
        world.replica.name_revoked(pid, "counter")
        world.host.exit(pid)
        await asyncio.sleep(2)
        assert len(world.host.asked) == 1
        again = world.host.start()
        world.host.exit(again)
        assert world.rested == [ServiceState.EXITED], "a return without such a cause is its end"

    run_virtually(scenario())


async def test_killing_ends_also_what_is_being_started() -> None:
    world = World()
    world.replica.start()
    await turns()
    world.replica.kill("the lease is over")
    assert not world.replica.finished.is_set()
    world.host.start()
    await turns()
    assert world.host.alive == []
    assert world.replica.finished.is_set()


async def test_a_refused_start_is_a_failure_with_its_reason() -> None:
    world = World(restart={"max_attempts": 1})
    world.replica.start()
    await turns()
    world.host.refuse("no such entry")
    await turns()
    assert world.rested == [ServiceState.FAILED]
    assert world.replica.stats().last_error == "no such entry"
    assert world.replica.tried.is_set()
    assert not world.replica.started.is_set()
