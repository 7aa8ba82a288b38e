"""The supervisor: a replica runs under a claim that holds, and a claim is given back after its process."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from cluster.claims import ClaimState
from cluster.members import NodeState
from cluster.pid import Pid
from cluster.registry import Entry
from node.wanted import StillStopping
from tests.sim.memory_etcd import run_virtually
from tests.unit.node.services import LEASE, NODE, UNAVAILABLE, Services, member, service, turns

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


@virtually
async def test_nothing_starts_under_a_claim_whose_release_may_still_come_to_pass() -> None:
    async with Services("n2") as node:
        node.claims.show(*KEY, NODE)
        await node.have(service())
        await node.started()
        token = node.claims.held[KEY].token
        node.claims.error = UNAVAILABLE
        await node.have()
        await node.have(service())
        await asyncio.sleep(5)
        assert node.host.asked == []
        assert node.claims.held[KEY].token == token
        node.claims.error = None
        await asyncio.sleep(3)
        assert node.claims.released == [token]
        assert node.claims.held[KEY].token != token
        await node.started()


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


def off(id: str, *requires: str) -> Entry:
    return service(id, lifecycle={"auto_start": False, "requires": list(requires)})


async def test_what_is_required_runs_without_auto_start_for_as_long_as_it_is_required() -> None:
    async with Services() as node:
        needs, db, disk = service(lifecycle={"requires": ["app:db"]}), off("app:db", "app:disk"), off("app:disk")
        await node.have(needs, db, disk, off("app:other"))
        asked = [await node.started() for _ in range(3)]
        states = {row["service"]: row["state"] for row in node.supervisor.stats()}
        running = dict.fromkeys(("app:disk", "app:db", "app:s"), "running")
        assert states == {**running, "app:other": "stopped"}
        await node.have(service(), db, disk, off("app:other"))
        assert node.host.alive == [asked[2]], "what nobody requires any more stops"
        assert node.supervisor.knows("app:db")
        assert not node.supervisor.wants("app:db")


async def test_services_that_require_one_another_wait_and_say_so() -> None:
    async with Services() as node:
        await node.have(service("app:a", lifecycle={"requires": ["app:b"]}), off("app:b", "app:a"))
        assert node.host.asked == []
        assert {row["waits_for"] for row in node.supervisor.stats()} == {"app:a", "app:b"}


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
        await asyncio.sleep(0.1)
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


class TestGivingAway:
    """What can't be made to run here goes to another node, or stays where there is none."""

    @staticmethod
    async def fails(node: Services, times: int) -> None:
        for _ in range(times):
            while not node.host.asked:
                await asyncio.sleep(0.5)
            node.host.refuse("no disk")

    def test_one_that_failed_as_often_as_it_may_stops_is_avoided_and_then_released(self) -> None:
        async def scenario() -> None:
            async with Services("n2") as node:
                node.claims.show(*KEY, NODE)
                await node.have(service(lifecycle={"restart": {"max_attempts": 2}}))
                await self.fails(node, 2)
                await asyncio.sleep(1)
                assert node.host.asked == []
                (avoid,) = node.claims.avoided
                assert (avoid.service, avoid.node, avoid.lease) == ("app:s", NODE, LEASE)
                assert "no disk" in avoid.reason
                assert KEY not in node.claims.held
                await asyncio.sleep(30)
                assert KEY not in node.claims.held, "it is not claimed again while it is avoided"
                assert node.host.asked == []

        run_virtually(scenario())

    def test_without_a_limit_it_is_given_away_after_five_starts(self) -> None:
        async def scenario() -> None:
            async with Services("n2") as node:
                node.claims.show(*KEY, NODE)
                await node.have(service())
                await self.fails(node, 4)
                await asyncio.sleep(0.1)
                assert node.claims.avoided == []
                await self.fails(node, 1)
                await asyncio.sleep(0.1)
                assert len(node.claims.avoided) == 1

        run_virtually(scenario())

    @pytest.mark.parametrize("other", ["none", "cordoned", "labels", "avoids it too"])
    def test_where_no_other_node_may_take_it_it_stays(self, other: str) -> None:
        async def scenario() -> None:
            async with Services(*(() if other == "none" else ("n2",))) as node:
                node.members.show(member(NODE, {"zone": "a"}))
                if other == "cordoned":
                    node.members.show(replace(member("n2", {"zone": "a"}), state=NodeState.CORDONED))
                elif other == "avoids it too":
                    node.members.show(member("n2", {"zone": "a"}))
                    node.avoids.show("app:s", "n2", 5.0)
                node.claims.show(*KEY, NODE)
                await node.have(service(lifecycle={"restart": {"max_attempts": 1}}, labels={"zone": "a"}))
                await self.fails(node, 1)
                await asyncio.sleep(30)
                assert node.claims.avoided == []
                (row,) = node.supervisor.stats()
                assert (row["state"], row["node"]) == ("failed", NODE)
                if other == "none":
                    return
                # as soon as another may, it goes there
                node.avoids.show("app:s", "n2", None)
                node.members.show(member("n2", {"zone": "a"}))
                await asyncio.sleep(0.1)
                assert len(node.claims.avoided) == 1

        run_virtually(scenario())

    def test_one_that_returned_or_runs_stays(self) -> None:
        async def scenario() -> None:
            async with Services("n2") as node:
                for id in ("app:returns", "app:runs"):
                    node.claims.show(id, 0, NODE)
                await node.have(service("app:returns"), service("app:runs"))
                await turns()
                returned = node.host.asked[0][5]
                first = await node.started()
                await node.started()
                node.host.exit(first)
                await asyncio.sleep(60)
                assert returned is not None
                assert node.claims.avoided == []

        run_virtually(scenario())

    def test_another_definition_or_other_code_is_tried_here_again(self) -> None:
        async def scenario() -> None:
            async with Services("n2") as node:
                node.claims.show(*KEY, "n2")
                await node.have(service())
                for change in (
                    lambda: node.have(service(input=["other"])),
                    lambda: asyncio.sleep(0, node.supervisor.code_changed(lambda process: process == "app:p")),
                ):
                    node.avoids.show("app:s", NODE, 600.0)
                    node.supervisor.code_changed(lambda process: False)
                    await turns()
                    assert node.avoids.has("app:s")
                    await change()
                    await turns()
                    assert not node.avoids.has("app:s")

        run_virtually(scenario())

    def test_one_that_lacks_what_it_requires_stays_for_it_is_no_better_off_elsewhere(self) -> None:
        async def scenario() -> None:
            async with Services("n2") as node:
                node.claims.show(*KEY, NODE)
                node.claims.show("app:db", 0, "n2")
                life = {"requires": ["app:db"], "start_timeout": "1s", "restart": {"max_delay": "2s"}}
                await node.have(service(lifecycle=life), service("app:db"))
                await asyncio.sleep(60)
                (row,) = [row for row in node.supervisor.stats() if row["service"] == "app:s"]
                assert row["restarts"] > 5
                assert "app:db" in row["last_error"]
                assert node.claims.avoided == []
                await self.fails_once_it_has_it(node)
                assert len(node.claims.avoided) == 1

        run_virtually(scenario())

    async def fails_once_it_has_it(self, node: Services) -> None:
        db = node.claims.held["app:db", 0]
        state = ClaimState("n2", "{n2@app:processes|1-1}", "", 1)
        await node.claims.write_state("app:db", 0, db.token, db.lease, state)
        await self.fails(node, 1)
        await asyncio.sleep(0.1)

    def test_a_release_etcd_did_not_take_is_tried_again_with_what_is_avoided(self) -> None:
        async def scenario() -> None:
            async with Services("n2") as node:
                node.claims.show(*KEY, NODE)
                await node.have(service(lifecycle={"restart": {"max_attempts": 1}}))
                node.claims.error = UNAVAILABLE
                await self.fails(node, 1)
                await asyncio.sleep(5)
                assert node.claims.avoided == []
                node.claims.error = None
                await asyncio.sleep(3)
                assert [avoid.service for avoid in node.claims.avoided] == ["app:s"]
                assert node.host.asked == []

        run_virtually(scenario())

    def test_what_is_avoided_no_more_is_forgotten(self) -> None:
        async def scenario() -> None:
            async with Services("n2") as node:
                await node.have(service(labels={"zone": "x"}), service("app:t", labels={"zone": "x"}))
                for id in ("app:s", "app:t"):
                    node.avoids.show(id, NODE, 600.0)
                    node.avoids.show(id, "n2", 600.0)
                await node.have(service("app:t", labels={"zone": "x"}))
                await asyncio.sleep(1)
                assert sorted(node.avoids.kept) == [("app:s", "n2"), ("app:t", NODE), ("app:t", "n2")]
                node.avoids.show("app:t", NODE, 0.0)
                await asyncio.sleep(1)
                assert ("app:t", NODE) not in node.avoids.kept, "its time is over"
                assert ("app:t", "n2") in node.avoids.kept, "another's is another's"

        run_virtually(scenario())


class TestQuarantine:
    def test_what_runs_of_it_is_not_started_again_when_it_fails(self) -> None:
        async def scenario() -> None:
            async with Services("n2") as node:
                node.claims.show(*KEY, NODE)
                await node.have(service())
                pid = await node.started()
                node.quarantine.show(app_s=[])
                await asyncio.sleep(10)
                assert node.host.alive == [pid]
                node.host.exit(pid, "boom")
                await asyncio.sleep(30)
                assert node.host.asked == []
                assert KEY not in node.claims.held

        run_virtually(scenario())

    async def test_what_is_quarantined_is_not_started_and_what_runs_goes_on(self) -> None:
        async with Services() as node:
            await node.have(service())
            pid = await node.started()
            node.quarantine.show(app_s=[], app_t=[], app_e=[])
            await node.have(service(), service("app:t"), service("app:e", mode="every_node"))
            assert node.host.alive == [pid]
            assert node.host.asked == []
            assert node.claims.released == []
            node.quarantine.show()
            await turns()
            assert len(node.host.asked) == 2, "both start when they are released"
            for _ in range(2):
                await node.started()

    async def test_a_claim_of_it_that_nothing_uses_is_given_back(self) -> None:
        async with Services() as node:
            node.claims.show(*KEY, NODE)
            node.quarantine.show(app_s=[])
            await node.have(service())
            assert node.host.asked == []
            assert node.claims.held == {}

    def test_enough_suspicions_are_written_down_and_count_before(self) -> None:
        async def scenario() -> None:
            async with Services() as node:
                node.quarantine.suspected = ["app:s"]
                node.quarantine.error = UNAVAILABLE
                await node.have(service())
                assert node.host.asked == []
                await asyncio.sleep(3)
                assert node.quarantine.written == []
                node.quarantine.error = None
                await asyncio.sleep(3)
                assert node.quarantine.written == ["app:s"]
                assert node.host.asked == []

        run_virtually(scenario())

    async def test_a_release_forgets_what_nodes_avoid_too(self) -> None:
        async with Services("n2") as node:
            await node.have()
            node.avoids.show("app:s", "n2", 60.0)
            assert await node.supervisor.release("app:s")
            assert node.avoids.kept == {}
            assert not await node.supervisor.release("app:s")
            node.quarantine.show(app_s=[])
            assert await node.supervisor.release("app:s")

    async def test_a_service_is_known_by_its_port_before_its_process_is(self) -> None:
        async with Services() as node:
            await node.have(service())
            port = Pid.parse(node.host.asked[0][2].decode())
            assert node.supervisor.kept_by(port.counter) == "app:s"
            assert node.supervisor.kept_by(port.counter + 64) == ""
            await node.started()


class TestLabels:
    async def test_a_node_that_loses_a_label_gives_up_what_asks_for_it_and_nothing_else(self) -> None:
        async with Services("n2") as node:
            node.members.show(member(NODE, {"zone": "a"}))
            for id in ("app:s", "app:free"):
                node.claims.show(id, 0, NODE)
            await node.have(
                service(labels={"zone": "a"}),
                service("app:each", mode="every_node", labels={"zone": "a"}),
                service("app:free"),
            )
            for _ in range(3):
                await node.started()
            assert len(node.host.alive) == 3
            node.members.show(member(NODE, {"zone": "b"}))
            await turns()
            assert len(node.host.alive) == 1
            assert list(node.claims.held) == [("app:free", 0)]
            assert {reason for _, reason in node.host.cancelled} == {b"the node has not its labels any more"}
            node.members.show(member(NODE, {"zone": "a"}))
            await turns()
            assert len(node.host.asked) == 2, "both are back with the label"
            for _ in range(2):
                await node.started()

    async def test_a_claim_that_comes_after_the_label_went_starts_nothing_and_is_given_back(self) -> None:
        async with Services("n2") as node:
            await node.have(service(labels={"zone": "a"}))
            token = node.claims.show(*KEY, NODE).token  # type: ignore[union-attr]
            await turns()
            assert node.host.asked == []
            assert node.claims.released == [token]

    async def test_a_node_that_is_not_registered_for_a_moment_keeps_what_it_has(self) -> None:
        async with Services() as node:
            node.members.show(member(NODE, {"zone": "a"}))
            await node.have(service(mode="every_node", labels={"zone": "a"}))
            pid = await node.started()
            del node.members.members[NODE]
            node.members.show(member("n2", {}))
            await turns()
            assert node.host.alive == [pid]

    async def test_a_cordoned_node_keeps_what_it_has_and_gets_nothing_new(self) -> None:
        async with Services() as node:
            await node.have(service())
            pid = await node.started()
            node.members.show(replace(member(NODE, {}), state=NodeState.CORDONED))
            await node.have(service(), service("app:t"))
            assert node.host.alive == [pid]
            assert node.host.asked == []
            node.host.exit(pid, "crash")
            await asyncio.sleep(1.2)
            assert len(node.host.asked) == 1, "what it has is started again"
            await node.started()


class TestEvents:
    async def test_services_are_told_as_they_come_change_run_and_go(self) -> None:
        async with Services() as node:
            await node.have(service())
            assert node.announced[0] == ("service.register", "app:s")
            await node.started()
            await node.have(service(comment="as before"))
            await node.have(service(lifecycle={"stop_timeout": "3s"}))
            await node.have(service(lifecycle={"auto_start": False}))
            await node.have()
            kinds = [kind.removeprefix("service.") for kind, id in node.announced if id == "app:s"]
            assert kinds == ["register", "start", "update", "update", "stop", "remove"]
            await node.have(service("app:off", lifecycle={"auto_start": False}))
            assert node.announced[-1] == ("service.register", "app:off")

    async def test_one_that_ended_by_itself_is_told_to_stop_once(self) -> None:
        async with Services() as node:
            await node.have(service())
            node.host.exit(await node.started())
            await node.have()
            kinds = [kind.removeprefix("service.") for kind, id in node.announced]
            assert kinds == ["register", "start", "stop", "remove"]


class TestRows:
    """What is told of services that do not run."""

    async def test_each_replica_nobody_has_is_a_row_with_the_reason(self) -> None:
        async with Services() as node:
            node.quarantine.show(app_q=[])
            node.claims.show("app:two", 0, "n2")
            off = service("app:off", lifecycle={"auto_start": False})
            await node.have(
                service("app:two", replicas=2, labels={"zone": "x"}), service("app:q"), off,
                service("app:each", mode="every_node", labels={"zone": "x"}),
            )  # fmt: skip
            rows = {(row["service"], row["replica"]): row for row in node.supervisor.stats()}
            assert rows["app:two", 0]["state"] == "claimed"
            assert rows["app:two", 1]["state"] == rows["app:each", 0]["state"] == "unplaced"
            assert "no node has the labels zone=x" in rows["app:two", 1]["why"]
            assert (rows["app:q", 0]["state"], rows["app:off", 0]["state"]) == ("quarantined", "stopped")
            assert rows["app:off", 0]["why"] == "auto_start is off"
            assert {row["node"] for row in rows.values()} == {"", "n2"}
            await node.have()
            claimed, forgotten = node.supervisor.stats()
            assert (claimed["service"], claimed["node"]) == ("app:two", "n2")
            assert (forgotten["service"], forgotten["state"]) == ("app:q", "quarantined"), "it would be held for ever"
            assert "`wippy release app:q`" in forgotten["why"]

    async def test_what_this_node_has_a_claim_for_and_does_not_run_is_a_row(self) -> None:
        async with Services() as node:
            await node.have(service())
            pid = await node.started()
            claim = node.claims.get("app:s", 0)
            assert claim is not None
            assert [row["claim"] for row in node.supervisor.stats()] == [claim.token]
            node.lease.may_start = False
            node.supervisor.in_doubt()
            await turns()
            assert pid not in node.host.alive
            (row,) = node.supervisor.stats()
            assert (row["node"], row["state"], row["pid"]) == (NODE, "claimed", "")
            assert row["claim"] == claim.token

    async def test_one_that_waits_for_others_says_for_whom(self) -> None:
        async with Services() as node:
            await node.have(service(lifecycle={"requires": ["app:db"]}), service("app:db", labels={"disk": "ssd"}))
            (row,) = [row for row in node.supervisor.stats() if row["service"] == "app:s"]
            assert (row["state"], row["waits_for"]) == ("starting", "app:db")

    async def test_the_replicas_here_are_counted_by_state(self) -> None:
        async with Services() as node:
            await node.have(service(), service("app:t"))
            await node.started()
            assert node.supervisor.counts() == {"running": 1, "starting": 1}
            await node.started()
