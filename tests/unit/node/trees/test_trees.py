"""Supervisors over several nodes: what survives, what ends, and that nothing is ever there twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from cluster.envelope import error_map, to_text
from cluster.members import NodeState
from node.ports import Refused
from node.trees import children, commands, contact, overseer
from tests.unit.node.trees.world import Net, Node, Process, below, child

NODES = ("n1", "n2", "n1")


@pytest_asyncio.fixture
async def net(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Net]:
    """Three nodes; what supervisors wait for before they try again is short."""
    monkeypatch.setattr(contact, "PAUSE", 0.005)
    monkeypatch.setattr(contact, "ANSWER", 0.05)
    monkeypatch.setattr(children, "LOOK_AGAIN", 0.01)
    monkeypatch.setattr(children, "KILL_PATIENCE", 0.05)
    net = Net("n1", "n2", "n3")
    yield net
    await net.close()
    assert net.doubles == []


async def test_children_start_on_the_nodes_they_name(net: Net) -> None:
    net.supervisor("top", children=[child("a"), child("b", "n2"), child("c", "any")])
    await net.start("top", "n1")
    await net.runs("a", "b", "c")
    assert (net.find("a")[0].name, net.find("b")[0].name) == ("n1", "n2")


async def test_children_are_spread_over_the_nodes_with_their_labels(net: Net) -> None:
    net.join("n4", zone="x")
    net.join("n5", zone="x")
    net.supervisor("top", children=[child(name, "any", labels={"zone": "x"}) for name in "abcd"])
    await net.start("top", "n1")
    await net.runs(*"abcd")
    assert sorted(net.find(name)[0].name for name in "abcd") == ["n4", "n4", "n5", "n5"]


async def test_a_child_without_a_place_waits_for_it_and_holds_nobody_up(net: Net) -> None:
    net.supervisor("top", intensity=0, children=[child("a", "n4"), child("b")])
    await net.start("top", "n1")
    await net.runs("b")
    net.join("n4")
    await net.runs("a", "b")


async def test_a_failed_child_is_started_again_where_it_may(net: Net) -> None:
    net.supervisor("top", children=[child("a", "n2")])
    await net.start("top", "n1")
    await net.runs("a")
    before = net.find("a")[1].pid
    net.fail("a")
    await net.until(lambda: net.running()["a"] == 1 and net.find("a")[1].pid != before, "a is another process")


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
async def test_children_that_all_fail_at_once_end_their_supervisor(net: Net, strategy: str) -> None:
    began = net.began

    def fail_soon(node: Node, process: Process) -> None:
        began(node, process)
        asyncio.get_running_loop().call_soon(node.end, process, error_map("Internal", "boom"))

    net.began = fail_soon  # type: ignore[method-assign]
    net.supervisor("top", strategy=strategy, children=[child(name, node) for name, node in zip("abc", NODES)])
    await net.start("top", "n1")
    await net.until(lambda: not net.nodes["n1"].trees.shown(), "the supervisor has given up")
    await net.runs()


async def test_a_child_of_whose_end_nothing_was_heard_is_found_to_have_ended(net: Net) -> None:
    net.supervisor("top", children=[child("a", shutdown="infinity"), child("b", "n2", shutdown="infinity")])
    pid = await net.start("top", "n1")
    await net.runs("a", "b")
    for node in net.alive():
        node.processes.clear()
    net.nodes["n1"].route([9, pid, b"", 0, b"enough"])
    await net.until(lambda: not net.nodes["n1"].trees.shown(), "the supervisor has ended")


async def test_a_supervisor_is_described_by_its_pid(net: Net) -> None:
    net.supervisor("top", children=[child("a"), child("b"), child("c", "n4")])
    pid = await net.start("top", "n1")
    await net.runs("a", "b")
    told = net.nodes["n1"].trees.inspect(pid.decode())
    assert told is not None
    assert (told["kind"], told["strategy"], told["is_ending"]) == ("process.supervisor", "one_for_one", False)
    assert told["children"] == {"running": 2, "waiting for a place": 1}
    assert net.nodes["n2"].trees.inspect(pid.decode()) is None


async def test_what_a_child_waits_for_is_told_until_it_has_a_place(net: Net) -> None:
    net.supervisor(
        "top", children=[child("a", "n4"), child("b", "any", labels={"disk": "ssd"}), child("c", "n2"), child("d")]
    )
    net.set_state("n2", NodeState.DRAINING)
    pid = await net.start("top", "n1")

    async def waits_for() -> dict[str, str]:
        told = to_text(await net.ask(pid, "which_children", through="n1"))
        return {one["id"]: one["waits_for"] for one in told if "waits_for" in one}

    await net.runs("d")
    assert await waits_for() == {
        "a": "node n4, which is not there",
        "b": "a ready node with disk=ssd",
        "c": "node n2, which is draining",
    }
    net.join("n4", disk="ssd")
    net.set_state("n2", NodeState.READY)
    await net.runs(*"abcd")
    assert await waits_for() == {}


async def test_a_child_goes_on_where_its_node_lost_the_label_and_leaves_it_with_its_next_start(net: Net) -> None:
    net.join("n4", disk="ssd")
    net.supervisor("top", children=[child("a", "any", labels={"disk": "ssd"})])
    await net.start("top", "n1")
    await net.runs("a")
    net.join("n5", disk="ssd")
    net.relabel("n4")
    await net.turn(5)
    assert net.find("a")[0].name == "n4"
    net.fail("a")
    await net.runs("a")
    assert net.find("a")[0].name == "n5"


async def test_the_supervisor_above_decides_when_one_gives_up(net: Net) -> None:
    net.supervisor("top", strategy="one_for_all", children=[child("a", "n3"), below("inner", "n2")])
    net.supervisor("inner", intensity=0, children=[child("b", "n3"), child("c")])
    await net.start("top", "n1")
    await net.runs("a", "b", "c")
    before = {net.find(name)[1].pid for name in "abc"}
    net.fail("b")
    await net.until(
        lambda: net.running().total() == 3 and not before & {net.find(name)[1].pid for name in "abc"},
        "all of the group are new",
    )


async def test_a_stop_takes_all_nodes_in_reverse_order_and_kills_what_does_not_obey(net: Net) -> None:
    net.supervisor("top", children=[child("a", "n2", shutdown="10ms"), below("inner", "n3")])
    net.supervisor("inner", children=[child("b", "n1")])
    pid = await net.start("top", "n1")
    await net.runs("a", "b")
    net.find("a")[1].is_stubborn = True
    net.nodes["n1"].route([9, pid, b"", 0, b"enough"])
    await net.runs("a")
    await net.runs()
    await net.until(lambda: not any(node.trees.shown() for node in net.alive()), "no supervisor is left")


async def test_a_killed_supervisor_takes_its_whole_tree_along(net: Net) -> None:
    net.supervisor("top", children=[below("inner", "n2"), child("a", "n3")])
    net.supervisor("inner", children=[child("b", "n3"), child("c", "n1")])
    pid = await net.start("top", "n1")
    await net.runs("a", "b", "c")
    for name in "abc":
        net.find(name)[1].is_stubborn = True
    net.nodes["n1"].route([10, pid, b"", 0])
    await net.runs()


async def test_the_node_of_a_child_dies_and_it_runs_elsewhere(net: Net) -> None:
    net.supervisor("top", children=[child(name, "any") for name in "abcdef"])
    await net.start("top", "n1")
    await net.runs(*"abcdef")
    net.die("n2")
    await net.runs(*"abcdef")


async def test_the_node_of_the_supervisor_dies_and_its_children_end(net: Net) -> None:
    net.supervisor("top", children=[below("inner", "n2"), child("a", "n3")])
    net.supervisor("inner", children=[child("b", "n3")])
    await net.start("top", "n1")
    await net.runs("a", "b")
    net.die("n1")
    await net.runs()
    await net.start("top", "n3")
    await net.runs("a", "b")


class TestPartitions:
    async def test_a_child_that_can_not_be_reached_is_not_started_twice(self, net: Net) -> None:
        net.supervisor("top", children=[child("a", "any"), child("b", "any"), child("c", "any")])
        await net.start("top", "n1")
        await net.runs("a", "b", "c")
        cut = next(name for name in "abc" if net.find(name)[0].name == "n2")
        net.split("n1", "n2")
        net.lose("n1", "n2")
        starts = sum(node.starts for node in net.alive())
        await net.ask(next(iter(net.nodes["n1"].trees._overseers)), "count_children", through="n1")
        await net.turn(20)
        assert sum(node.starts for node in net.alive()) == starts
        assert net.running()[cut] == 1
        net.mend("n1", "n2")
        await net.runs("a", "b", "c")
        assert sum(node.starts for node in net.alive()) == starts + 1

    async def test_it_is_when_the_registration_of_its_node_is_over(self, net: Net) -> None:
        net.supervisor("top", children=[child("a", "any"), child("b", "any"), child("c", "any")])
        await net.start("top", "n1")
        await net.runs("a", "b", "c")
        net.split("n1", "n2")
        net.lose("n1", "n2")
        net.die("n2")
        await net.runs("a", "b", "c")

    async def test_it_is_at_once_where_duplicates_are_allowed(self, net: Net) -> None:
        net.supervisor("top", duplicates="allowed", children=[child("a", "any"), child("b", "any"), child("c", "any")])
        await net.start("top", "n1")
        await net.runs("a", "b", "c")
        net.split("n1", "n2")
        net.lose("n1", "n2")
        await net.until(lambda: net.running().total() == 4, "one of them runs twice")
        net.mend("n1", "n2")
        await net.runs("a", "b", "c")
        net.doubles.clear()

    async def test_the_tree_below_an_unreachable_supervisor_ends_before_it_is_started_again(self, net: Net) -> None:
        net.join("n4", zone="x")
        net.join("n5", zone="x")
        net.set_state("n5", NodeState.CORDONED)
        net.supervisor("top", children=[below("inner", "any", labels={"zone": "x"})])
        net.supervisor("inner", children=[child("a"), child("b", "n3")])
        await net.start("top", "n1")
        await net.runs("a", "b")
        net.set_state("n4", NodeState.CORDONED)
        net.set_state("n5", NodeState.READY)
        net.split("n4", "n3")
        net.lose("n1", "n4")
        net.mend("n1", "n4")
        await net.turn(30)
        await net.runs("b")  # n3 has not heard that its supervisor is being killed: nothing is started while it lives
        net.mend("n4", "n3")
        await net.runs("a", "b")
        assert net.find("a")[0].name == "n5"

    async def test_a_supervisor_starts_afresh_when_nothing_of_its_former_run_is_left(self, net: Net) -> None:
        net.supervisor("top", children=[child("a", "n3")])
        await net.start("top", "n1")
        await net.runs("a")
        net.die("n1", unseen_by="n3")
        await net.start("top", "n2")
        await net.turn(30)
        assert net.running() == {"a": 1}
        net.nodes["n3"].learn_of_end("n1")
        await net.runs("a")
        assert net.find("a")[1].owner.startswith(b"{n2@")

    async def test_a_link_that_closes_during_a_spawn_leaves_one_child(self, net: Net) -> None:
        net.supervisor("top", children=[child("a", "n2")])
        net.split("n1", "n2")
        net.nodes["n1"].trees.post([2, b"{n1@node:supervisor|}", b"{n1@node:test|1-0}", 0, b"app:top", [], {}])
        net.lose("n1", "n2")
        net.mend("n1", "n2")
        await net.runs("a")

    async def test_the_answer_to_a_spawn_is_lost(self, net: Net) -> None:
        net.supervisor("top", duplicates="allowed", children=[child("a", "n2")])
        await net.start("top", "n1")
        await net.until(lambda: net.nodes["n2"].starts == 1, "it is spawned")
        net.split("n1", "n2")
        net.lose("n1", "n2")
        net.mend("n1", "n2")
        await net.runs("a")


async def test_a_killed_supervisor_waits_for_other_nodes_only_while_its_node_has_its_lease(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overseer, "LOOK_AT_LEASE", 0.005)
    net.supervisor("top", children=[child("a", "n2"), child("b"), below("inner")])
    net.supervisor("inner", children=[child("c", "n2")])
    pid = await net.start("top", "n1")
    await net.runs("a", "b", "c")
    net.split("n1", "n2")
    net.nodes["n1"].route([10, pid, b"", 0])
    await net.turn(20)
    assert net.running() == {"a": 1, "c": 1}
    assert net.nodes["n1"].trees.shown(), "they may live, so the supervisor has not ended"
    net.nodes["n1"].is_in_doubt = True
    await net.until(lambda: not net.nodes["n1"].trees.shown(), "it ends without them")
    net.mend("n1", "n2")
    await net.runs()


async def test_trees_that_cross_a_link_do_not_wait_for_each_other_when_it_closes(net: Net) -> None:
    net.supervisor("left", children=[below("over", "n2")])
    net.supervisor("over", children=[child("a", "n1")])
    net.supervisor("right", children=[below("back", "n1")])
    net.supervisor("back", children=[child("b", "n2")])
    await net.start("left", "n1")
    await net.start("right", "n2")
    await net.runs("a", "b")
    before = {net.find(name)[1].pid for name in "ab"}
    net.split("n1", "n2")
    net.lose("n1", "n2")
    net.lose("n2", "n1")
    net.mend("n1", "n2")
    await net.until(
        lambda: net.running() == {"a": 1, "b": 1} and not before & {net.find(name)[1].pid for name in "ab"},
        "both trees are there again",
    )


async def test_a_supervisor_that_waits_for_others_before_it_starts_ends_with_the_one_above(net: Net) -> None:
    net.supervisor("top", children=[below("middle", "n1")])
    net.supervisor("middle", children=[below("low", "n3")])
    net.supervisor("low", children=[child("a", "n2")])
    net.split("n3", "n1")
    top = await net.start("top", "n2")
    await net.until(lambda: any(row["entry"] == "app:middle" for row in net.nodes["n1"].trees.shown()), "middle starts")
    net.mend("n3", "n1")
    net.split("n3", "n2")
    await net.until(lambda: bool(net.nodes["n3"].trees.shown()), "low waits for n2")
    net.nodes["n2"].route([10, top, b"", 0])
    await net.until(lambda: not any(node.trees.shown() for node in net.alive()), "all of them end")
    assert net.running() == {}


async def test_a_supervisor_from_elsewhere_ends_before_others_take_it_for_ended(net: Net) -> None:
    net.supervisor("top", intensity=0, children=[below("inner", "n2"), child("mine")])
    net.supervisor("inner", children=[child("a"), child("b", "n3")])
    await net.start("top", "n1")
    await net.runs("a", "b", "mine")
    net.split("n1", "n2")
    net.nodes["n2"].is_in_doubt = True
    net.nodes["n2"].trees.end_foreign()
    await net.until(lambda: not net.nodes["n2"].trees.shown(), "the tree on the node in doubt ends")
    await net.runs("mine")


async def test_a_start_that_was_given_up_leaves_nothing_when_its_answer_comes_late(net: Net) -> None:
    net.supervisor("top", duplicates="allowed", children=[child("a", "n2")])
    net.split("n1", "n2")
    pid = await net.start("top", "n1")
    net.nodes["n1"].is_in_doubt = True
    net.nodes["n1"].route([10, pid, b"", 0])
    await net.until(lambda: not net.nodes["n1"].trees.shown(), "it ends without an answer")
    net.nodes["n1"].is_in_doubt = False
    net.mend("n1", "n2")
    await net.until(lambda: net.nodes["n2"].starts == 1, "the request arrives all the same")
    await net.runs()


async def test_a_long_error_is_not_kept_whole(net: Net) -> None:
    net.supervisor("top", children=[child("a", restart="transient"), child("b")])
    pid = await net.start("top", "n1")
    await net.runs("a", "b")
    node, process = net.find("b")
    node.end(process, error_map("Internal", "x" * 1_000_000))
    await net.until(lambda: any(row.get("last_error") for row in node.trees.shown()), "its error is shown")
    told = await net.ask(pid, "which_children", through="n2")
    assert 1 < len(told[1][b"last_error"]) < 10_000


async def test_a_node_in_doubt_takes_nothing_which_is_no_failure(net: Net) -> None:
    net.supervisor("top", intensity=0, children=[child("a", "n2"), below("inner", "n2")])
    net.supervisor("inner", children=[child("b")])
    net.nodes["n2"].is_in_doubt = True
    await net.start("top", "n1")
    await net.turn(30)
    assert net.running() == {}
    net.nodes["n2"].is_in_doubt = False
    await net.runs("a", "b")


async def test_an_answer_of_before_the_last_loss_does_not_count(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    net.supervisor("top", children=[child("a", "any"), child("b", "any"), child("c", "any")])
    net.set_state("n1", NodeState.CORDONED)
    net.set_state("n3", NodeState.CORDONED)
    await net.start("top", "n1")
    await net.runs("a", "b", "c")
    asked: list[asyncio.Future[bool]] = []

    async def certain(self: contact.Contact, *arguments: object) -> bool:
        asked.append(asyncio.get_running_loop().create_future())
        return await asked[-1]

    monkeypatch.setattr(contact.Contact, "certain", certain)
    net.split("n1", "n2")
    net.lose("n1", "n2")
    await net.until(lambda: len(asked) == 1, "n2 is asked")
    asked[0].set_result(True)
    net.nodes["n1"].node_down("n2")  # before whoever asked has seen the answer
    starts = net.nodes["n2"].starts
    await net.until(lambda: len(asked) == 2, "n2 is asked again")
    assert net.nodes["n2"].starts == starts
    monkeypatch.undo()
    net.mend("n1", "n2")
    asked[1].set_result(True)
    await net.runs("a", "b", "c")


async def test_commands_that_wait_are_bounded(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overseer, "MAX_OPEN", 3)
    net.supervisor("top", children=[child("a", "n2")])
    net.split("n1", "n2")
    pid = await net.start("top", "n1")
    waiting = [asyncio.ensure_future(net.ask(pid, "terminate_child", b"a", through="n1")) for _ in range(3)]
    await net.turn(2)
    with pytest.raises(Refused, match="too many commands"):
        await net.ask(pid, "terminate_child", b"a", through="n1")
    net.mend("n1", "n2")
    assert await asyncio.gather(*waiting) == [True, True, True]


async def test_children_that_do_not_fit_into_one_answer_are_counted_only(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    net.supervisor("top", children=[child(name) for name in "abcdef"])
    pid = await net.start("top", "n1")
    await net.runs(*"abcdef")
    told = await net.ask(pid, "which_children", through="n2")
    assert [one[b"id"].decode() for one in told] == list("abcdef")
    monkeypatch.setattr(commands, "ROOM", 200)
    with pytest.raises(Refused, match="6 children do not fit into one answer") as refused:
        await net.ask(pid, "which_children", through="n2")
    assert refused.value.kind == "Invalid"
    assert (await net.ask(pid, "count_children", through="n2"))[b"active"] == 6


async def test_a_significant_child_needs_a_supervisor_that_counts_it(net: Net) -> None:
    net.supervisor("top", children=[])
    pid = await net.start("top", "n1")
    spec = {b"id": b"a", b"process": b"app:child", b"host": b"app:p", b"restart": b"transient", b"significant": True}
    with pytest.raises(Refused, match="auto_shutdown") as refused:
        await net.ask(pid, "start_child", spec, through="n1")
    assert refused.value.kind == "Invalid"


async def test_each_supervisor_is_told_with_the_top_of_its_tree_on_its_node(net: Net) -> None:
    net.supervisor("top", children=[below("inner", "n1"), below("far", "n2")])
    net.supervisor("inner", children=[child("a", "n1")])
    net.supervisor("far", children=[child("b", "n2")])
    pid = (await net.start("top", "n1")).decode()
    await net.runs("a", "b")
    told = {one.entry: one for one in net.nodes["n1"].trees.overseen()}
    assert (told["app:top"].pid, told["app:top"].is_owned, told["app:top"].top) == (pid, False, pid)
    assert (told["app:inner"].parent, told["app:inner"].is_owned, told["app:inner"].top) == (pid, True, pid)
    (far,) = net.nodes["n2"].trees.overseen()
    assert (far.parent, far.is_owned, far.top) == (pid, True, far.pid)


async def test_a_draining_node_gives_its_children_away(net: Net) -> None:
    net.supervisor("top", children=[child(name, "any", restart="transient") for name in "abc"])
    await net.start("top", "n1")
    await net.runs("a", "b", "c")
    name = next(name for name in "abc" if net.find(name)[0].name == "n2")
    node, process = net.find(name)
    net.set_state("n2", NodeState.DRAINING)
    node.end(process, None)
    await net.runs("a", "b", "c")
    assert net.find(name)[0] is not node


async def test_commands_are_answered_from_anywhere_and_errors_name_the_child(net: Net) -> None:
    net.supervisor("top", children=[child("a", "n2")])
    pid = await net.start("top", "n1")
    await net.runs("a")
    assert await net.ask(pid, "count_children", through="n3") == {
        b"specs": 1, b"active": 1, b"supervisors": 0, b"workers": 1,
    }  # fmt: skip
    with pytest.raises(Refused, match="child 'a' of supervisor app:top can't be deleted while it runs") as refused:
        await net.ask(pid, "delete_child", b"a", through="n3")
    assert refused.value.kind == "Conflict"
    with pytest.raises(Refused, match="there is no child 'x'"):
        await net.ask(pid, "terminate_child", b"x", through="n3")
    assert await net.ask(pid, "terminate_child", net.find("a")[1].pid, through="n3") is True
    await net.runs()
    assert (await net.ask(pid, "restart_child", b"a", through="n3")).startswith(b"{n2@")
    with pytest.raises(Refused, match="knows no 'dance'"):
        await net.ask(pid, "dance", through="n3")
    with pytest.raises(Refused, match="it takes no messages"):
        await net.nodes["n3"].ports.open("node:test").send(pid, "hello", [], timeout=1)
    with pytest.raises(Refused, match=r"process: is required"):
        await net.ask(pid, "start_child", {b"id": b"b"}, through="n3")


async def test_a_child_that_never_starts_ends_the_supervisor_and_whoever_spawned_it_hears_why(net: Net) -> None:
    net.supervisor("top", children=[below("inner", "n2")])
    net.supervisor("inner", children=[child("a")])
    net.nodes["n2"].refuses = lambda arguments: "no such code"
    ends: list[str] = []
    port = net.nodes["n3"].ports.open("node:test")
    port.on_exit = lambda ended: ends.append(str(ended.error and ended.error["message"]))
    await port.spawn(b"{n1@node:supervisor|}", "app:top", [], {b"monitor": True}, timeout=5)
    await net.until(lambda: bool(ends), "the supervisor gives up")
    assert "child inner could not be started" in ends[0]
    assert "child a could not be started: no such code" in ends[0]


async def test_a_supervisor_that_is_stopped_while_it_starts_has_not_started(net: Net) -> None:
    net.supervisor("top", children=[below("inner", "n2")])
    net.supervisor("inner", children=[child("a", "n3")])
    net.split("n2", "n3")
    await net.start("top", "n1")
    await net.until(lambda: bool(net.nodes["n2"].trees.shown()), "inner waits for n3")
    net.nodes["n1"].route([9, net.nodes["n2"].trees.shown()[0]["pid"].encode(), b"", 0, b"no more"])
    net.mend("n2", "n3")
    await net.until(lambda: not any(node.trees.shown() for node in net.alive()), "the one above hears, and gives up")
    assert net.running() == {}


async def test_only_what_changed_starts_anew(net: Net) -> None:
    net.supervisor("top", children=[child("a", "n2"), child("b", "n3"), child("c")])
    await net.start("top", "n1")
    await net.runs("a", "b", "c")
    kept = net.find("b")[1].pid
    net.supervisor("top", children=[child("b", "n3", restart="transient"), child("c", "n2"), child("d")])
    net.nodes["n1"].trees.entries_changed({"app:top"})
    await net.runs("b", "c", "d")
    await net.until(lambda: net.find("c")[0].name == "n2", "c has moved")
    assert net.find("b")[1].pid == kept


@pytest.mark.parametrize("seed", range(15))
async def test_whatever_breaks_there_is_one_of_each_in_the_end(net: Net, seed: int) -> None:
    dice = random.Random(seed)
    net.supervisor("top", intensity=1000, children=[child("a", "any"), below("inner", "any"), child("b", "any")])
    strategy = dice.choice(["one_for_one", "one_for_all", "rest_for_one"])
    net.supervisor(
        "inner",
        strategy=strategy,
        intensity=1000,
        children=[*(child(name, "any") for name in "cd"), below("low", "any")],
    )
    net.supervisor("low", intensity=1000, children=[child("e", "any")])
    await net.start("top", "n1")
    for _ in range(40):
        await net.turn(dice.choice([0, 0, 1, 3, 8]))
        one, other = dice.sample(sorted(node.name for node in net.alive()), 2)
        match dice.choice(["fail", "fail", "split", "lose", "mend", "mend", "die"]):
            case "fail" if net.running():
                net.fail(dice.choice(sorted(net.running())))
            case "split":
                net.split(one, other)
            case "lose":
                net.split(one, other)
                net.lose(one, other)
            case "mend":
                net.mend(one, other)
            case "die" if one != "n1":
                net.die(one)
                net.join(one)
    for one, other in (("n1", "n2"), ("n1", "n3"), ("n2", "n3")):
        net.mend(one, other)
    await net.runs(*"abcde")
