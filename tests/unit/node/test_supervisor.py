"""The supervisor: a replica runs under a claim that holds, and a claim is given back after its process."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from cluster.registry import Entry
from node.wanted import StillStopping
from tests.sim.memory_etcd import run_virtually
from tests.unit.node.services import LEASE, NODE, UNAVAILABLE, Services, service, turns

KEY = ("app:s", 0)


def virtually(scenario: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test on a clock that does not take its time."""

    def test() -> None:
        run_virtually(scenario())

    test.__name__ = scenario.__name__
    return test


async def test_a_replica_starts_once_its_claim_is_in_view_and_says_where_it_runs() -> None:
    async with Services() as node:
        await node.have(service())
        pid = await node.started()
        assert node.claims.held[KEY].node == NODE
        assert [state.pid for state in node.claims.states] == [pid.decode()]
        assert node.supervisor.fence_of(pid) == ("/wippy/c/services/app:s/0", node.claims.held[KEY].token)


async def test_a_claim_of_a_former_lease_starts_nothing() -> None:
    async with Services() as node:
        node.claims.show(*KEY, NODE, lease=LEASE - 1)
        await node.have(service())
        assert node.host.asked == []


@virtually
async def test_nothing_is_claimed_or_started_while_the_lease_is_too_short() -> None:
    async with Services() as node:
        node.lease.may_start = False
        await node.have(service(), service("app:everywhere", mode="every_node"))
        await asyncio.sleep(1)
        assert node.claims.held == {}
        assert len(node.host.asked) == 1, "what needs no claim starts"
        node.lease.may_start = True
        await asyncio.sleep(0.3)
        assert len(node.host.asked) == 2


async def test_a_replica_whose_claim_is_gone_is_killed_at_once() -> None:
    async with Services("n2") as node:
        node.claims.show(*KEY, NODE)
        await node.have(service())
        pid = await node.started()
        node.claims.show(*KEY, "n2")
        await turns()
        assert node.host.terminated == [pid]
        assert node.claims.released == []


async def test_a_claim_that_went_and_came_back_is_another_claim() -> None:
    async with Services() as node:
        await node.have(service())
        first = await node.started()
        node.claims.show(*KEY, NODE)  # both changes before the supervisor looks
        await turns()
        assert first in node.host.terminated
        second = await node.started()
        fence = node.supervisor.fence_of(second)
        assert fence is not None
        assert fence[1] == node.claims.held[KEY].token


async def test_a_removed_service_is_stopped_and_then_its_claim_released() -> None:
    async with Services() as node:
        await node.have(service())
        pid = await node.started()
        token = node.claims.held[KEY].token
        node.host.obeys = False
        await node.have()
        assert node.host.cancelled == [(pid, b"service removed")]
        assert node.claims.released == []
        node.host.exit(pid)
        await turns()
        assert node.claims.released == [token]


async def test_a_changed_service_starts_anew_in_place_under_its_claim() -> None:
    async with Services() as node:
        await node.have(service())
        first = await node.started()
        token = node.claims.held[KEY].token
        await node.have(service(input=["other"]))
        assert node.host.alive == []
        second = await node.started()
        assert node.claims.released == []
        assert node.claims.held[KEY].token == token
        assert second != first


@pytest.mark.parametrize(
    "same",
    [
        service(),
        service(comment="said better"),
        service(lifecycle={"stop_timeout": "3s", "restart": {"max_attempts": 2}}),
        service(replicas=2),
        service(on_lease_loss="keep"),
    ],
    ids=["the same", "metadata", "lifecycle", "replicas", "lease loss"],
)
async def test_what_a_running_replica_can_live_with_does_not_touch_it(same: Entry) -> None:
    async with Services("n2") as node:
        node.claims.show(*KEY, NODE)
        await node.have(service())
        pid = await node.started()
        await node.have(same)
        assert node.host.alive == [pid]
        assert (node.host.asked, node.host.cancelled, node.claims.released) == ([], [], [])


@virtually
async def test_a_changed_lifecycle_counts_for_the_process_that_runs() -> None:
    async with Services() as node:
        await node.have(service(lifecycle={"stop_timeout": "60s"}))
        pid = await node.started()
        await node.have(service(lifecycle={"stop_timeout": "1s"}, on_lease_loss="keep"))
        assert node.lease.may_run
        node.lease.may_run = False
        assert node.supervisor.may_act(pid), "its fence binds no more"
        node.lease.may_run = True
        node.host.obeys = False
        await node.have()
        await asyncio.sleep(2)
        assert node.host.terminated == [pid]
        node.host.exit(pid)


@virtually
async def test_a_change_is_through_when_the_former_process_has_ended() -> None:
    async with Services() as node:
        await node.have(service())
        pid = await node.started()
        node.host.obeys = False
        change = asyncio.ensure_future(node.supervisor.put(service(host="app:others")))
        await asyncio.sleep(5)
        assert not change.done(), "the former host must not go before its process"
        node.host.exit(pid)
        await change
        assert node.host.asked[0][1] == b"{n1@app:others|}"
        removal = asyncio.ensure_future(node.supervisor.remove("app:s"))
        await turns()
        assert not removal.done(), "it is still being started"
        node.host.refuse("too late")
        await removal


@virtually
async def test_a_former_process_that_does_not_end_is_named() -> None:
    async with Services() as node:
        await node.have(service(lifecycle={"stop_timeout": "5m"}))
        pid = await node.started()
        node.host.obeys = False
        with pytest.raises(StillStopping, match=re.escape(pid.decode())):
            await node.supervisor.remove("app:s")
        node.host.exit(pid)
        await node.supervisor.remove("app:s")


@virtually
async def test_a_service_that_was_given_up_is_tried_again_when_it_is_changed() -> None:
    async with Services() as node:
        await node.have(service(lifecycle={"restart": {"max_attempts": 1}}))
        node.host.exit(await node.started(), "crash")
        await asyncio.sleep(5)
        assert node.host.asked == []
        await node.have(service(lifecycle={"restart": {"max_attempts": 2}}))
        assert len(node.host.asked) == 1


@virtually
async def test_what_failed_with_former_code_is_started_at_once_with_the_new() -> None:
    slow = {"initial_delay": "60s"}
    async with Services() as node:
        await node.have(
            service("app:waits", input=["waits"], lifecycle={"restart": slow}),
            service("app:given_up", input=["given up"], lifecycle={"restart": {"max_attempts": 1}}),
            service("app:returned", input=["returned"]),
            service("app:runs", input=["runs"]),
        )
        for _ in range(4):
            (which,) = node.host.asked[0][5]
            pid = await node.started()
            if which != b"runs":
                node.host.exit(pid, None if which == b"returned" else "broken")
        runs = list(node.host.alive)
        await asyncio.sleep(1)
        node.supervisor.code_changed(lambda process: False)
        await turns()
        assert node.host.asked == [], "other code"
        node.supervisor.code_changed(lambda process: process == "app:p")
        await turns()
        assert sorted(asked[5] for asked in node.host.asked) == [[b"given up"], [b"waits"]]
        assert node.host.alive == runs
        assert node.claims.released == []


async def test_nothing_starts_under_a_released_claim_the_watch_still_shows() -> None:
    async with Services() as node:
        node.claims.stale_view = True
        await node.have(service())
        await node.started()
        await node.have()
        await node.have(service())
        assert len(node.claims.released) == 1
        assert node.host.asked == []
        node.claims.show(*KEY, None)
        await turns()
        assert len(node.host.asked) == 1, "claimed anew"


async def test_replicas_beyond_the_number_wanted_are_stopped_and_released_once() -> None:
    async with Services() as node:
        await node.have(service(replicas=3))
        await turns()
        for _ in range(3):
            await node.started()
        await node.have(service(replicas=1))
        await turns()
        assert sorted(node.claims.held) == [KEY]
        assert len(node.claims.released) == 2


async def test_in_doubt_owned_work_is_cancelled_its_claim_kept_and_it_starts_in_place_when_the_lease_answers() -> None:
    async with Services() as node:
        await node.have(service(), service("app:everywhere", mode="every_node"))
        await turns()
        pids = [await node.started(), await node.started()]
        node.supervisor.in_doubt()
        await turns()
        assert len(node.host.cancelled) == 1
        assert node.host.cancelled[0][1] == b"the node may lose its lease"
        assert not node.supervisor.owns()
        assert len(set(node.host.alive) & set(pids)) == 1, "what runs on every node runs on"
        assert node.host.asked == []
        node.supervisor.sure()
        await node.started()
        assert node.claims.released == []


async def test_what_does_not_end_when_cancelled_is_killed_with_the_lease() -> None:
    async with Services() as node:
        await node.have(service())
        pid = await node.started()
        node.host.obeys = False
        node.supervisor.in_doubt()
        node.supervisor.kill_owned()
        await turns()
        assert node.supervisor.owns()
        assert pid in node.host.terminated
        node.host.exit(pid, "terminated")
        await turns()
        assert not node.supervisor.owns()


async def test_a_start_that_is_under_way_counts_as_owned() -> None:
    async with Services() as node:
        await node.have(service())
        await turns()
        node.supervisor.in_doubt()
        node.supervisor.kill_owned()
        await turns()
        assert node.supervisor.owns()
        node.host.start()
        await turns()
        assert node.host.alive == []
        assert not node.supervisor.owns()


async def test_a_process_may_not_act_once_its_lease_is_over_and_is_killed_when_it_tries() -> None:
    async with Services() as node:
        await node.have(service(), service("app:everywhere", mode="every_node"))
        await turns()
        pids = [await node.started(), await node.started()]
        (owned,) = [pid for pid in pids if node.supervisor.fence_of(pid)]
        (free,) = set(pids) - {owned}
        assert node.supervisor.may_act(owned)
        node.lease.may_run = False
        assert not node.supervisor.may_act(owned)
        assert node.supervisor.may_act(free)
        assert node.host.terminated == [owned]


async def test_an_ended_process_keeps_its_fence_for_what_it_asked_last() -> None:
    async with Services() as node:
        await node.have(service())
        pid = await node.started()
        fence = node.supervisor.fence_of(pid)
        node.host.exit(pid)
        await turns()
        assert node.supervisor.fence_of(pid) == fence is not None


async def test_a_service_that_may_run_twice_goes_on_without_a_lease_and_adopts_its_next_claim() -> None:
    async with Services() as node:
        await node.have(service(on_lease_loss="keep"))
        pid = await node.started()
        before = node.claims.held[KEY].token
        node.supervisor.in_doubt()
        node.supervisor.kill_owned()
        node.claims.show(*KEY, None)
        node.lease.id += 1
        node.supervisor.sure()
        await turns()
        assert node.host.alive == [pid]
        held = node.claims.held[KEY]
        assert held.token > before
        assert node.supervisor.fence_of(pid) == ("/wippy/c/services/app:s/0", held.token)


async def test_it_stops_when_another_node_runs_it_now() -> None:
    async with Services("n2") as node:
        node.claims.show(*KEY, NODE)
        await node.have(service(on_lease_loss="keep"))
        pid = await node.started()
        node.claims.show(*KEY, "n2")
        await turns()
        assert node.host.cancelled == [(pid, b"node n2 runs it now")]


async def test_a_service_that_ended_by_itself_keeps_its_claim_and_is_not_started_again() -> None:
    async with Services() as node:
        await node.have(service())
        node.host.exit(await node.started())
        await turns()
        assert node.host.asked == []
        assert KEY in node.claims.held


async def test_what_is_required_starts_first_and_stops_last() -> None:
    first = service("app:a", lifecycle={"requires": ["app:b"]})
    node = Services()
    async with node:
        await node.have(first, service("app:b"))
        required = await node.started()
        dependent = await node.started()
        node.host.obeys = True
        await node.supervisor.stop("test")
        assert [pid for pid, _ in node.host.cancelled] == [dependent, required]


async def test_stopping_waits_for_a_replica_that_is_stopping_already() -> None:
    async with Services() as node:
        await node.have(service())
        pid = await node.started()
        node.host.obeys = False
        await node.have()
        stopping = asyncio.ensure_future(node.supervisor.stop("test"))
        await turns()
        assert not stopping.done()
        node.host.exit(pid)
        await stopping
        assert len(node.claims.released) == 1


@virtually
async def test_a_replica_that_does_not_end_holds_up_a_stop_for_a_limited_time_and_stays_owned() -> None:
    async with Services() as node:
        await node.have(service(lifecycle={"stop_timeout": "1s"}))
        await node.started()
        node.host.obeys = False
        stopping = asyncio.ensure_future(node.supervisor.stop("test"))
        await asyncio.sleep(0.5)
        assert not stopping.done()
        assert node.supervisor.owns()
        assert node.claims.released == []
        stopping.cancel()


@virtually
async def test_the_state_is_written_when_etcd_takes_it_again() -> None:
    async with Services() as node:
        node.claims.show(*KEY, NODE)
        node.claims.error = UNAVAILABLE
        await node.have(service())
        pid = await node.started()
        await asyncio.sleep(3)
        assert node.claims.states == []
        node.claims.error = None
        await asyncio.sleep(2)
        assert [state.pid for state in node.claims.states] == [pid.decode()]


@virtually
async def test_a_claim_etcd_did_not_take_is_tried_again() -> None:
    async with Services() as node:
        node.claims.error = UNAVAILABLE
        await node.have(service())
        await asyncio.sleep(3)
        node.claims.error = None
        await asyncio.sleep(2)
        assert KEY in node.claims.held


@virtually
async def test_settled_waits_for_what_is_this_nodes_to_start_also_when_it_fails() -> None:
    async with Services() as node:
        await node.have(service(), service("app:elsewhere", mode="every_node", labels={"disk": "fast"}))
        settled = asyncio.ensure_future(node.supervisor.settled(10))
        await turns()
        assert not settled.done()
        node.host.refuse("no such process")
        await turns()
        assert settled.done()


@pytest.mark.parametrize("times", [1, 3])
async def test_a_name_that_is_revoked_is_told_to_the_replica_that_had_it(times: int) -> None:
    async with Services() as node:
        await node.have(service(lifecycle={"restart": {"initial_delay": "0s"}}))
        for _ in range(times):
            pid = await node.started()
            node.supervisor.name_revoked(pid, "counter")
            node.host.exit(pid)
            await asyncio.sleep(0)
        await node.started()
        assert len(node.host.alive) == 1
