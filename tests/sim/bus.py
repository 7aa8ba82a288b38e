"""Core NATS between the machines, as bad as it can be: frames are dropped, delayed, doubled and reordered.

Delivery is at most once to whoever subscribes at that moment. Frames on the way to a connection that breaks are
lost, and so may be those it has just sent. Between two connections that stand frames keep their order, unless the
seed says that this network does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from cluster.connection import Handler, Problem
from cluster.errors import NotConnected, Unavailable
from tests.sim.world import ProcessLoop, World

OUTBOX = 8 * 1024


@dataclass
class Weather:
    """What the network does to frames from one node to another now."""

    cut: int = 0
    """How many partitions are between them."""
    loss: float = 0.0


class Network:
    """All connections, and who subscribes what."""

    def __init__(self, world: World, unruly: bool) -> None:
        self.world = world
        self.unruly = unruly
        self.frames = 0
        self.lost = 0
        self._subscribed: dict[str, list[Subscription]] = {}
        self._weather: dict[tuple[str, str], Weather] = {}
        self._last: dict[tuple[int, int], float] = {}

    def weather(self, src: str, dst: str) -> Weather:
        return self._weather.setdefault((src, dst), Weather())

    def publish(self, src: Connection, subject: str, payload: bytes, wait: float) -> None:
        self.frames += 1
        for subscription in self._subscribed.get(subject.rpartition(".")[0] + ".*", ()):
            self._send(src, subscription, subject, payload, wait)

    def _send(self, src: Connection, to: Subscription, subject: str, payload: bytes, wait: float) -> None:
        random, weather = self.world.random, self.weather(src.node, to.connection.node)
        copies, delay = 1, wait + self.world.pick((0.0003, 0.0005, 0.001, 0.002))
        if self.unruly:
            chance = random.random()
            if chance < 0.04:
                copies = 2
            elif chance < 0.10:
                delay += self.world.pick((0.005, 0.05, 0.4))
        for _ in range(copies):
            if weather.cut or (weather.loss and random.random() < weather.loss):
                self.lost += 1
                continue
            arrival = self.world.now + delay
            if not self.unruly:
                way = (id(src), id(to.connection))
                arrival = self._last[way] = max(arrival, self._last.get(way, 0.0))
            self._travel(src, to, subject, payload, arrival - self.world.now)
            delay += self.world.pick((0.001, 0.3, 2.0))

    def _travel(self, src: Connection, to: Subscription, subject: str, payload: bytes, delay: float) -> None:
        dst = to.connection
        src_session, dst_session = src.session, dst.session
        # what had not left the sender's buffers when its connection broke is lost
        buffered = self.world.now + 0.02 if self.world.random.random() < 0.3 else 0.0

        def arrive() -> None:
            held = dst.session == dst_session and dst.connected and to in self._subscribed.get(to.subject, ())
            left = src.session == src_session or src.broke_at > buffered
            if held and left and not self.weather(src.node, dst.node).cut:
                to.handler(subject, "", payload, None)
            else:
                self.lost += 1

        self.world.after(delay, arrive, dst.loop)

    def attach(self, subscription: Subscription) -> None:
        self._subscribed.setdefault(subscription.subject, []).append(subscription)

    def detach(self, subscription: Subscription) -> None:
        here = self._subscribed.get(subscription.subject, [])
        if subscription in here:
            here.remove(subscription)


@dataclass(eq=False)
class Subscription:
    """As the product's: alive across reconnects until ``close``."""

    network: Network
    connection: Connection
    subject: str
    handler: Handler
    waiting: int = 0
    """What arrives is handed over at once."""

    async def close(self) -> None:
        self.network.detach(self)


@dataclass(eq=False)
class Connection:
    """What ``cluster.connection.Connection`` is to the links."""

    network: Network
    node: str
    loop: ProcessLoop
    rate: float = float("inf")
    """Bytes a second it can send."""
    connected: bool = True
    session: int = 0
    broke_at: float = float("inf")
    _busy_until: float = 0.0
    _back: list[Callable[[], None]] = field(default_factory=list)

    @property
    def _waiting(self) -> float:
        return max(self._busy_until - self.network.world.now, 0.0)

    @property
    def has_room(self) -> bool:
        return self._waiting * self.rate < OUTBOX if self._waiting else True

    def publish(self, subject: str, payload: bytes, reply: str = "", headers: dict[str, str] | None = None) -> None:
        if not self.connected:
            raise NotConnected("no connection")
        if not self.has_room:
            raise Unavailable("the outbox is full")
        if self.loop.dead:
            return
        self._busy_until = max(self._busy_until, self.network.world.now) + len(payload) / self.rate
        self.network.publish(self, subject, payload, self._waiting)

    async def subscribe(
        self, subject: str, handler: Handler, *, pending_msgs: int = 0, pending_bytes: int = 0
    ) -> Subscription:
        if not self.connected:
            raise NotConnected("no connection")
        session, subscription = self.session, Subscription(self.network, self, subject, handler)
        self.network.attach(subscription)
        try:
            await asyncio.sleep(0.002)
            if not self.connected or self.session != session:
                raise NotConnected("the connection broke")
        except BaseException:
            self.network.detach(subscription)
            raise
        return subscription

    def on_reconnect(self, handler: Callable[[], None]) -> None:
        self._back.append(handler)

    def on_problem(self, handler: Callable[[Problem], None]) -> None:
        pass

    def set_rate(self, rate: float) -> None:
        self.rate = rate
        self._busy_until = 0.0

    def break_off(self) -> None:
        """The connection is lost, and with it what is on the way."""
        if self.connected:
            self.connected = False
            self.session += 1
            self.broke_at = self.network.world.now

    def come_back(self) -> None:
        """Connected again, with all subscriptions; the process is told in its own time."""
        if not self.connected:
            self.connected = True
            self.broke_at = float("inf")
            self._busy_until = 0.0
            for handler in self._back:
                self.network.world.after(0.0, handler, self.loop)
