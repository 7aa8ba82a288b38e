"""A process that moves takes its claim along: never two under it, never none that is known of."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from cluster.claims import ClaimState
from cluster.keys import Keys
from cluster.members import NodeState
from cluster.migration.belongings import CannotMove
from cluster.migration.items import Holding
from tests.sim.memory_etcd import run_virtually
from tests.unit.node.services import LEASE, NODE, Services, member, service, turns

KEYS = Keys("c")
KEY, STATE = KEYS.service("app:s", 0), KEYS.service_state("app:s", 0)
SINCE = "2026-01-01T00:00:00.000+00:00"
GUEST = "{n2@app:processes|9-1}"
COMMITTED = 500


def holdings() -> list[Holding]:
    """Those of GUEST, as its node packed them."""
    state = ClaimState("n2", GUEST, SINCE, 9)
    return [Holding(KEY, b"n2", 90), Holding(STATE, state.to_json(), 91)]


async def packed(world: Services) -> str:
    """The process of app:s, on its way."""
    pid = (await world.started()).decode()
    world.supervisor.handing.check(pid)
    world.supervisor.handing.pack(pid)
    return pid


async def elsewhere(world: Services, **lifecycle: Any) -> None:
    """The service runs on n2."""
    world.claims.show("app:s", 0, "n2", 99)
    await world.have(service(lifecycle=lifecycle))


async def arrived(world: Services, revision: int = COMMITTED) -> None:
    """GUEST moved here; the watch does not show it yet."""
    handing = world.supervisor.handing
    came = handing.adapt(GUEST, holdings())
    assert handing.refusal(GUEST, [held.key for held in came]) == ""
    handing.expect(GUEST, came)
    world.host.came.add(GUEST.encode())
    handing.arrived(GUEST, came, revision, LEASE)
    await turns()


def shown(world: Services) -> None:
    """The watch shows that it moved."""
    world.claims.move("app:s", 0, NODE, COMMITTED, ClaimState(NODE, GUEST, SINCE, 1))


async def test_the_keys_are_packed_as_they_stand() -> None:
    async with Services() as world:
        await world.have(service())
        pid = (await world.started()).decode()
        claim, state = world.supervisor.handing.pack(pid)
        world.supervisor.handing.stays(pid)
        assert (claim.key, claim.value, claim.revision) == (KEY, b"n1", world.claims.held["app:s", 0].token)
        assert (state.key, ClaimState.from_json(state.value).pid) == (STATE, pid)


async def test_a_process_that_belongs_to_no_service_has_no_keys_here_and_is_not_touched() -> None:
    async with Services() as world:
        await world.have(service())
        await world.started()
        handing = world.supervisor.handing
        handing.check("{n1@app:processes|1-64}")
        assert handing.pack("{n1@app:processes|1-64}") == ()
        handing.left("{n1@app:processes|1-64}")
        assert world.host.left == []


async def test_while_it_is_on_its_way_nothing_is_done_to_it_and_nothing_owned_lives() -> None:
    async with Services() as world:
        await world.have(service())
        pid = await packed(world)
        await world.have()
        world.supervisor.in_doubt()
        world.supervisor.kill_owned()
        await turns()
        assert world.host.cancelled == world.host.terminated == []
        assert not world.supervisor.owns(), "the node may take a new lease: what is frozen does nothing"
        world.supervisor.handing.left(pid)


async def test_one_that_stays_is_looked_at_again() -> None:
    async with Services() as world:
        await world.have(service())
        pid = await packed(world)
        await world.have()
        await turns()
        world.supervisor.handing.stays(pid)
        assert world.host.cancelled == [], "the VM has not been told yet that it stays"
        await turns()
        assert world.host.cancelled == [(pid.encode(), b"service removed")]


async def test_one_that_stays_with_everything_as_it_was_goes_on() -> None:
    async with Services() as world:
        await world.have(service())
        pid = await packed(world)
        world.supervisor.handing.stays(pid)
        await turns()
        assert world.host.cancelled == []
        assert world.host.alive == [pid.encode()]
        assert world.supervisor.owns()


@pytest.mark.parametrize("over", [False, True])
async def test_one_that_stays_while_the_lease_is_in_doubt_ends_like_the_others(over: bool) -> None:
    async with Services() as world:
        await world.have(service())
        pid = await packed(world)
        world.supervisor.in_doubt()
        world.lease.may_run = not over
        world.supervisor.handing.stays(pid)
        await turns()
        assert world.host.alive == []
        assert bool(world.host.terminated) is over
        assert world.claims.released == []


async def test_one_that_left_is_neither_stopped_nor_released_and_nothing_starts_in_its_place() -> None:
    async with Services("n2") as world:
        await world.have(service())
        pid = await packed(world)
        world.supervisor.handing.left(pid)
        await turns()  # the view still shows the claim as this node's
        assert world.host.left == [pid.encode()]
        world.claims.move("app:s", 0, "n2", COMMITTED)
        await turns()
        assert world.host.asked == world.host.cancelled == world.host.terminated == []
        assert world.claims.released == []
        assert [row["node"] for row in world.supervisor.stats()] == ["n2"]
        assert world.announced[-1] == ("service.move", "app:s")


async def test_a_stop_of_the_node_waits_for_one_that_is_on_its_way() -> None:
    async with Services("n2") as world:
        await world.have(service())
        pid = await packed(world)
        stopping = asyncio.ensure_future(world.supervisor.stop("node stopping"))
        await turns()
        assert not stopping.done()
        assert world.host.cancelled == []
        world.supervisor.handing.left(pid)
        await stopping
        assert world.host.cancelled == []
        assert world.claims.released == []


async def test_one_that_came_is_kept_as_if_it_had_been_started_here() -> None:
    async with Services("n2") as world:
        await elsewhere(world)
        await arrived(world)
        assert world.host.alive == [GUEST.encode()], "its end is heard here"
        assert world.supervisor.fence_of(GUEST.encode()) == (KEY, COMMITTED)
        assert GUEST.encode() in world.supervisor.guarded
        assert world.supervisor.may_act(GUEST.encode())
        (row,) = world.supervisor.stats()
        assert (row["node"], row["state"], row["pid"], row["claim"]) == (NODE, "running", GUEST, COMMITTED)
        assert row["since"] == 1767225600.0
        assert world.supervisor.handing.keeper_of(GUEST).startswith(b"{n1@node:supervisor|")
        shown(world)
        await turns()
        assert world.host.terminated == world.host.cancelled == world.host.asked == []
        assert world.claims.states == [], "the commit has written it"


async def test_one_that_came_and_fails_is_started_again_under_its_claim() -> None:
    async with Services("n2") as world:
        await elsewhere(world, restart={"initial_delay": "0s"})
        await arrived(world)
        shown(world)
        world.host.exit(GUEST.encode(), "boom")
        pid = await world.started()
        assert world.supervisor.fence_of(pid) == (KEY, COMMITTED)
        assert world.claims.states[-1].pid == pid.decode()


async def test_one_that_ended_before_it_was_watched_is_started_again() -> None:
    async with Services("n2") as world:
        await elsewhere(world, restart={"initial_delay": "0s"})
        handing = world.supervisor.handing
        handing.expect(GUEST, holdings())
        handing.arrived(GUEST, handing.adapt(GUEST, holdings()), COMMITTED, LEASE)
        pid = await world.started()
        assert world.host.alive == [pid]


async def test_a_claim_that_went_after_it_came_ends_it() -> None:
    async with Services("n2") as world:
        await elsewhere(world)
        await arrived(world)
        shown(world)
        world.claims.show("app:s", 0, "n2")
        await turns()
        assert world.host.terminated == [GUEST.encode()]


async def test_a_claim_of_one_that_is_still_expected_starts_nothing() -> None:
    async with Services("n2") as world:
        await elsewhere(world)
        world.supervisor.handing.expect(GUEST, holdings())
        world.claims.show("app:s", 0, NODE)
        await world.have()  # nor is it given back, when it is found to be unwanted
        assert world.host.asked == []
        assert world.claims.released == []
        world.supervisor.handing.lost(GUEST, holdings())
        await turns()
        assert len(world.claims.released) == 1


async def test_when_it_does_not_come_all_is_as_before() -> None:
    async with Services("n2") as world:
        await elsewhere(world)
        handing = world.supervisor.handing
        handing.expect(GUEST, holdings())
        handing.lost(GUEST, holdings())
        world.claims.show("app:s", 0, NODE)
        await turns()
        assert len(world.host.asked) > 0


async def test_one_whose_service_was_removed_on_its_way_ends_and_may_do_nothing() -> None:
    async with Services("n2") as world:
        await elsewhere(world)
        handing = world.supervisor.handing
        handing.expect(GUEST, holdings())
        await world.have()
        handing.arrived(GUEST, handing.adapt(GUEST, holdings()), COMMITTED, LEASE)
        assert world.host.terminated == [], "it is given to the VM in this turn"
        assert not world.supervisor.may_act(GUEST.encode())
        await turns()
        assert world.host.terminated == [GUEST.encode()]


async def test_the_values_are_those_of_the_node_it_comes_to() -> None:
    async with Services("n2") as world:
        await world.have()
        other = Holding(KEYS.name("app.counter"), b"whatever", 7)
        claim, state, name = world.supervisor.handing.adapt(GUEST, [*holdings(), other])
        assert (claim.key, claim.value, claim.revision) == (KEY, b"n1", 90)
        assert ClaimState.from_json(state.value) == ClaimState(NODE, GUEST, SINCE, 1)
        assert name == other


@pytest.mark.parametrize(
    ("placement", "reason"),
    [({"mode": "every_node"}, "runs on every node"), ({}, "being started or stopped")],
)
async def test_what_can_not_leave_says_why(placement: dict[str, Any], reason: str) -> None:
    async with Services() as world:
        await world.have(service(**placement))
        pid = await world.started()
        world.host.obeys = False
        if not placement:
            await world.have()
        with pytest.raises(CannotMove, match=reason):
            world.supervisor.handing.check(pid.decode())


async def test_one_whose_claim_is_another_one_can_not_leave() -> None:
    async with Services("n2") as world:
        await world.have(service(on_lease_loss="keep"))
        pid = await world.started()
        world.claims.show("app:s", 0, "n2", 99)
        with pytest.raises(CannotMove, match="in doubt"):
            world.supervisor.handing.check(pid.decode())


async def test_it_can_not_be_packed_before_etcd_has_said_where_it_runs() -> None:
    async with Services() as world:
        await world.have(service())
        pid = await world.started()
        world.claims.held["app:s", 0] = replace(world.claims.held["app:s", 0], state=None)
        with pytest.raises(CannotMove, match="being written"):
            world.supervisor.handing.pack(pid.decode())
        await world.have()
        await turns()
        assert world.host.cancelled, "it counts as not asked"


def test_a_node_says_why_it_can_not_take_it() -> None:
    async def scenario() -> None:
        async with Services("n2") as world:
            handing = world.supervisor.handing
            keys = [KEY, STATE, KEYS.name("app.counter")]
            assert "knows no replica 0 of service app:s" in handing.refusal(GUEST, keys)
            await world.have(service(labels={"disk": "ssd"}))
            world.claims.show("app:s", 0, "n2", 99)
            assert "lacks labels" in handing.refusal(GUEST, keys)
            await world.have(service())
            world.members.show(replace_state(NodeState.CORDONED))
            assert "not ready" in handing.refusal(GUEST, keys)
            world.members.show(replace_state(NodeState.READY))
            world.avoids.show("app:s", NODE, 10.0)
            assert "avoids" in handing.refusal(GUEST, keys)
            world.avoids.show("app:s", NODE, None)
            world.quarantine.show(app_s=[])
            assert "quarantined" in handing.refusal(GUEST, keys)
            world.quarantine.show()
            assert handing.refusal(GUEST, keys) == ""
            assert handing.refusal(GUEST, [KEYS.name("app.counter")]) == ""

    run_virtually(scenario())


def replace_state(state: NodeState) -> Any:
    return replace(member(NODE, {}), state=state)
