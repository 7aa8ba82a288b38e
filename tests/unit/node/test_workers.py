"""Several workers in one host: what goes where, what passes between them, and how their number changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from cluster.pid import slot_of
from node import hosts as hosts_module
from node.balance import STAY, Elsewhere
from node.ports import Refused
from node.slots import NoSlot
from tests.unit.node.hostworld import HostWorld

SOURCES = {
    "echo": """return { main = function()
        local inbox = process.inbox()
        while true do
            local m = inbox:receive()
            if m:topic() == "end" then return "ended" elseif m:topic() == "fail" then error("failed") end
            process.send(m:from(), m:topic(), m:payload():data())
        end
    end }""",
    "collector": """return { main = function(count)
        local inbox, seen = process.inbox(), {}
        for i = 1, count do seen[i] = inbox:receive():payload():data() end
        return seen
    end }""",
    "counter": """return { main = function(to, count)
        for i = 1, count do assert(process.send(to, "n", i)) end
        return count
    end }""",
    "watcher": """return { main = function(pid, linked)
        local events = process.events()
        process.set_options({ trap_links = true })
        if linked then assert(process.link(pid)) else assert(process.monitor(pid)) end
        process.send(pid, linked and "fail" or "end")
        local event = events:receive()
        return { event.kind, event.from == pid }
    end }""",
    "parent": """return { main = function(count)
        local pids = {}
        for i = 1, count do pids[i] = assert(process.spawn("app:echo", "app:processes")) end
        return pids
    end }""",
    "busy": """return { main = function(rounds) local n = 0 for i = 1, rounds do n = n + i % 7 end return n end }""",
    "forwarder": """return { main = function(to)
        local inbox = process.inbox()
        while true do
            local m = inbox:receive()
            if m:topic() == "end" then return "ended" end
            assert(process.send(to, "n", m:payload():data()))
        end
    end }""",
    "spinner": "return { main = function() while true do end end }",
}


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HostWorld]:
    monkeypatch.setattr(hosts_module, "LOOK", 0.05)
    monkeypatch.setattr(hosts_module, "STOP_GRACE", timedelta(milliseconds=50))
    async with HostWorld(SOURCES) as world:
        await world.put(workers=2)
        yield world


@pytest.fixture
async def quiet(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HostWorld]:
    """The same, but nobody looks how busy the workers are: only what was handed out counts."""
    monkeypatch.setattr(hosts_module, "LOOK", 60.0)
    monkeypatch.setattr(hosts_module, "STOP_GRACE", timedelta(milliseconds=50))
    async with HostWorld(SOURCES) as world:
        await world.put(workers=2)
        yield world


async def in_slots(world: HostWorld, name: str, count: int) -> dict[int, list[bytes]]:
    """Start processes, the same number in each worker; their PIDs by slot."""
    found: dict[int, list[bytes]] = {}
    for number in range(count):
        pid = await world.spawn(name, at=world.at(world.slots[number % len(world.slots)]))
        found.setdefault(slot_of(pid), []).append(pid)
    return found


async def test_what_comes_from_outside_goes_to_the_least_loaded_worker(quiet: HostWorld) -> None:
    slots = [slot_of(await quiet.spawn("echo")) for _ in range(6)]
    assert {slot: slots.count(slot) for slot in quiet.slots} == dict.fromkeys(quiet.slots, 3)


async def test_children_start_beside_their_parent(world: HostWorld) -> None:
    parent = await world.spawn("parent", 20)
    children = await world.result(parent)
    assert {slot_of(pid.encode()) for pid in children} == {slot_of(parent)}


async def test_messages_between_workers_arrive_in_order_and_all(world: HostWorld) -> None:
    count = 5000
    first, second = world.slots
    collector = await world.spawn("collector", count, at=world.at(first))
    await world.spawn("counter", collector, count, at=world.at(second))
    assert await world.result(collector) == list(range(1, count + 1))


@pytest.mark.parametrize(("linked", "kind"), [(False, "pid.exit"), (True, "pid.link.down")])
async def test_monitors_and_links_fire_between_workers(world: HostWorld, linked: bool, kind: str) -> None:
    first, second = world.slots
    echo = await world.spawn("echo", at=world.at(first))
    watcher = await world.spawn("watcher", echo, linked, at=world.at(second))
    assert await world.result(watcher) == [kind, True]


async def test_every_worker_is_listed_inspected_told_of_code_and_drained(world: HostWorld) -> None:
    found = await in_slots(world, "echo", 4)
    pids = {pid.decode() for some in found.values() for pid in some}
    listed = await world.hosts.processes()
    assert {one["pid"] for one in listed} == pids
    assert {one["worker"] for one in listed} == {1, 2}
    for pid in pids:
        detail = await world.hosts.inspect(pid, slot_of(pid.encode()))
        assert detail is not None
        assert (detail["pid"], detail["workers"], detail["workers_asked"]) == (pid, 2, 2)
    world.sources["app:echo"] = "return { main = function() return 'new' end }"
    world.hosts.code_changed({"app:echo"})
    assert [await world.result(await world.spawn("echo")) for _ in range(2)] == ["new", "new"]
    await world.hosts.drain("test over", hosts_module.STOP_GRACE * 0)
    assert {pid.decode() for pid in world.exits} >= pids


async def test_a_busy_worker_is_noticed_and_told_where_children_go(world: HostWorld) -> None:
    first, second = world.slots
    await world.spawn("spinner", at=world.at(first))
    worker = world.host.workers[0]
    await world.until(lambda: worker._told.slot == second, "the busy worker to be told")
    assert world.host.workers[1]._told == STAY


async def test_a_worker_that_was_told_so_starts_every_second_child_elsewhere(quiet: HostWorld) -> None:
    first, second = quiet.slots
    quiet.host.workers[0].send_children(Elsewhere(second, 2))
    parent = await quiet.spawn("parent", 10, at=quiet.at(first))
    slots = [slot_of(pid.encode()) for pid in await quiet.result(parent)]
    assert slots == [first, second] * 5
    quiet.host.workers[0].send_children(STAY)
    parent = await quiet.spawn("parent", 4, at=quiet.at(first))
    assert [slot_of(pid.encode()) for pid in await quiet.result(parent)] == [first] * 4


async def test_a_host_grows_and_shrinks_under_load_without_losing_a_message(world: HostWorld) -> None:
    count = 400
    collector = await world.spawn("collector", count * 4)
    forwarders = [await world.spawn("forwarder", collector) for _ in range(4)]

    async def feed(pid: bytes, first: int) -> None:
        for number in range(first, first + count):
            world.post(pid, "n", number)
            await asyncio.sleep(0.001)

    feeding = asyncio.gather(*(feed(pid, index * count) for index, pid in enumerate(forwarders)))
    for workers in (4, 1, 3, 1):
        await world.put(workers=workers)
        await asyncio.sleep(0.08)
        assert len(world.host.staying()) == workers
    await feeding
    seen = await world.result(collector)
    assert sorted(seen) == list(range(count * 4))
    for index in range(4):
        own = [number for number in seen if number // count == index]
        assert own == sorted(own), "messages of one sender came out of order"


async def test_a_retired_worker_gets_nothing_new_and_ends_when_it_is_empty(world: HostWorld) -> None:
    found = await in_slots(world, "echo", 4)
    await world.put(workers=1)
    (retired,) = [worker for worker in world.host.workers if worker.retiring]
    stays = next(slot for slot in world.slots if slot != retired.vm.slot)
    assert {slot_of(await world.spawn("echo")) for _ in range(5)} == {stays}
    for pid in found[retired.vm.slot]:
        await world.send(pid, "say", 1)  # it still runs
    assert world.port.messages.qsize() == 2
    for pid in found[retired.vm.slot]:
        await world.send(pid, "end", 1)
    await world.until(lambda: len(world.host.workers) == 1, "the retired worker to end")
    stats = next(host for host in world.hosts.stats() if host.host == "app:processes")
    assert stats.counters.spawned["app:echo"] >= 2, "what it had counted stays counted"
    with pytest.raises(Refused) as refused:
        await world.send(found[retired.vm.slot][0], "say", 1)
    assert refused.value.kind == "NotFound"


async def test_a_host_that_goes_while_a_worker_of_it_ends_is_gone_once(world: HostWorld) -> None:
    await world.put(workers=1)
    (retired,) = [worker for worker in world.host.workers if worker.retiring]
    await asyncio.gather(
        world.hosts._end_if_empty(world.host, retired),
        world.hosts.remove("app:processes"),
        world.hosts._end(world.host, retired),
    )
    assert "app:processes" not in world.hosts._running
    assert len(world.hosts._slots._free) == 62


async def test_nothing_starts_in_a_worker_that_is_asked_whether_it_may_end(quiet: HostWorld) -> None:
    await quiet.put(workers=1)
    (retired,) = [worker for worker in quiet.host.workers if worker.retiring]
    await quiet.until(lambda: not retired.vm.stats().waiting_in, "the worker to have read what it was told")
    _, pid = await asyncio.gather(
        quiet.hosts._end_if_empty(quiet.host, retired), quiet.spawn("echo", at=quiet.at(retired.vm.slot))
    )
    assert slot_of(pid) != retired.vm.slot
    await quiet.send(pid, "say", 1)


async def test_workers_there_was_no_slot_for_are_added_when_there_is_one(world: HostWorld) -> None:
    free, world.hosts._slots._free = world.hosts._slots._free, []
    with pytest.raises(NoSlot):
        await world.put(workers=3)
    world.hosts._slots._free = free
    await world.put(workers=3)
    assert len(world.host.workers) == 3


async def test_who_lists_processes_while_a_worker_ends_gets_those_of_the_others(
    world: HostWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    await in_slots(world, "echo", 2)
    first, second = world.host.workers
    with monkeypatch.context() as patch:
        patch.setattr(first.vm, "post", lambda item: asyncio.get_running_loop().call_soon(first.vm._give_up_queries))
        listed = await world.hosts.processes()
    assert {process["worker"] for process in listed} == {second.number}


async def test_children_of_a_retiring_worker_start_elsewhere(world: HostWorld) -> None:
    await in_slots(world, "echo", 2)
    await world.put(workers=1)
    (retired,) = [worker for worker in world.host.workers if worker.retiring]
    parent = await world.spawn("parent", 3, at=world.at(retired.vm.slot))
    assert slot_of(parent) == retired.vm.slot
    assert retired.vm.slot not in {slot_of(pid.encode()) for pid in await world.result(parent)}


async def test_a_slot_is_taken_again_and_its_old_pids_are_unknown(world: HostWorld) -> None:
    old = await world.spawn("echo")
    await world.hosts.remove("app:processes")
    await world.until(lambda: old in world.exits, "the process to end with its host")
    world.hosts._slots._free.sort(key=lambda slot: slot != slot_of(old))
    await world.put(workers=1)
    new = await world.spawn("echo")
    assert slot_of(new) == slot_of(old)
    assert new != old
    assert int(new[new.rfind(b"-") + 1 : -1], 36) > int(old[old.rfind(b"-") + 1 : -1], 36)
    with pytest.raises(Refused) as refused:
        await world.send(old, "say", 1)
    assert refused.value.kind == "NotFound"
    await world.send(new, "say", 1)


async def test_hosts_come_and_go_more_often_than_there_are_slots(world: HostWorld) -> None:
    for _ in range(35):
        await world.hosts.remove("app:processes")
        await world.put(workers=2)
    await world.send(await world.spawn("echo"), "say", 1)


async def test_fewer_cores_give_fewer_workers_and_that_is_shown(world: HostWorld) -> None:
    world.hosts._cores = 3
    await world.put(workers=8)
    stats = next(host for host in world.hosts.stats() if host.host == "app:processes")
    assert (len(stats.workers), stats.asked) == (3, 8)


async def test_limits_change_in_place_in_every_worker(world: HostWorld) -> None:
    found = await in_slots(world, "echo", 2)
    await world.put(workers=2, mailbox_size=7, memory="64MiB")
    for (pid,) in found.values():
        detail = await world.hosts.inspect(pid.decode(), slot_of(pid))
        assert detail is not None
        assert detail["mailbox_limit"] == 7
    assert {vm.stats().max_memory for vm in world.hosts.vms() if vm.host_id == "app:processes"} == {64 * 1024**2}
    await world.put(workers=2)
    for (pid,) in found.values():
        detail = await world.hosts.inspect(pid.decode(), slot_of(pid))
        assert detail is not None
        assert detail["mailbox_limit"] == 10_000
