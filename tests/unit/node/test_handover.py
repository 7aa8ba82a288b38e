"""Replicas that are given to another node: nobody is left without an owner, and no two under one token."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.claims import ClaimState
from cluster.errors import Unavailable
from cluster.heirs import Inherited
from cluster.keys import Keys
from cluster.members import NodeState
from cluster.names import Registered, Scope
from node.inheriting import QUIET, is_ready
from tests.sim.memory_etcd import run_virtually
from tests.unit.node.services import NODE, Services, member, service, turns

KEYS = Keys("c")
KEY = ("app:s", 0)
FORMER = "{n2@app:processes|9-1}"
STATE = ClaimState("n2", FORMER, "2026-01-01T00:00:00.000+00:00", 9)
START_FIRST = {"handover": "start-first", "start_timeout": "4s"}


def has(world: Services, *names: str, pid: str = FORMER) -> None:
    for name in names:
        world.names.held[name] = Registered(pid, 50, Scope.CONSISTENT, 9)


async def wished(world: Services, **lifecycle: Any) -> bytes:
    """n2 names this node the heir, and the process is started here."""
    world.claims.show(*KEY, "n2", 9)
    world.claims.held[KEY] = replace(world.claims.held[KEY], state=STATE)
    await world.have(service(lifecycle={**START_FIRST, **lifecycle}))
    await world.heirs.name(*KEY, NODE, 9)
    return await world.started()


def asks(world: Services, pid: bytes, name: str) -> asyncio.Future[Inherited]:
    """The process registers a name the former one has."""
    return asyncio.ensure_future(world.supervisor.inheriting.inherit(pid.decode(), name, Scope.CONSISTENT, FORMER))


async def ended(world: Services) -> None:
    """The former owner has ended, and with it its names and its wish."""
    world.names.held = {name: held for name, held in world.names.held.items() if held.pid != FORMER}
    world.heirs.named.clear()
    world.heirs.tell()
    await asyncio.sleep(0.1)


class TestAnHeir:
    def test_starts_it_under_a_token_of_its_own_and_takes_claim_and_names_at_once(self) -> None:
        async def scenario() -> None:
            async with Services("n2") as world:
                has(world, "keeper")
                pid = await wished(world)
                begun = world.heirs.begun[KEY]
                assert world.supervisor.fence_of(pid) == (KEYS.heir_begun(*KEY), begun)
                assert pid in world.supervisor.guarded
                asked = asks(world, pid, "keeper")
                await asyncio.sleep(0.1)
                assert await asked is Inherited.MINE
                ((heir, names),) = world.heirs.taken
                assert [(one.key, one.revision) for one in names] == [(KEYS.name("keeper"), 50)]
                assert world.names.held["keeper"].pid == pid.decode()
                claim = world.claims.held[KEY]
                assert claim.node == NODE
                assert world.supervisor.fence_of(pid) == (KEYS.service(*KEY), claim.token)
                assert claim.token > begun > heir.token
                assert world.claims.states[-1].pid == pid.decode()
                await ended(world)
                assert world.heirs.begun == {}

        run_virtually(scenario())

    def test_takes_nothing_before_its_process_has_asked_for_the_names(self) -> None:
        async def scenario() -> None:
            async with Services("n2") as world:
                has(world, "keeper", "keeper.two")
                pid = await wished(world)
                await asyncio.sleep(2)
                assert world.heirs.taken == []
                first = asks(world, pid, "keeper")
                await asyncio.sleep(QUIET / 2)
                assert world.heirs.taken == []
                await asyncio.sleep(QUIET)
                assert await first is Inherited.MINE, "it asks for no more"
                second = asks(world, pid, "keeper.two")
                await asyncio.sleep(1)
                assert not second.done(), "the former one has it as long as it lives"
                await ended(world)
                assert await second is Inherited.AGAIN

        run_virtually(scenario())

    def test_takes_the_claim_alone_when_its_process_asks_for_no_name_in_its_time_to_start(self) -> None:
        async def scenario() -> None:
            async with Services("n2") as world:
                has(world, "keeper")
                await wished(world)
                await asyncio.sleep(3)
                assert world.heirs.taken == []
                await asyncio.sleep(2)
                assert [names for _, names in world.heirs.taken] == [[]]
                await ended(world)

        run_virtually(scenario())

    def test_takes_it_at_once_when_there_are_no_names(self) -> None:
        async def scenario() -> None:
            async with Services("n2") as world:
                await wished(world)
                await asyncio.sleep(0.1)
                assert world.claims.held[KEY].node == NODE
                await ended(world)

        run_virtually(scenario())

    @pytest.mark.parametrize("what", ["taken back", "fails", "removed", "in doubt", "another owner"])
    def test_gives_up(self, what: str) -> None:
        async def scenario() -> None:
            async with Services("n2") as world:
                has(world, "keeper")
                pid = await wished(world)
                match what:
                    case "taken back":
                        world.heirs.named.clear()
                        world.heirs.tell()
                    case "fails":
                        world.host.exit(pid, "boom")
                    case "removed":
                        await world.have()
                    case "in doubt":
                        world.supervisor.in_doubt()
                    case "another owner":
                        world.claims.show(*KEY, "n3", 11)
                asked = asks(world, pid, "keeper")
                await asyncio.sleep(0.2)
                assert world.host.alive == []
                assert world.heirs.taken == []
                assert world.heirs.begun == {}, "the owner sees that it was given up"
                assert world.names.held["keeper"].pid == FORMER
                assert await asked is Inherited.NO
                assert world.claims.released == []

        run_virtually(scenario())

    def test_goes_on_when_the_owner_is_gone(self) -> None:
        async def scenario() -> None:
            async with Services("n2") as world:
                has(world, "keeper")
                pid = await wished(world)
                asked = asks(world, pid, "keeper")
                world.heirs.named.clear()
                world.names.held.clear()
                world.claims.show(*KEY, None)
                await asyncio.sleep(0.2)
                claim = world.claims.held[KEY]
                assert claim.node == NODE
                assert world.supervisor.fence_of(pid) == (KEYS.service(*KEY), claim.token)
                assert world.host.alive == [pid]
                assert await asked is Inherited.AGAIN

        run_virtually(scenario())

    def test_refuses_what_it_may_not_run_and_does_not_begin(self) -> None:
        async def scenario() -> None:
            async with Services("n2") as world:
                world.claims.show(*KEY, "n2", 9)
                world.claims.held[KEY] = replace(world.claims.held[KEY], state=STATE)
                await world.have(service(lifecycle=START_FIRST, labels={"disk": "ssd"}))
                await world.heirs.name(*KEY, NODE, 9)
                await turns()
                assert world.host.asked == []
                assert world.heirs.begun == {}

        run_virtually(scenario())

    async def test_a_name_of_anybody_else_is_not_inherited(self) -> None:
        async with Services("n2") as world:
            await world.have(service())
            pid = await world.started()
            inherit = world.supervisor.inheriting.inherit
            assert await inherit(pid.decode(), "keeper", Scope.CONSISTENT, FORMER) is Inherited.NO
            assert await inherit("{n1@app:x|1-1}", "keeper", Scope.CONSISTENT, FORMER) is Inherited.NO


async def giving(world: Services, within: float = 30.0, **lifecycle: Any) -> tuple[bytes, asyncio.Future[str]]:
    """The service runs here, and is being given away."""
    await world.have(service(lifecycle={**START_FIRST, **lifecycle}))
    pid = await world.started()
    world.members.show(replace(member(NODE, {}), state=NodeState.DRAINING))
    task = asyncio.ensure_future(world.supervisor.hand_over(*KEY, within))
    await turns()
    return pid, task


class TestAnOwner:
    def test_stops_its_process_when_the_heir_has_it_and_all_that_was_on_its_way_has_come(self) -> None:
        async def scenario() -> None:
            async with Services("n2") as world:
                pid, given_away = await giving(world)
                heir = world.heirs.named[KEY]
                assert heir.node == "n2"
                assert world.supervisor.fence_of(pid) == (KEYS.heir(*KEY), heir.token)
                assert world.supervisor.yields(pid)
                assert not world.supervisor.is_handed_on(pid, 900)
                world.heirs.begun[KEY] = 1
                await asyncio.sleep(1)
                assert world.host.cancelled == []
                world.all_arrived.clear()
                world.claims.move(*KEY, "n2", 900)
                assert world.supervisor.is_handed_on(pid, 900), "what comes by its former names is still for it"
                assert not world.supervisor.is_handed_on(pid, 899)
                await asyncio.sleep(1)
                assert world.straggling == [900]
                assert world.host.cancelled == []
                world.all_arrived.set()
                await asyncio.sleep(0.1)
                assert world.host.cancelled == [(pid, b"node n2 runs it now")]
                assert await given_away == ""
                await asyncio.sleep(0.1)
                assert world.heirs.named == {}
                assert world.claims.released == []
                assert world.host.terminated == []

        run_virtually(scenario())

    @pytest.mark.parametrize("what", ["never begins", "gives up", "is too slow"])
    def test_takes_its_wish_back_when_the_heir_does_not_take_it_and_stops_first(self, what: str) -> None:
        async def scenario() -> None:
            async with Services("n2") as world:
                pid, given_away = await giving(world)
                token = world.claims.held[KEY].token
                if what != "never begins":
                    world.heirs.begun[KEY] = 1
                await asyncio.sleep(1)
                if what == "gives up":
                    world.heirs.begun.clear()
                assert await given_away == ""
                assert world.heirs.named == {}
                assert world.claims.released == [token]
                assert world.host.cancelled == [(pid, b"it is handed over")]

        run_virtually(scenario())

    def test_does_not_take_back_what_the_heir_took_in_the_last_moment(self) -> None:
        async def scenario() -> None:
            async with Services("n2") as world:
                pid, given_away = await giving(world)
                await asyncio.sleep(3.1)
                assert world.supervisor.fence_of(pid) == (KEYS.service(*KEY), world.claims.held[KEY].token)
                world.claims.move(*KEY, "n2", 900)
                assert await given_away == ""
                assert world.claims.released == []
                assert world.host.cancelled == [(pid, b"node n2 runs it now")]
                assert world.host.terminated == []

        run_virtually(scenario())

    def test_stops_first_when_it_can_not_wish(self) -> None:
        async def scenario() -> None:
            async with Services("n2") as world:
                world.heirs.error = Unavailable("etcd is away")
                _, given_away = await giving(world)
                assert await given_away == ""
                assert len(world.claims.released) == 1

        run_virtually(scenario())

    def test_stops_first_when_it_is_told_to(self) -> None:
        async def scenario() -> None:
            async with Services("n2") as world:
                _, given_away = await giving(world, handover="stop-first")
                assert await given_away == ""
                assert world.heirs.named == {}
                assert len(world.claims.released) == 1

        run_virtually(scenario())

    def test_says_what_has_not_stopped_in_time(self) -> None:
        async def scenario() -> None:
            async with Services("n2") as world:
                world.host.obeys = False
                _, given_away = await giving(world, within=1.0, handover="stop-first")
                assert "app:s has not stopped within 1.0 s" in await given_away

        run_virtually(scenario())

    def test_a_claim_is_given_back_when_the_names_are_free(self) -> None:
        """Whoever starts next asks for them at once."""

        async def scenario() -> None:
            async with Services("n2") as world:
                await world.have(service())
                pid = await world.started()
                has(world, "keeper", pid=pid.decode())
                world.members.show(replace(member(NODE, {}), state=NodeState.DRAINING))
                given_away = asyncio.ensure_future(world.supervisor.hand_over(*KEY, 10.0))
                await asyncio.sleep(0.5)
                assert world.host.alive == []
                assert world.claims.released == []
                world.names.held.clear()
                await asyncio.sleep(0.1)
                assert len(world.claims.released) == 1
                await given_away

        run_virtually(scenario())

    def test_a_lease_in_doubt_ends_the_process_and_the_hand_over(self) -> None:
        async def scenario() -> None:
            async with Services("n2") as world:
                pid, given_away = await giving(world)
                world.supervisor.in_doubt()
                assert await given_away == ""
                assert world.host.cancelled == [(pid, b"the node may lose its lease")]
                await asyncio.sleep(1)
                assert world.heirs.named == {}

        run_virtually(scenario())


NAMES = st.sampled_from(["a", "b", "c"])


@given(
    held=st.sets(NAMES),
    asked=st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.floats(0, 10)),
    later=st.floats(0, 20),
    patience=st.floats(1, 10),
)
def test_a_process_becomes_ready_and_stays_so(
    held: set[str], asked: dict[str, float], later: float, patience: float
) -> None:
    now = max(asked.values(), default=0.0)
    ready = is_ready(held, asked, 0.0, now, patience)
    if held <= asked.keys():
        assert ready
    if ready:
        assert is_ready(held, asked, 0.0, now + later, patience)
    elif held & asked.keys():
        assert is_ready(held, asked, 0.0, now + QUIET + 0.001, patience)
    else:
        assert not is_ready(held, asked, 0.0, min(now, patience * 0.99), patience)
    assert is_ready(held, asked, 0.0, now + max(QUIET, patience) + 0.001, patience)
