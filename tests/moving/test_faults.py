"""A move that is stopped at one of its steps while something fails: whatever that is, one process runs, or none.

After each fault (``Scene.check``): at most one copy of the process runs; it moved, or runs where it was, or died, and
then every watcher has heard once and its name and key are gone; nothing is accepted twice or out of order, by the
process or of it; nothing is lost where no link closed and nothing died; once it has ended no node knows of it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from cluster.embedded import EmbeddedServers
from cluster.envelope import Kind
from cluster.migration.actions import Verdict
from cluster.registry import Create, Delete, Operation
from node.host.boundary import Out
from node.moving import arrivals, moving
from tests.moving.scene import NODES, ROUTES, A, B, C, Scene
from tests.moving.stops import Etcds, Gate, Rig
from tests.moving.world import HOST, Town, eventually, program

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def _quick() -> Iterator[None]:
    """What is forgotten after a while is forgotten soon."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moving, "FORGOTTEN", 0.15)
        patch.setattr(moving, "LOOK", 0.05)
        patch.setattr(arrivals, "RESERVED", 0.5)
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(
    servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory, _quick: None
) -> AsyncIterator[tuple[Town, Rig]]:
    directory = tmp_path_factory.mktemp("faults")
    async with Town(servers, f"test-{secrets.token_hex(5)}", directory) as built:
        built.entries = [
            *built.entries,
            program("mover", "process", "channel"),
            program("numbering", "process", "channel", "time"),
        ]
        await built.start(*NODES)
        rig = Rig()
        with pytest.MonkeyPatch.context() as patch:
            rig.install(built.nodes, patch)
            yield built, rig


@pytest_asyncio.fixture(loop_scope="module")
async def scene(town: tuple[Town, Rig]) -> AsyncIterator[Scene]:
    built, rig = town
    one = Scene(built, rig)
    with capture_logs() as logs:
        await one.build()
        try:
            yield one
        finally:
            print(one.report(), *logs, sep="\n")
            rig.clear()
    errors = [line for line in logs if line["log_level"] in ("error", "critical")]
    unexpected = [line for line in errors if not any(text in line["event"] for text in one.expected_errors)]
    assert unexpected == []
    handlers = [line for line in logs if line.get("exc_info")]
    assert handlers == []


# -- the steps a move is stopped at

Stop = Callable[[Rig, str, str, str], Gate]
STOPS: dict[str, Stop] = {
    "asked": lambda rig, source, target, other: rig.link(source, target, Kind.MOVE_ASK),
    "reserved": lambda rig, source, target, other: rig.link(target, source, Kind.MOVE_RESERVED),
    "marking": lambda rig, source, target, other: rig.etcd(source, "mark", Etcds.BEFORE),
    "marked": lambda rig, source, target, other: rig.etcd(source, "mark", Etcds.AFTER),
    "leaving": lambda rig, source, target, other: rig.vm(source, Out.LEAVING),
    "packed": lambda rig, source, target, other: rig.vm(source, Out.LUGGAGE),
    "own words": lambda rig, source, target, other: rig.link(source, other, Kind.LINK_FLUSH),
    "flushing": lambda rig, source, target, other: rig.link(other, source, Kind.LINK_FLUSHED),
    "sent": lambda rig, source, target, other: rig.link(source, target, Kind.MOVE_STATE),
    "committing": lambda rig, source, target, other: rig.etcd(target, "commit", Etcds.BEFORE),
    "committed": lambda rig, source, target, other: rig.etcd(target, "commit", Etcds.AFTER),
    "forwarding": lambda rig, source, target, other: rig.link(source, target, Kind.FORWARD),
    "relaying": lambda rig, source, target, other: rig.link(source, target, Kind.FLUSH),
    "seen late": lambda rig, source, target, other: rig.watch(source, target),
    "seen late by another": lambda rig, source, target, other: rig.watch(other, target),
    "flushed": lambda rig, source, target, other: rig.link(source, other, Kind.FLUSHED),
    "flushed for the target": lambda rig, source, target, other: rig.link(source, target, Kind.FLUSHED),
}
UNDECIDED = list(STOPS)[: list(STOPS).index("committed")]
"""The stops at which it is on the source still, as far as etcd knows."""

Fault = Callable[[Scene], Awaitable[None]]


async def nothing(scene: Scene) -> None:
    await asyncio.sleep(0.02)


async def deadline(scene: Scene) -> None:
    await asyncio.sleep(scene.within + 0.1)


def closes(one: int, other: int) -> Fault:
    async def close(scene: Scene) -> None:
        scene.may_lose = True
        scene.links(scene.route[one]).close(scene.route[other], "as the test wants it")
        await asyncio.sleep(0.03)

    return close


async def killed(scene: Scene) -> None:
    scene.dies = scene.may_lose = True
    scene.terminate(scene.pid, by=scene.route[2])
    await asyncio.sleep(0.03)


async def a_watcher_dies(scene: Scene) -> None:
    scene.terminate(scene.witnesses.pop(scene.route[2]))
    await asyncio.sleep(0.02)


FAULTS: dict[str, Fault] = {
    "nothing": nothing,
    "deadline": deadline,
    "source closes to target": closes(0, 1),
    "target closes to source": closes(1, 0),
    "other closes to source": closes(2, 0),
    "target closes to other": closes(1, 2),
    "killed": killed,
    "a watcher dies": a_watcher_dies,
}


def spread(stops: Iterable[str], faults: Iterable[str]) -> list[tuple[str, str, str]]:
    """Every step with every fault, each pair on one of the routes."""
    pairs = [(stop, fault) for stop in stops for fault in faults]
    return [
        (stop, fault, routes[n % len(routes)]) for n, (stop, fault) in enumerate(pairs) for routes in [_routes(stop)]
    ]


def _routes(stop: str) -> list[str]:
    """A node it has left sends no flush when it moves on."""
    return [route for route in ROUTES if stop != "flushed" or route != "on"]


@pytest.mark.parametrize(("stop", "fault", "route"), spread(STOPS, FAULTS))
async def test_whatever_fails_at_any_step(scene: Scene, stop: str, fault: str, route: str) -> None:
    await scene.take(route)
    scene.within = 0.2 if fault == "deadline" else 3.0
    await stopped_at(scene, stop, FAULTS[fault])
    await scene.check()


async def stopped_at(scene: Scene, stop: str, fault: Fault) -> None:
    """Move it, and let something happen at a step on the way."""
    gate = STOPS[stop](scene.rig, *scene.route)
    async with asyncio.TaskGroup() as group:
        move = group.create_task(scene.move())
        await asyncio.wait_for(gate.reached.wait(), 3)
        await fault(scene)
        gate.open()
        await move


# -- what etcd leaves unsaid


async def moved(scene: Scene, to: str, source: str) -> None:
    """Move it, however often that takes: what came before it has to be there first."""
    await eventually(lambda: came(scene, to, source), f"it moves from {source} to {to}: {scene.outcome}")


async def came(scene: Scene, to: str, source: str) -> bool:
    return (await scene.move(to, source)).moved


@pytest.mark.parametrize("how", [Etcds.LOST, Etcds.NEVER, Etcds.LATE])
async def test_a_mark_that_is_not_answered_leaves_it_where_it_is(scene: Scene, how: Etcds) -> None:
    gate = scene.rig.etcd(A, "mark", how)
    outcome = await scene.move()
    assert outcome.verdict is Verdict.STAYED
    await scene.check_running(A)
    gate.open()
    if how is Etcds.LATE:
        await gate.done.wait()
    await moved(scene, B, A)
    await moved(scene, C, B)
    await scene.check()


async def test_a_commit_that_is_applied_and_not_answered_is_found(scene: Scene) -> None:
    scene.rig.etcd(B, "commit", Etcds.LOST)
    await moved(scene, B, A)
    await scene.check()


async def test_a_commit_that_never_came_to_etcd_ends_at_the_deadline(scene: Scene) -> None:
    scene.rig.etcd(B, "commit", Etcds.NEVER)
    scene.within = 0.5
    assert (await scene.move()).verdict is Verdict.STAYED
    await scene.check_running(A)
    await moved(scene, B, A)
    await scene.check()


@pytest.mark.parametrize("turns", [[], [B], [B, A], [B, C, A]])
async def test_a_commit_that_lands_after_the_process_went_on_changes_nothing(scene: Scene, turns: list[str]) -> None:
    late = scene.rig.etcd(B, "commit", Etcds.LATE)
    scene.within = 0.3
    assert (await scene.move()).verdict is Verdict.STAYED
    scene.within = 3.0
    source = A
    for to in turns:
        await moved(scene, to, source)
        source = to
    late.open()
    await late.done.wait()
    await scene.check_running(source)
    await scene.check()


@pytest.mark.parametrize("how", [Etcds.LOST, Etcds.NEVER, Etcds.LATE])
@pytest.mark.parametrize("wins", ["the abort", "the commit"])
async def test_an_abort_that_is_not_answered_is_asked_again_until_etcd_has_said(
    scene: Scene, how: Etcds, wins: str
) -> None:
    commit = scene.rig.etcd(B, "commit", Etcds.BEFORE if wins == "the abort" else Etcds.AFTER)
    watch = scene.rig.watch(A, B)
    abort = scene.rig.etcd(A, "abort", how)
    scene.within = 0.3
    async with asyncio.TaskGroup() as group:
        move = group.create_task(scene.move())
        await asyncio.wait_for(abort.reached.wait(), 3)
        await move
        for gate in (abort, commit, watch):
            gate.open()
    assert scene.outcome is not None
    assert scene.outcome.verdict is (Verdict.STAYED if wins == "the abort" else Verdict.MOVED)
    await scene.check()


@pytest.mark.parametrize("how", [Etcds.LOST, Etcds.NEVER, Etcds.LATE])
async def test_the_key_of_one_that_ended_goes_whatever_etcd_leaves_unsaid(scene: Scene, how: Etcds) -> None:
    await moved(scene, B, A)
    scene.rig.etcd(B, "delete", how)
    await scene.check()


# -- leases that end


def lease_ends(node: str) -> Fault:
    async def end(scene: Scene) -> None:
        scene.may_lose = scene.is_nameless = True
        scene.expected_errors = ("lease", "not registered")
        parts = scene.town.nodes[node]
        scene.former[node] = parts.links.stats().epoch
        assert await parts.etcd.revoke(parts.keeper.lease.id)

        def seen() -> bool:
            return not any(scene.links(other).is_open(node) for other in NODES if other != node)

        await eventually(seen, "the others see it")

    return end


LEASES = [stop for stop in STOPS if stop not in ("reserved", "marking", "own words", "relaying")][:-3]


@pytest.mark.parametrize(("stop", "fault", "route"), spread(LEASES, ["source"]))
async def test_the_lease_of_the_source_ends(scene: Scene, stop: str, fault: str, route: str) -> None:
    """One that is undecided lives on where it was born, unless its state was under way; a guest never does."""
    await scene.take(route)
    source, target, _ = scene.route
    scene.dies = stop in UNDECIDED and (route != "away" or stop in ("sent", "committing"))
    await stopped_at(scene, stop, lease_ends(source))
    await scene.registered(source)
    if not scene.dies:
        await scene.check_running(source if stop in UNDECIDED else target)
    await scene.check()


@pytest.mark.parametrize(("stop", "fault", "route"), spread(LEASES, ["target"]))
async def test_the_lease_of_the_target_ends(scene: Scene, stop: str, fault: str, route: str) -> None:
    await scene.take(route)
    source, target, _ = scene.route
    scene.dies = stop not in UNDECIDED
    await stopped_at(scene, stop, lease_ends(target))
    await scene.registered(target)
    if not scene.dies:
        await scene.check_running(source)
    await scene.check()


# -- what the target takes


@pytest.mark.parametrize("stop", ["asked", "sent", "committing"])
async def test_a_target_that_is_cordoned_takes_what_it_has_promised_to(scene: Scene, stop: str) -> None:
    parts = scene.town.nodes[B]

    async def cordon(scene: Scene) -> None:
        await parts.cordon()

    try:
        await stopped_at(scene, stop, cordon)
        await scene.check_running(A if stop == "asked" else B)
    finally:
        await parts.uncordon()
    await scene.check()


@pytest.mark.parametrize("stop", ["asked", "leaving", "sent", "committing", "committed"])
async def test_the_host_goes_from_the_target(scene: Scene, stop: str) -> None:
    hosts = scene.town.nodes[B].hosts
    entry = hosts._running[HOST].entry
    assert entry is not None
    scene.senders = [sender for sender in scene.senders if not sender.startswith("{" + B)]
    del scene.witnesses[B]
    scene.dies = stop != "asked"
    scene.expected_errors = ("a process came for a host that is gone",)

    async def remove(scene: Scene) -> None:
        await hosts.remove(HOST)

    try:
        await stopped_at(scene, stop, remove)
        if not scene.dies:
            await scene.check_running(A)
        else:
            await scene.check()
    finally:
        await hosts.put(entry)
    if not scene.dies:
        await scene.check()


@pytest.mark.parametrize("stop", ["asked", "sent", "committing"])
async def test_its_entry_goes(scene: Scene, stop: str) -> None:
    registry = scene.town.nodes[B].registry
    entry = registry.state.get("app:mover")
    assert entry is not None

    async def commit(operation: Operation) -> None:
        committed = await registry.commit([operation], author="test")
        for parts in scene.town.nodes.values():
            await parts.registry.reached(committed.version)

    scene.may_lose = True
    try:
        await stopped_at(scene, stop, lambda scene: commit(Delete("app:mover")))
        if stop == "asked":
            await scene.check_running(A)
        scene.dies = not await scene.copies()
        await scene.check()
    finally:
        await commit(Create(entry))


async def test_a_target_that_is_full_refuses(scene: Scene) -> None:
    hosts = scene.town.nodes[B].hosts
    entry = hosts._running[HOST].entry
    assert entry is not None
    try:
        await hosts.put(replace(entry, data={**entry.data, "host": {"max_processes": 2}}))
        outcome = await scene.move()
        assert outcome.verdict is Verdict.STAYED
        assert "limit" in outcome.reason
    finally:
        await hosts.put(entry)
    await scene.check()


async def test_a_place_nobody_came_to_is_free_for_the_next(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "RESERVED", 30.0)
    gate = scene.rig.link(B, A, Kind.MOVE_RESERVED)
    scene.within = 0.2
    assert (await scene.move()).verdict is Verdict.STAYED
    gate.open()
    scene.within = 3.0
    await moved(scene, C, A)
    await moved(scene, B, C)
    await scene.check()


async def test_one_that_ends_while_it_is_looked_for_leaves_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = scene.town.nodes[A].hosts
    look = hosts.look

    async def looked(pid: str, slot: int) -> dict[str, Any] | None:
        shown = await look(pid, slot)
        scene.terminate(scene.pid)
        while await scene.copies():
            await asyncio.sleep(0.01)
        return shown

    monkeypatch.setattr(hosts, "look", looked)
    scene.dies = True
    assert not (await scene.move()).moved
    await scene.check()


# -- order and what is said meanwhile


@pytest.mark.parametrize("stop", ["packed", "sent", "committing", "committed", "seen late", "forwarding", "flushed"])
async def test_whoever_asks_meanwhile_is_answered_and_who_begins_to_watch_hears_of_the_end(
    scene: Scene, stop: str
) -> None:
    town = scene.town
    late = {node: await town.spawn(node, "app:witness") for node in NODES}
    answers: list[asyncio.Task[Any]] = []

    async def ask(scene: Scene) -> None:
        for node in NODES:
            answers.append(asyncio.ensure_future(town.call(node, scene.pid, "tally")))
            answers.append(asyncio.ensure_future(town.call(node, late[node], "monitor", scene.pid)))
        await asyncio.sleep(0.05)

    await stopped_at(scene, stop, ask)
    for answer in await asyncio.gather(*answers):
        assert answer.get("ok", True), answer
    for node, one in late.items():
        assert await town.call(node, one, "heard") == []
    await scene.check()
    for node, one in late.items():
        assert [exit["from"] for exit in await town.call(node, one, "heard")] == [scene.pid]


async def test_a_chain_of_moves_home_and_away_keeps_the_order(scene: Scene) -> None:
    for source, to in ((A, B), (B, A), (A, C), (C, B), (B, C), (C, A)):
        await moved(scene, to, source)
    await scene.check()


async def test_what_it_sent_is_not_overtaken_when_its_peer_moves_too(scene: Scene) -> None:
    """What it told its peer waits on A for the answer to a flush, and then is slow; meanwhile it goes to B itself."""
    town = scene.town
    assert (await town.nodes[C].moving.move(scene.peer, B)).moved

    async def home() -> bool:
        return (await town.nodes[B].moving.move(scene.peer, C)).moved

    flushed = scene.rig.link(B, A, Kind.FLUSHED)
    flushed.alone = True
    await eventually(home, "its peer comes home")
    await asyncio.wait_for(flushed.reached.wait(), 3)
    words = scene.rig.link(A, C, Kind.FORWARD)
    async with asyncio.TaskGroup() as group:
        move = group.create_task(scene.move())
        await asyncio.sleep(0.05)
        flushed.open()
        await asyncio.wait_for(words.reached.wait(), 3)
        await asyncio.sleep(0.1)
        words.open()
        assert (await move).moved
    await scene.check()
