"""The client against real NATS and etcd, with nodes that answer what a test wants."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import msgpack
import pytest

from cluster import loads, rollcall
from cluster.asking import Asking, Declined
from cluster.bus import Bus
from cluster.client import Client, NoNodes, QueryFailed
from cluster.embedded import EmbeddedServers
from cluster.envelope import to_text, unpack
from cluster.errors import CallTimeout, MessageTooBig, NodeDown, Unavailable
from cluster.etcd import Etcd, PrefixWatch
from cluster.keys import Keys
from cluster.members import Description, Members, NodeState
from cluster.subjects import Subjects
from node.cli import gateway, look
from node.cli.failures import Failed
from node.pages import Pages

Answerer = Callable[[dict[str, Any]], Any]

pytestmark = pytest.mark.servers


class Node:
    """A registered node whose control door answers with ``answer``; None means silence."""

    def __init__(self, name: str, answer: Answerer) -> None:
        self.name = name
        self.answer = answer
        self.asked: list[dict[str, Any]] = []

    @asynccontextmanager
    async def open(self, servers: EmbeddedServers, etcd: Etcd, cluster: str, state: NodeState) -> AsyncIterator[None]:
        keys, subjects = Keys(cluster), Subjects(cluster)
        epoch = await etcd.put(keys.node(self.name), Description(1, state).to_json())
        async with Bus([servers.nats_url], name=self.name, inbox=subjects.inbox(self.name)) as bus:

            def on_query(subject: str, reply: str, payload: bytes, headers: Any) -> None:
                query = to_text(unpack(payload))
                self.asked.append(query)
                answer = self.answer(query)
                if answer is not None:
                    bus.control.publish(reply, msgpack.packb(answer))

            await bus.control.subscribe(subjects.control_of(self.name, epoch), on_query)
            yield


def value(answer: Any) -> Answerer:
    return lambda query: {"ok": True, "value": answer}


def page(*items: Any) -> dict[str, Any]:
    """A listing that fits into one answer."""
    return {"items": list(items), "total": len(items), "more": None}


def error(kind: str, message: str, code: str) -> Answerer:
    return lambda query: {"ok": False, "error": {"kind": kind, "message": message, "code": code}}


@pytest.fixture
async def start(servers: EmbeddedServers, etcd: Etcd, cluster_name: str) -> AsyncIterator[Any]:
    """``await start(name, answer, state)`` adds a node."""
    async with AsyncExitStack() as stack:

        async def start(name: str, answer: Answerer, state: NodeState = NodeState.READY) -> Node:
            node = Node(name, answer)
            await stack.enter_async_context(node.open(servers, etcd, cluster_name, state))
            return node

        yield start


@pytest.fixture
async def client(servers: EmbeddedServers, cluster_name: str) -> AsyncIterator[Client]:
    async with Client([servers.nats_url], [servers.etcd_url], cluster_name) as client:
        yield client


class TestActing:
    async def test_a_call_returns_the_first_reply(self, start: Any, client: Client) -> None:
        node = await start(
            "a", value({"pid": "{a@h|1-1}", "from": "{a@h|1-1}", "topic": "done", "payloads": [{"n": 2}]})
        )
        reply = await client.call("worker", "work", {"n": 1}, timeout=3)
        assert (reply.sender, reply.topic, reply.value) == ("{a@h|1-1}", "done", {"n": 2})
        assert node.asked == [{"op": "call", "timeout": 3, "to": "worker", "topic": "work", "payload": {"n": 1}}]

    async def test_a_message_without_a_payload_has_none(self, start: Any, client: Client) -> None:
        node = await start("a", value({"pid": "{a@h|1-1}"}))
        assert await client.send("worker", "stop") == "{a@h|1-1}"
        assert "payload" not in node.asked[0]

    async def test_null_is_a_payload(self, start: Any, client: Client) -> None:
        node = await start("a", value({"pid": "{a@h|1-1}"}))
        await client.send("worker", "stop", None)
        assert node.asked[0]["payload"] is None

    async def test_an_error_is_raised_with_its_kind_and_code(self, start: Any, client: Client) -> None:
        await start("a", error("NotFound", "no process is registered as 'x'", "noproc"))
        with pytest.raises(QueryFailed, match="noproc: no process is registered as 'x'") as failed:
            await client.send("x", "t")
        assert (failed.value.kind, failed.value.code, failed.value.node) == ("NotFound", "noproc", "a")

    async def test_an_error_without_a_code_of_its_own_is_just_its_message(self, start: Any, client: Client) -> None:
        await start("a", error("NotFound", "no entry app:x", "error"))
        with pytest.raises(QueryFailed) as failed:
            await client.send("x", "t")
        assert str(failed.value) == "no entry app:x"

    async def test_silence_ends_at_the_deadline(self, start: Any, client: Client) -> None:
        await start("a", lambda query: None)
        with pytest.raises(CallTimeout, match=r"send at node a: no answer within 0\.2 s"):
            await client.send("x", "t", timeout=0.2)

    async def test_an_answer_that_is_none_is_refused(self, start: Any, client: Client) -> None:
        await start("a", lambda query: ["what"])
        with pytest.raises(QueryFailed, match="answered"):
            await client.send("x", "t")

    async def test_a_payload_over_the_limit_is_refused_before_it_leaves(self, start: Any, client: Client) -> None:
        node = await start("a", value({}))
        with pytest.raises(MessageTooBig):
            await client.send("x", "t", "a" * 1_000_000)
        assert not node.asked

    async def test_only_one_payload_is_taken(self, client: Client) -> None:
        with pytest.raises(ValueError, match="one payload"):
            await client.send("x", "t", 1, 2)


PID = "{a@h|1-1}"
MOVED = {"pid": PID, "node": "b", "verdict": "moved", "reason": "", "seconds": 0.01}


class TestOperating:
    async def test_a_process_that_is_elsewhere_is_followed(self, start: Any, client: Client) -> None:
        first = await start("a", value({"pid": PID, "elsewhere": "b"}))
        second = await start("b", value(MOVED))
        moved = await client.move("worker", "b", within=2.0)
        assert (moved.pid, moved.node, moved.verdict, moved.seconds) == (PID, "b", "moved", 0.01)
        (asked,), (again,) = first.asked, second.asked
        assert (asked["process"], asked["to"], asked["within"]) == ("worker", "b", 2.0)
        assert (again["process"], again["to"], again["within"]) == (PID, "b", 2.0)
        assert again["timeout"] > again["within"]

    async def test_one_that_is_never_where_it_is_looked_for_is_given_up(self, start: Any, client: Client) -> None:
        await start("a", value({"pid": PID, "elsewhere": "a"}))
        with pytest.raises(Unavailable, match="try again"):
            await client.move(PID, "a")

    async def test_a_node_that_is_not_there_is_named_before_anybody_is_asked(self, start: Any, client: Client) -> None:
        node = await start("a", value(MOVED))
        with pytest.raises(NoNodes, match="node 'z' is not in cluster"):
            await client.move(PID, "z")
        assert not node.asked

    async def test_a_drain_is_begun_and_watched(self, start: Any, client: Client) -> None:
        node = await start("a", value({"node": "a", "phase": "draining", "state": "draining"}))
        await client.drain("a", 30.0)
        assert (await client.drained("a"))["phase"] == "draining"
        assert await client.cordon("a") is NodeState.DRAINING
        assert await client.uncordon("a") is NodeState.DRAINING
        assert [query["op"] for query in node.asked] == ["drain", "drained", "cordon", "uncordon"]
        assert node.asked[0]["within"] == 30.0


class TestNodesAmongThemselves:
    """Nodes ask each other the same, in their own names."""

    @pytest.fixture
    async def asking(self, servers: EmbeddedServers, etcd: Etcd, cluster_name: str, start: Any) -> AsyncIterator[Any]:
        await start("a", lambda query: {"ok": True, "value": {"processes": 7, "op": query["op"]}})
        await start("b", error("NotFound", "no process", "noproc"))
        await start("c", lambda query: ["what"])
        await start("d", lambda query: None)
        keys, subjects = Keys(cluster_name), Subjects(cluster_name)
        watch = PrefixWatch(etcd, keys.prefix)
        members = Members(watch, keys)
        async with watch, Bus([servers.nats_url], name="n", inbox=subjects.inbox("n")) as bus:
            yield Asking(bus, subjects, members, "n")

    async def test_an_answer_is_a_value_and_all_else_an_error(self, asking: Asking) -> None:
        assert await asking("a", "health", 1.0) == {"processes": 7, "op": "health"}
        with pytest.raises(Declined, match="no process") as declined:
            await asking("b", "move", 1.0)
        assert (declined.value.kind, declined.value.code) == ("NotFound", "noproc")
        with pytest.raises(Declined, match="answered"):
            await asking("c", "health", 1.0)
        with pytest.raises(CallTimeout):
            await asking("d", "health", 0.1)
        with pytest.raises(NodeDown):
            await asking("z", "health", 1.0)

    async def test_loads_are_those_of_who_answers(self, asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loads, "WITHIN", 0.3)
        assert await loads.Loads(asking)(["a", "b", "c", "d", "z"]) == {"a": 7}


class TestGateway:
    async def test_one_that_is_gone_is_passed_over(self, start: Any, client: Client, etcd: Etcd) -> None:
        await etcd.put(client.keys.node("a"), Description(1, NodeState.READY).to_json())
        node = await start("b", value({"pid": "p"}))
        assert await client.send("x", "t") == "p"
        assert len(node.asked) == 1

    async def test_ready_ones_come_before_draining_ones(self, start: Any, client: Client) -> None:
        draining = await start("a", value({"pid": "p"}), NodeState.DRAINING)
        await start("b", value({"pid": "p"}))
        await client.send("x", "t")
        assert not draining.asked

    async def test_the_one_that_is_named_is_the_only_one(
        self, start: Any, servers: EmbeddedServers, etcd: Etcd, cluster_name: str
    ) -> None:
        await start("a", value({"pid": "p"}))
        await etcd.put(Keys(cluster_name).node("b"), Description(1, NodeState.READY).to_json())
        async with Client([servers.nats_url], [servers.etcd_url], cluster_name, gateway="b") as client:
            with pytest.raises(Unavailable, match="is the node running"):
                await client.send("x", "t")

    async def test_a_name_nobody_has_is_answered_with_the_names_there_are(self, start: Any, client: Client) -> None:
        await start("a", value({}))
        with pytest.raises(NoNodes, match=r"node 'z' is not in cluster .*; there: a"):
            await client.ask("z", "health")

    async def test_a_cluster_without_nodes_says_so(self, client: Client) -> None:
        with pytest.raises(NoNodes, match="has no ready node"):
            await client.call("x", "t")


class TestLongListings:
    async def test_are_read_page_by_page(self, start: Any, client: Client) -> None:
        pages, items = Pages(), [{"pid": str(number)} for number in range(5000)]

        def answer(query: dict[str, Any]) -> Any:
            cut = (
                pages.next(query["cursor"], query["limit"]) if "cursor" in query else pages.first(items, query["limit"])
            )
            return {"ok": True, "value": cut}

        node = await start("a", answer)
        answers = await client.ps()
        assert answers.by_node == {"a": items}
        assert answers.totals == {"a": 5000}
        assert [query.get("cursor") is None for query in node.asked] == [True, False, False]
        assert (await client.ps(limit=2500)).by_node == {"a": items[:2500]}

    async def test_one_that_breaks_off_is_shown_as_far_as_it_came(self, start: Any, client: Client) -> None:
        def answer(query: dict[str, Any]) -> Any:
            if "cursor" in query:
                return {"ok": False, "error": {"kind": "Invalid", "message": "kept no more", "code": "invalid"}}
            return {"ok": True, "value": {"items": [{"pid": "1"}], "total": 9, "more": "x-1"}}

        await start("a", answer)
        answers = await client.ps()
        assert answers.by_node == {"a": [{"pid": "1"}]}
        assert answers.silent == {"a": "only 1 of 9 were told: invalid: kept no more"}


class TestLooking:
    async def test_every_node_is_asked_and_a_silent_one_is_named(self, start: Any, client: Client) -> None:
        await start("a", value(page({"pid": "1"})))
        await start("b", error("Internal", "broken", "internal"))
        answers = await client.ps()
        assert answers.by_node == {"a": [{"pid": "1"}]}
        assert answers.silent == {"b": "internal: broken"}

    async def test_nodes_need_no_nats(self, start: Any, servers: EmbeddedServers, cluster_name: str) -> None:
        await start("a", value({}), NodeState.CORDONED)
        async with Client(["nats://127.0.0.1:1"], [servers.etcd_url], cluster_name) as client:
            assert [(node.node, node.state) for node in await client.nodes()] == [("a", NodeState.CORDONED)]

    async def test_a_registration_that_can_not_be_read_counts_as_absent(
        self, start: Any, client: Client, etcd: Etcd
    ) -> None:
        await start("a", value(page()))
        await etcd.put(client.keys.node("ghost"), b"\xff")
        assert [node.node for node in await client.nodes()] == ["a"]
        assert (await client.ps()).by_node == {"a": []}

    async def test_servers_that_do_not_answer_are_named(self, cluster_name: str) -> None:
        patience = timedelta(seconds=0.3)
        async with Client(
            ["nats://127.0.0.1:1"], ["http://127.0.0.1:1"], cluster_name, connect_timeout=patience
        ) as client:
            with pytest.raises(
                Unavailable, match=r"etcd does not answer: no connection to etcd at http://127\.0\.0\.1:1"
            ):
                await client.nodes()

    async def test_while_etcd_is_away_a_node_says_who_there_is(
        self, start: Any, servers: EmbeddedServers, cluster_name: str, client: Client
    ) -> None:
        await start("a", value(page({"pid": "1"})))
        known, subjects = await client.nodes(), Subjects(cluster_name)
        assert client.told_by == ""
        asked: list[Any] = []
        async with (
            Bus([servers.nats_url], name="a2", inbox=subjects.inbox("a2")) as bus,
            Client([servers.nats_url], ["http://127.0.0.1:1"], cluster_name) as cut_off,
        ):

            def on_query(subject: str, reply: str, payload: bytes, headers: Any) -> None:
                asked.append(to_text(unpack(payload)))
                bus.control.publish(reply, msgpack.packb({"ok": True, "value": rollcall.told("a", known)}))

            await bus.control.subscribe(subjects.announcements, on_query)
            began = time.monotonic()
            assert await cut_off.nodes() == known
            assert (await cut_off.ps()).by_node == {"a": [{"pid": "1"}]}
            assert time.monotonic() - began < 4.0, "it does not wait for etcd until its deadline, and not twice"
            assert cut_off.told_by == "a"
            assert asked[0] == {"op": "members"}
            with pytest.raises(Unavailable, match="etcd does not answer"):
                await cut_off.check()

    @pytest.mark.parametrize("query", ["ps", "send"])
    async def test_without_nats_it_fails_once_for_all_nodes(
        self, start: Any, servers: EmbeddedServers, cluster_name: str, query: str
    ) -> None:
        for name in ("a", "b", "c"):
            await start(name, value([]))
        began = time.monotonic()
        patience = timedelta(seconds=0.5)
        async with Client(["nats://127.0.0.1:1"], [servers.etcd_url], cluster_name, connect_timeout=patience) as client:
            with pytest.raises(Unavailable, match=r"can't connect to NATS at nats://127\.0\.0\.1:1"):
                await (client.ps() if query == "ps" else client.send("x", "t"))
        assert time.monotonic() - began < 1.2


class TestVerbs:
    async def test_an_unknown_node_is_answered_with_the_known_ones(self, start: Any, client: Client) -> None:
        await start("a", value([]))
        with pytest.raises(NoNodes, match=r"node 'z' is not in cluster .*; there: a"):
            await look.ps(client, on="z")

    async def test_an_unknown_gateway_is_refused_also_where_none_is_needed(
        self, start: Any, servers: EmbeddedServers, cluster_name: str
    ) -> None:
        await start("a", value({}))
        with pytest.raises(NoNodes, match=r"node 'z' is not in cluster .*; there: a"):
            await gateway._run(look.nodes, [servers.nats_url], [servers.etcd_url], cluster_name, "z", {})

    async def test_without_nats_the_nodes_etcd_knows_are_listed_and_it_is_an_error(
        self, start: Any, servers: EmbeddedServers, cluster_name: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        await start("a", value({}))
        patience = timedelta(seconds=0.3)
        async with Client(["nats://127.0.0.1:1"], [servers.etcd_url], cluster_name, connect_timeout=patience) as client:
            with pytest.raises(Failed, match=r"can't connect to NATS at nats://127\.0\.0\.1:1.*check the address"):
                await look.nodes(client)
        assert "NATS does not answer" in capsys.readouterr().out
