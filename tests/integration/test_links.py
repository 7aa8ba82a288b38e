"""Links between two nodes over a real nats-server."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cluster import frame as wire
from cluster.bus import Bus, Credentials
from cluster.embedded import EmbeddedServers
from cluster.envelope import MAX_MESSAGE, Envelope, Kind, pack
from cluster.errors import MessageTooBig, NodeDown, Unavailable
from cluster.link import Limits
from cluster.links import Links
from cluster.members import Member, MemberChange, NodeState
from cluster.subjects import Subjects
from tests.waiting import eventually

pytestmark = pytest.mark.servers


def member(node: str, epoch: int) -> Member:
    return Member(node, epoch, epoch, 0, 1, NodeState.READY, {}, "", {}, "", "")


@dataclass
class View:
    """One node's members, changed by the test."""

    members: dict[str, Member] = field(default_factory=dict)
    applied: int = 0
    handler: MemberChange = lambda before, after: None

    def all(self) -> list[Member]:
        return list(self.members.values())

    def on_change(self, handler: MemberChange) -> None:
        self.handler = handler

    def show(self, node: str, epoch: int) -> None:
        self.applied = max(self.applied, epoch)
        before, after = self.members.get(node), member(node, epoch) if epoch else None
        if after is None:
            del self.members[node]
        else:
            self.members[node] = after
        self.handler(before, after)


@dataclass
class Node:
    """A node as far as links go, and what it was told."""

    name: str
    view: View
    bus: Bus
    links: Links
    got: list[int] = field(default_factory=list)
    down: list[tuple[str, str]] = field(default_factory=list)

    def send(self, to: str, number: int, size: int = 0) -> None:
        self.links.send(to, envelope(number, size))


def envelope(number: int, size: int = 0) -> Envelope:
    return [Kind.MESSAGE, b"{b@host|1-1}", b"{a@host|1-1}", 0, b"topic", [number, b"x" * size], b"", 0]


@asynccontextmanager
async def running(
    url: str, cluster: str, name: str, limits: Limits | None = None, password: str | None = None
) -> AsyncIterator[Node]:
    subjects = Subjects(cluster)
    view = View()
    credentials = Credentials(name, password) if password else None
    async with Bus([url], name=name, inbox=subjects.inbox(name), credentials=credentials) as bus:
        async with Links(bus.data, view, subjects, name, limits=limits) as links:
            node = Node(name, view, bus, links)
            links.on_envelopes(lambda peer, envelopes: node.got.extend(e[5][0] for e in envelopes))
            links.on_down(lambda peer, reason: node.down.append((peer, reason)))
            yield node


@asynccontextmanager
async def pair(
    url: str, cluster: str, limits: Limits | None = None, password: str | None = None
) -> AsyncIterator[tuple[Node, Node]]:
    async with running(url, cluster, "a", limits, password) as a, running(url, cluster, "b", limits, password) as b:
        for node in (a, b):
            node.view.show("a", 1)
            node.view.show("b", 2)
        await a.links.open(1)
        await b.links.open(2)
        yield a, b


class TestDelivery:
    async def test_when_all_was_handed_over_the_node_may_answer(
        self, servers: EmbeddedServers, cluster_name: str
    ) -> None:
        async with pair(servers.nats_url, cluster_name) as (a, b):
            told: list[str] = []
            answered = asyncio.Event()
            a.links.on_envelopes(lambda peer, envelopes: answered.set())
            b.links.on_envelopes(lambda peer, envelopes: told.extend(["got"] * len(envelopes)))

            def lull() -> None:
                told.append("lull")
                if told.count("got") == 100:
                    b.send("a", 1)

            b.links.on_lull(lull)
            for number in range(100):
                a.send("b", number)
            async with asyncio.timeout(10):
                await answered.wait()
            assert told[-1] == "lull"
            assert told.count("got") == 100
            assert told.count("lull") <= 5, "not for every frame or envelope"

    async def test_20000_envelopes_arrive_in_order_and_once_both_ways(
        self, servers: EmbeddedServers, cluster_name: str
    ) -> None:
        async with pair(servers.nats_url, cluster_name) as (a, b):
            for number in range(20_000):
                a.send("b", number, size=number % 50)
                b.send("a", number)
                if random.random() < 0.01:
                    await asyncio.sleep(0)
            await eventually(lambda: len(a.got) == len(b.got) == 20_000, within=15)
            assert a.got == b.got == list(range(20_000))
            assert a.down == b.down == []
            (stats,) = a.links.stats().links
            assert stats.envelopes_out == 20_000
            assert stats.frames_out < 5_000
            await eventually(lambda: a.links.stats().links[0].waiting_envelopes == 0)

    async def test_large_envelopes_go_alone_up_to_the_limit(self, servers: EmbeddedServers, cluster_name: str) -> None:
        async with pair(servers.nats_url, cluster_name) as (a, b):
            room = MAX_MESSAGE - len(pack(envelope(0, 70_000))) + 70_000
            for number in range(4):
                a.send("b", number, size=room - 10)
            with pytest.raises(MessageTooBig):
                a.send("b", 9, size=room + 10)
            await eventually(lambda: b.got == [0, 1, 2, 3])

    async def test_the_first_envelope_after_open_arrives(self, servers: EmbeddedServers, cluster_name: str) -> None:
        for trial in range(20):
            async with pair(servers.nats_url, f"{cluster_name}-{trial}") as (a, b):
                a.send("b", 1)
                await eventually(lambda b=b: b.got == [1], within=2)
                assert b.down == []

    async def test_a_frame_that_comes_before_the_watch_shows_its_sender_is_not_lost(
        self, servers: EmbeddedServers, cluster_name: str
    ) -> None:
        async with running(servers.nats_url, cluster_name, "a") as a, running(servers.nats_url, cluster_name, "b") as b:
            for node, epoch in (("a", 1), ("b", 2)):
                a.view.show(node, epoch)
            b.view.show("b", 2)
            b.view.applied = 0
            await b.links.open(2)
            await a.links.open(1)
            for number in range(3):
                a.send("b", number)
                await asyncio.sleep(0)
            await a.bus.data.flush()
            await b.bus.data.flush()
            assert b.got == []
            b.view.show("a", 1)
            await eventually(lambda: b.got == [0, 1, 2])
            assert a.down == b.down == []


class TestRefusal:
    async def test_an_unknown_node_is_unavailable_and_a_gone_one_is_down(
        self, servers: EmbeddedServers, cluster_name: str
    ) -> None:
        async with pair(servers.nats_url, cluster_name) as (a, _):
            with pytest.raises(Unavailable, match="no node 'c'"):
                a.send("c", 1)
            a.view.show("b", 0)
            with pytest.raises(NodeDown):
                a.send("b", 1)
            assert a.down == [("b", "node b is gone (epoch 2 ended)")]

    async def test_a_full_buffer_is_told_and_so_is_room(self, servers: EmbeddedServers, cluster_name: str) -> None:
        async with pair(servers.nats_url, cluster_name, Limits(max_envelopes=100)) as (a, b):
            told: list[tuple[str, bool]] = []
            a.links.on_congestion(lambda node, congested: told.append((node, congested)))
            for number in range(400):
                a.send("b", number)
            assert told == [("b", True)]
            assert a.links.stats().links[0].congested
            with pytest.raises(Unavailable, match="400 messages"):
                a.send("b", 400)
            await eventually(lambda: told == [("b", True), ("b", False)])
            a.send("b", 400)
            await eventually(lambda: b.got == list(range(401)))


class TestBrokenConnections:
    async def test_what_is_sent_while_nats_is_away_arrives_when_it_is_back(
        self, own_servers: EmbeddedServers, cluster_name: str
    ) -> None:
        async with pair(own_servers.nats_url, cluster_name) as (a, b):
            a.send("b", 1)
            await eventually(lambda: b.got == [1])
            await own_servers.nats.kill()
            await eventually(lambda: not a.bus.data.connected and not b.bus.data.connected)
            a.send("b", 2)
            b.send("a", 3)
            await own_servers.nats.start()
            await eventually(lambda: b.got == [1, 2] and a.got == [3], within=15)
            assert a.down == b.down == []

    async def test_killing_nats_again_and_again_under_load_loses_doubles_and_reorders_nothing(
        self, own_servers: EmbeddedServers, cluster_name: str
    ) -> None:
        async with pair(own_servers.nats_url, cluster_name) as (a, b):
            number = 0

            async def load(seconds: float) -> None:
                nonlocal number
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    if a.links.stats().links[0].congested or b.links.stats().links[0].congested:
                        await asyncio.sleep(0.01)
                        continue
                    for _ in range(20):
                        a.send("b", number)
                        b.send("a", number)
                        number += 1
                    await asyncio.sleep(0)

            for _ in range(3):
                await load(0.2)
                await own_servers.nats.kill()
                await load(0.2)
                await own_servers.nats.start()
                await load(0.5)
            expected = list(range(number))
            await eventually(lambda: len(a.got) >= number and len(b.got) >= number, within=20)
            assert a.got == expected
            assert b.got == expected
            assert a.down == b.down == []
            assert a.links.stats().links[0].resent > 0

    async def test_past_the_timeout_both_sides_close_and_are_told(
        self, own_servers: EmbeddedServers, cluster_name: str
    ) -> None:
        async with pair(own_servers.nats_url, cluster_name, Limits(timeout=1.0)) as (a, b):
            a.send("b", 1)
            await eventually(lambda: b.got == [1])
            await own_servers.nats.kill()
            a.send("b", 2)
            await eventually(lambda: a.down == [("b", "no acknowledgement from node b within 1 s")])
            await own_servers.nats.start()
            await eventually(lambda: b.down == [("a", "node a closed the link")], within=15)
            a.send("b", 3)
            await eventually(lambda: b.got == [1, 3])


class TestForgery:
    async def test_garbage_and_a_forged_sender_are_dropped_and_the_link_serves_on(
        self, servers: EmbeddedServers, cluster_name: str
    ) -> None:
        subjects = Subjects(cluster_name)
        async with pair(servers.nats_url, cluster_name) as (a, b):
            inbox = subjects.data("b", 2, "a")
            forged = wire.data(wire.head("c", 1, 2, 1), 1, 0, [pack(envelope(666))])
            for payload in (b"", b"\xc1garbage", b"[1,2,3]", forged):
                a.bus.data.publish(inbox, payload)
            a.bus.data.publish(subjects.data("b", 2, "a").replace(".data.a", ".data.=zz"), b"")
            a.send("b", 1)
            await eventually(lambda: b.got == [1])
            assert b.links.stats().dropped == {"malformed": 4, "forged sender": 1}
            assert b.down == []

    async def test_a_lost_frame_comes_again(self, servers: EmbeddedServers, cluster_name: str) -> None:
        async with pair(servers.nats_url, cluster_name) as (a, b):
            publish, lost = a.bus.data.publish, []

            def lossy(subject: str, payload: bytes) -> None:
                if random.random() < 0.2:
                    lost.append(payload)
                else:
                    publish(subject, payload)

            a.bus.data.publish = lossy  # type: ignore[method-assign, assignment]
            for number in range(2000):
                a.send("b", number)
                if number % 5 == 0:
                    await asyncio.sleep(0)
            await eventually(lambda: len(b.got) >= 2000, within=20)
            assert b.got == list(range(2000))
            assert lost
            assert b.links.stats().links[0].gaps > 0
            assert a.down == b.down == []


class TestRegistration:
    async def test_a_node_that_registers_anew_is_reachable_under_its_new_epoch(
        self, servers: EmbeddedServers, cluster_name: str
    ) -> None:
        async with pair(servers.nats_url, cluster_name) as (a, b):
            a.send("b", 1)
            await eventually(lambda: b.got == [1])
            b.links.end("own lease lost")
            with pytest.raises(Unavailable, match="not registered"):
                b.send("a", 2)
            a.view.show("b", 0)
            b.view.show("b", 5)
            await b.links.open(5)
            a.view.show("b", 5)
            a.send("b", 3)
            b.send("a", 4)
            await eventually(lambda: a.got == [4] and b.got == [1, 3])
            assert [peer for peer, _ in a.down] == ["b"]
            assert [peer for peer, _ in b.down] == ["a"]

    async def test_a_peer_that_was_declared_over_learns_it_by_reset(
        self, servers: EmbeddedServers, cluster_name: str
    ) -> None:
        async with pair(servers.nats_url, cluster_name) as (a, b):
            b.view.applied = 10
            b.view.show("a", 0)  # b's watch says a is gone; a does not know
            a.send("b", 1)
            await eventually(lambda: bool(a.down))
            assert a.down == [("b", "node b does not know this node's registration")]
            assert b.got == []
            with pytest.raises(Unavailable, match="reset"):
                a.send("b", 2)


async def test_what_a_slow_consumer_drops_comes_again(servers: EmbeddedServers, cluster_name: str) -> None:
    async with pair(servers.nats_url, cluster_name) as (a, b):
        subscription = b.links._subscription
        assert subscription is not None
        subscription._inner._pending_bytes_limit = 20_000
        for number in range(2_000):
            a.send("b", number, size=100)
        await eventually(lambda: b.bus.data.stats().slow_consumer_drops > 0)
        subscription._inner._pending_bytes_limit = 512 * 1024 * 1024
        await eventually(lambda: len(b.got) >= 2_000, within=20)
        assert b.got == list(range(2_000))
        assert a.down == b.down == []


PERMISSIONS = """
authorization {{
  users = [{users}]
}}
"""

USER = """
{{user: {n}, password: p, permissions: {{
  publish: ["{prefix}node.*.*.*.{n}", "{prefix}events.>", "{prefix}pid.>", "{prefix}inbox.>"],
  subscribe: ["{prefix}node.{n}.>", "{prefix}pid.{n}.>", "{prefix}events.>", "{prefix}inbox.{n}.>"]}}}}
"""


async def test_links_work_under_the_permissions_of_the_documentation_and_nobody_can_speak_for_another(
    binaries: None, tmp_path: Path, cluster_name: str
) -> None:
    prefix = Subjects(cluster_name).prefix
    config = tmp_path / "users.conf"
    users = "".join(USER.format(n=name, prefix=prefix) for name in ("a", "b"))
    config.write_text(PERMISSIONS.format(users=users))
    async with EmbeddedServers(nats_args=["-c", str(config)], with_etcd=False) as servers:
        async with pair(servers.nats_url, cluster_name, password="p") as (a, b):
            a.send("b", 1)
            b.send("a", 2)
            await eventually(lambda: a.got == [2] and b.got == [1])
            forged = wire.data(wire.head("b", 2, 2, 1), 2, 0, [pack(envelope(666))])
            a.bus.data.publish(Subjects(cluster_name).data("b", 2, "b"), forged)
            await a.bus.data.flush()
            await eventually(lambda: a.bus.data.stats().permission_errors == 1)
            a.send("b", 3)
            await eventually(lambda: b.got == [1, 3])
