"""The event bus between two nodes over a real nats-server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import msgpack
import pytest
import pytest_asyncio

from cluster.bus import Bus
from cluster.embedded import EmbeddedServers
from cluster.errors import MessageTooBig, NotConnected
from cluster.events import Event, EventBus, Listening
from cluster.subjects import Subjects
from tests.waiting import eventually

pytestmark = pytest.mark.servers


@dataclass
class Heard:
    """A subscriber's events."""

    events: list[Event] = field(default_factory=list)
    listening: Listening | None = None

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


async def hear(bus: EventBus, system: str, kind: str | None = None) -> Heard:
    heard = Heard()
    heard.listening = await bus.subscribe(system, kind, heard.events.append)
    return heard


@dataclass
class TwoNodes:
    a: EventBus
    b: EventBus
    bus_a: Bus
    subjects: Subjects


@pytest_asyncio.fixture
async def nodes(servers: EmbeddedServers, cluster_name: str) -> AsyncIterator[TwoNodes]:
    subjects = Subjects(cluster_name)
    async with Bus([servers.nats_url], name="a", inbox=subjects.inbox("a")) as bus_a:
        async with Bus([servers.nats_url], name="b", inbox=subjects.inbox("b")) as bus_b:
            a = EventBus(bus_a.data, subjects, "a", 1)
            b = EventBus(bus_b.data, subjects, "b", 2)
            yield TwoNodes(a, b, bus_a, subjects)


async def test_an_event_reaches_every_subscriber_on_all_nodes_once(nodes: TwoNodes) -> None:
    wanted = [
        ("orders", None),
        ("orders", "order.created"),
        ("orders", "order.*"),
        ("ord(ers|inal)", None),
        ("**", "**"),
    ]
    everyone = [await hear(bus, *what) for bus in (nodes.a, nodes.b) for what in wanted]
    nodes.a.send("orders", "order.created", "/orders/1", {b"total": 5})
    await eventually(lambda: all(heard.events for heard in everyone))
    nodes.b.send("orders", "order.created", "/orders/2")
    await eventually(lambda: all(len(heard.events) > 1 for heard in everyone))
    for heard in everyone:
        assert heard.events == [
            Event("orders", "order.created", "/orders/1", {b"total": 5}),
            Event("orders", "order.created", "/orders/2", None),
        ]


async def test_who_does_not_match_hears_nothing(nodes: TwoNodes) -> None:
    others = [await hear(nodes.b, *what) for what in (("users", None), ("orders", "order.paid"), ("orders.*", None))]
    all_of_them = await hear(nodes.b, "**")
    nodes.a.send("orders", "order.created", "/1")
    await eventually(lambda: bool(all_of_them.events))
    assert [heard.events for heard in others] == [[], [], []]


async def test_dotted_systems_and_wild_names_do_not_leave_their_subject(nodes: TwoNodes) -> None:
    dotted = await hear(nodes.b, "app.orders")
    wild = await hear(nodes.b, "*")
    nodes.a.send("app.orders", "a > b.*", "/1")
    await eventually(lambda: bool(dotted.events))
    assert dotted.kinds == ["a > b.*"]
    assert wild.events == []


async def test_local_events_stay_on_their_node(nodes: TwoNodes) -> None:
    here, there = await hear(nodes.a, "registry"), await hear(nodes.b, "registry")
    nodes.a.send_local("registry", "entry.update", "app:x")
    nodes.a.send("registry", "marker", "/")
    await eventually(lambda: bool(there.events))
    assert here.kinds == ["entry.update", "marker"]
    assert there.kinds == ["marker"]


async def test_a_closed_subscriber_hears_nothing_and_the_others_go_on(nodes: TwoNodes) -> None:
    first, second = await hear(nodes.b, "orders"), await hear(nodes.b, "orders")
    assert first.listening is not None
    await first.listening.close()
    await first.listening.close()
    nodes.a.send("orders", "one", "/")
    await eventually(lambda: bool(second.events))
    assert second.listening is not None
    await second.listening.close()
    again = await hear(nodes.b, "orders")
    nodes.a.send("orders", "two", "/")
    await eventually(lambda: again.kinds == ["two"])
    assert first.events == []
    assert second.kinds == ["one"]


async def test_subscribing_at_the_same_time_makes_all_of_them_hear(nodes: TwoNodes) -> None:
    everyone = await asyncio.gather(*(hear(nodes.b, "orders") for _ in range(10)))
    nodes.a.send("orders", "one", "/")
    await eventually(lambda: all(heard.kinds == ["one"] for heard in everyone))


async def test_subscribers_that_come_and_go_at_the_same_time_never_miss_an_event(nodes: TwoNodes) -> None:
    for trial in range(20):
        leaving = await hear(nodes.b, "orders")
        assert leaving.listening is not None
        _, staying = await asyncio.gather(leaving.listening.close(), hear(nodes.b, "orders"))
        nodes.a.send("orders", str(trial), "/")
        await eventually(lambda h=staying, t=trial: h.kinds == [str(t)])
        assert staying.listening is not None
        await staying.listening.close()
    assert nodes.b.stats().subscribers == 0


async def test_events_from_outside_that_are_none_are_dropped_and_counted(nodes: TwoNodes) -> None:
    heard = await hear(nodes.b, "orders")
    subject = nodes.subjects.event("orders", "created")
    right = ["x", 1, "orders", "created", "/", None]
    forged = [right[:5], ["x", 1, "users", *right[3:]], ["x", 1, "orders", "created", "", None]]
    for payload in (b"", b"\xc1", msgpack.packb({}), *map(msgpack.packb, forged)):
        nodes.bus_a.data.publish(subject, payload)
    nodes.bus_a.data.publish(subject, msgpack.packb(right))
    await eventually(lambda: bool(heard.events))
    assert heard.events == [Event("orders", "created", "/", None)]
    assert nodes.b.stats().malformed == 6


async def test_a_failing_listener_does_not_keep_the_others_from_hearing(nodes: TwoNodes) -> None:
    def failing(event: Event) -> None:
        raise RuntimeError("this listener is broken")

    await nodes.b.subscribe("orders", None, failing)
    heard = await hear(nodes.b, "orders")
    nodes.a.send("orders", "one", "/")
    await eventually(lambda: heard.kinds == ["one"])
    assert nodes.b.stats().listener_errors == 1


@pytest.mark.parametrize(
    ("system", "kind", "path"), [("", "k", "p"), ("s", "", "p"), ("s", "k", ""), ("s", "k" * 256, "p")]
)
async def test_an_event_with_a_missing_or_overlong_name_is_refused(
    nodes: TwoNodes, system: str, kind: str, path: str
) -> None:
    with pytest.raises(ValueError, match="1 to 255 bytes"):
        nodes.a.send(system, kind, path)


async def test_an_oversize_event_is_refused(nodes: TwoNodes) -> None:
    with pytest.raises(MessageTooBig):
        nodes.a.send("orders", "big", "/", b"x" * 1_000_000)


async def test_while_nats_is_away_nobody_has_the_event(own_servers: EmbeddedServers, cluster_name: str) -> None:
    subjects = Subjects(cluster_name)
    async with Bus([own_servers.nats_url], name="a", inbox=subjects.inbox("a")) as bus:
        events = EventBus(bus.data, subjects, "a", 1)
        heard = await hear(events, "orders")
        await own_servers.nats.kill()
        await eventually(lambda: not bus.data.connected)
        with pytest.raises(NotConnected):
            events.send("orders", "lost", "/")
        assert heard.events == []
