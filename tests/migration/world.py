"""Nodes with the real core of one process P, around virtual links and a virtual etcd; every step is one of many.

Each node has a kernel that runs P, freezes it and keeps its watchers, and processes that send to P. The checks: P runs
once; nobody's messages come twice or out of order; nobody hears of an end that was none. ``check_end`` adds what holds
when nothing is under way any more.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from random import Random
from typing import Any

from cluster.etcd import Put
from cluster.keys import Keys
from cluster.migration import MoveCore, Stamps
from cluster.migration.actions import (
    Action,
    Adopt,
    DeadLetter,
    Deliver,
    Drop,
    Finished,
    Fire,
    Freeze,
    Kill,
    Refuse,
    Resume,
    Send,
    TellWatchers,
    Verdict,
)
from cluster.migration.items import (
    Ask,
    Assertion,
    Flush,
    Flushed,
    Forwarded,
    Holding,
    LinkFlush,
    LinkFlushed,
    Luggage,
    Message,
    Parcel,
    Refused,
    Reserved,
    Watcher,
    Way,
)
from cluster.migration.transactions import Answer, Found, Read, Registration, Transact
from tests.migration.etcd import Event, Pending, VirtualEtcd
from tests.migration.links import VirtualLinks

KEYS = Keys("test")
UNIQ = "1-1"
MOVED, NAME = KEYS.moved_process(UNIQ), KEYS.name("p")
BIRTH = "A"


class Violation(AssertionError):
    """Something that must never be."""


@dataclass
class Body:
    """P, as its kernel has it."""

    log: dict[str, list[int]] = field(default_factory=dict)
    watchers: set[Watcher] = field(default_factory=set)
    words: int = 0
    sent_to: set[str] = field(default_factory=set)
    name_revision: int = 0


@dataclass
class Node:
    """One machine."""

    name: str
    core: MoveCore
    stamps: Stamps
    registration: Registration
    is_alive: bool = True
    in_doubt: bool = False
    """It has lost its lease, as far as it knows."""
    is_over: bool = False
    """It has seen that its registration ended."""
    body: Body | None = None
    runs: bool = False
    is_asked_to_freeze: bool = False
    is_killed: bool = False
    frozen_at: int | None = None
    """How often P had been adopted when it froze here."""
    cursor: int = 0
    applied: int = 0
    name_revision: int = 0
    sent: dict[str, int] = field(default_factory=dict)
    words: list[int] = field(default_factory=list)
    watches: set[Watcher] = field(default_factory=set)
    heard: list[Watcher] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)


class World:
    """Everything there is."""

    def __init__(self, random: Random, names: str, senders: int, watchers: str) -> None:
        self.random = random
        self.etcd = VirtualEtcd()
        self.trace: list[str] = []
        self.exited = self.died = self.faulty = self.lease_lost = self.renamed = False
        self.refused: list[Message] = []
        self.verdicts: list[Verdict] = []
        self.adopted = 0
        registrations = {name: self._register(name) for name in names}
        self.name_revision = self.etcd.put(Put(NAME, b"P", registrations[BIRTH].lease))
        epochs = {name: registration.epoch for name, registration in registrations.items()}
        self.links = VirtualLinks(random, epochs, self.link_closed)
        self.nodes = {name: self._node(name, registrations[name], senders) for name in names}
        body = self.nodes[BIRTH].body = Body(name_revision=self.name_revision)
        self.nodes[BIRTH].runs = True
        for name in watchers:
            watcher = Watcher(name, "w")
            body.watchers.add(watcher)
            self.nodes[name].watches.add(watcher)
            self.nodes[name].core.watch(watcher, asserted=True)

    def _register(self, name: str) -> Registration:
        lease = self.etcd.grant()
        return Registration(self.etcd.put(Put(KEYS.node(name), name.encode(), lease)), lease)

    def _node(self, name: str, registration: Registration, senders: int) -> Node:
        core = MoveCore(
            name, BIRTH, UNIQ, KEYS, registration, lambda peer: peer != name and self.links.views[name, peer].is_open
        )
        node = Node(name, core, Stamps(1), registration)
        node.cursor, node.applied, node.name_revision = len(self.etcd.log), self.etcd.revision, self.name_revision
        node.sent = {f"{name}{number}": 0 for number in range(senders)}
        return node

    # -- what a core asks for

    def perform(self, node: Node, actions: list[Action]) -> None:
        for action in actions:
            self._perform(node, action)

    def _perform(self, node: Node, action: Action) -> None:
        match action:
            case Send(peer, note):
                self.send(node, peer, note)
            case Deliver(item):
                self._deliver(node, item)
            case Refuse(Assertion() as assertion, _):
                self.send(node, assertion.watcher.node, ("answer", assertion, False))
            case Refuse(Message() as message, _) | DeadLetter(message):
                self.refused.append(message)
            case Freeze():
                node.is_asked_to_freeze = True
            case Resume():
                node.is_asked_to_freeze, node.runs = False, True
                self.check_one_runs()
                if node.frozen_at not in (None, self.adopted):
                    raise Violation(f"P runs on {node.name} again, from a state it had before it ran elsewhere")
                node.frozen_at = None
            case Drop():
                node.body, node.runs, node.frozen_at = None, False, None
            case Kill():
                node.is_killed = self.died = True
            case Adopt(parcel, revision):
                node.body, node.runs = copy.deepcopy(parcel.body), True
                assert node.body is not None
                node.body.sent_to, node.body.name_revision = set(), revision
                self.adopted += 1
                self.check_one_runs()
            case Fire(watcher, _):
                self._hear(node, watcher)
            case TellWatchers(watchers):
                self.tell(node, watchers)
            case Finished(verdict, _):
                self.verdicts.append(verdict)
            case Read() as read:
                node.answers.append(self.etcd.read(read))
            case Transact() as transact:
                self.etcd.pending.append(Pending(node.name, transact))

    def send(self, node: Node, peer: str, note: Any) -> bool:
        if peer == node.name:
            self.receive(node, peer, note)
            return True
        return self.links.send(node.name, peer, note)

    def tell(self, node: Node, watchers: frozenset[Watcher] | set[Watcher]) -> None:
        for watcher in sorted(watchers, key=lambda one: one.node):
            self.send(node, watcher.node, ("exit", watcher))

    def _deliver(self, node: Node, item: Any) -> None:
        if not node.runs or node.body is None:
            raise Violation(f"delivered on {node.name}, where P does not run")
        if isinstance(item, Assertion):
            node.body.watchers.add(item.watcher)
            self.send(node, item.watcher.node, ("answer", item, True))
            return
        if item.revision and item.revision != node.body.name_revision and item.revision <= node.applied:
            if not self.renamed:
                raise Violation(f"{item.envelope}: the name that went with P is stale")
            return
        sender, number = item.envelope
        log = node.body.log.setdefault(sender, [])
        if log and number <= log[-1]:
            raise Violation(f"P got {sender}-{number} after {sender}-{log[-1]}")
        log.append(number)

    def _hear(self, node: Node, watcher: Watcher) -> None:
        if watcher in node.heard:
            raise Violation(f"{node.name} heard twice that P ended")
        node.heard.append(watcher)
        if not (self.faulty or self.exited):
            raise Violation(f"{node.name} heard that P ended; it lives")

    def check_one_runs(self) -> None:
        running = [node.name for node in self.nodes.values() if node.is_alive and node.runs]
        if len(running) > 1:
            raise Violation(f"P runs on {running}")

    # -- what comes over a link

    def receive(self, node: Node, peer: str, note: Any) -> None:
        core = node.core
        match note:
            case Message() | Flush() | Assertion():
                actions = core.arrived(note, Way(peer) if peer != node.name else Way())
            case Forwarded(item, passed):
                actions = core.arrived(item, Way(peer, passed))
            case Flushed(flush):
                actions = core.flushed(peer, flush)
            case LinkFlush(number):
                actions = core.link_flush(peer, number)
            case LinkFlushed(number):
                actions = core.link_flushed(peer, number)
            case Ask(attempt):
                actions = core.asked(peer, attempt)
            case Reserved(attempt):
                actions = core.reserved(peer, attempt)
            case Refused(attempt, reason):
                actions = core.refused(peer, attempt, reason)
            case Parcel():
                actions = core.parcel_arrived(peer, note)
            case ("answer", assertion, alive):
                actions = core.answer_assertion(assertion, alive)
            case ("exit", watcher):
                actions = core.exit_heard(watcher)
            case ("word", word):
                if node.words and word <= node.words[-1]:
                    raise Violation(f"{node.name} got word {word} of P after {node.words[-1]}")
                node.words.append(word)
                actions = []
            case _:
                actions = []
        self.perform(node, actions)

    def link_closed(self, name: str, peer: str) -> None:
        node = self.nodes[name]
        self._forget_watchers(node, peer)
        self.perform(node, node.core.link_closed(peer))

    @staticmethod
    def _forget_watchers(node: Node, peer: str) -> None:
        if node.body is not None:
            node.body.watchers = {watcher for watcher in node.body.watchers if watcher.node != peer}

    # -- what the watch of a node shows

    def watch_event(self, node: Node, event: Event) -> None:
        node.applied = event.revision
        if event.key == MOVED and event.value is not None:
            self.perform(node, node.core.moved_seen(Found(event.value.decode(), event.revision)))
        elif event.key == NAME:
            node.name_revision = event.revision if event.value == b"P" else 0
        elif event.key.startswith(KEYS.nodes):
            self._registration_event(node, event.key.removeprefix(KEYS.nodes), event)

    def relist(self, node: Node) -> None:
        """The watch was interrupted: the node sees what there is now, and which registrations are others'."""
        missed, node.cursor = self.etcd.log[node.cursor :], len(self.etcd.log)
        moved = [event for event in missed if event.key == MOVED]
        for event in [*moved[-1:], *(event for event in missed if event.key != MOVED)]:
            self.watch_event(node, event)
        node.applied = self.etcd.revision
        self.perform(node, node.core.relisted())

    def _registration_event(self, node: Node, peer: str, event: Event) -> None:
        if peer == node.name:
            if event.value is None:
                self._own_end(node)
            return
        view = self.links.views[node.name, peer]
        if event.value is None:
            view.peer = 0
            self._forget_watchers(node, peer)
            self.perform(node, node.core.epoch_ended(peer))
            return
        view.peer, view.n = event.revision, 1
        if view.is_open:
            self.perform(node, node.core.link_opened(peer))

    def _own_end(self, node: Node) -> None:
        node.is_over = True
        for peer in self.nodes:
            if peer != node.name:
                view = self.links.views[node.name, peer]
                was_open, view.own = view.is_open, 0
                if was_open:
                    self.link_closed(node.name, peer)

    def register_again(self, node: Node) -> None:
        node.registration = self._register(node.name)
        node.in_doubt = node.is_over = False
        for peer in self.nodes:
            if peer != node.name:
                view = self.links.views[node.name, peer]
                view.own, view.n = node.registration.epoch, 1
        self.perform(node, node.core.registered(node.registration))
        for peer in self.nodes:
            if peer != node.name and self.links.views[node.name, peer].is_open:
                self.perform(node, node.core.link_opened(peer))

    # -- what happens on a node

    def send_message(self, node: Node, sender: str, by_name: bool) -> None:
        node.sent[sender] += 1
        revision = node.name_revision if by_name else 0
        self.perform(
            node, node.core.arrived(Message(node.name, node.stamps.next(), (sender, node.sent[sender]), revision))
        )

    def say_word(self, node: Node, listener: str) -> None:
        assert node.body is not None
        node.body.words += 1
        if listener != node.name:
            node.body.sent_to.add(listener)
        self.send(node, listener, ("word", node.body.words))

    def freeze(self, node: Node) -> None:
        body = node.body
        assert body is not None
        node.is_asked_to_freeze, node.runs, node.frozen_at = False, False, self.adopted
        holdings = (Holding(NAME, b"P", body.name_revision),)
        luggage = Luggage(copy.deepcopy(body), frozenset(body.watchers), frozenset(body.sent_to), holdings)
        self.perform(node, node.core.frozen(luggage))

    def end_process(self, node: Node) -> None:
        body = node.body
        assert body is not None
        node.body, node.runs, node.is_asked_to_freeze, node.is_killed = None, False, False, False
        self.tell(node, body.watchers)
        self.perform(node, node.core.exited())
        if (kept := self.etcd.keys.get(NAME)) is not None and kept.value == b"P":
            del self.etcd.keys[NAME]

    def watch_late(self, node: Node) -> None:
        watcher = Watcher(node.name, "w")
        node.watches.add(watcher)
        self.perform(node, node.core.watch(watcher))

    def crash(self, node: Node) -> None:
        self.faulty = self.lease_lost = True
        self.died = self.died or self._holds(node)
        node.is_alive = node.runs = False
        node.body = None
        node.watches.clear()
        for peer in self.nodes:
            if peer != node.name:
                self.links.lose(node.name, peer)
                self.links.queues[peer, node.name].clear()

    def lose_lease(self, node: Node) -> None:
        """Its deadline is over: what it owns ends now. Its links go on until its registration ends."""
        self.faulty = self.lease_lost = node.in_doubt = True
        departure = node.core.departure
        is_safe = departure is not None and departure.is_frozen and not departure.is_sent and not node.core.is_guest
        self.died = self.died or (self._holds(node) and not (is_safe or node.runs))
        self.perform(node, node.core.lease_lost())

    def _holds(self, node: Node) -> bool:
        """Whether P ends with the node: it is there, or on its way there for good."""
        found = self.etcd.found(MOVED)
        is_elsewhere = not node.runs and found is not None and found.node != node.name
        may_come = any(pending.node == node.name for pending in self.etcd.pending)
        has_parcel = node.core.arrival is not None and node.core.arrival.has_parcel
        return (node.body is not None and not is_elsewhere) or (
            has_parcel and (may_come or (found is not None and found.node == node.name))
        )

    # -- what must hold in the end

    def check_end(self) -> None:
        alive = [node for node in self.nodes.values() if node.is_alive]
        running = [node for node in alive if node.runs]
        for node in alive:
            self._check_nothing_waits(node)
        if not running and not self.exited and not self.died:
            raise Violation("P runs nowhere, and nothing that held it ended")
        if running:
            self._check_running(running[0], alive)
        elif MOVED in self.etcd.keys:
            raise Violation(f"P has ended, moved/P stays {self.etcd.found(MOVED)}")
        for node in alive:
            for watcher in node.watches:
                self._check_watcher(node, watcher, running[0] if running else None)

    @staticmethod
    def _check_nothing_waits(node: Node) -> None:
        core = node.core
        if core.departure is not None:
            raise Violation(f"{node.name} leaves for ever: {core.departure.step}")
        if core.arrival is not None:
            raise Violation(f"{node.name} keeps a state for ever: {core.arrival.stage}")
        if core.redirect.pending is not None or len(core.redirect):
            raise Violation(f"{node.name} waits for ever for {core.redirect.pending}, {len(core.redirect)} held")
        if core.relaying:
            raise Violation(f"{node.name} keeps {core.relaying} relays for ever")

    def _check_running(self, place: Node, alive: list[Node]) -> None:
        body = place.body
        assert body is not None
        if not self.faulty:
            for node in alive:
                for sender, count in node.sent.items():
                    got = body.log.get(sender, [])
                    if got != list(range(1, count + 1)) and not self.renamed:
                        raise Violation(f"lost without a fault: P has {got} of {count} from {sender}")
            words = sorted(word for node in alive for word in node.words)
            if words != list(range(1, body.words + 1)):
                raise Violation(f"lost without a fault: {words} of {body.words} words of P")
        found, name = self.etcd.found(MOVED), self.etcd.keys.get(NAME)
        if place.name != BIRTH and (found is None or found.node != place.name):
            raise Violation(f"P runs on {place.name}, moved/P is {found}")
        if self.renamed and (name is None or name.value != b"Z"):
            raise Violation("the name was taken from Z")
        is_named = name is not None and name.lease == place.registration.lease
        if not (self.renamed or self.lease_lost or is_named):
            raise Violation(f"P runs on {place.name}, its name does not")

    def _check_watcher(self, node: Node, watcher: Watcher, place: Node | None) -> None:
        has_heard = watcher in node.heard
        if place is None and not has_heard:
            raise Violation(f"{node.name} never hears that P ended")
        if place is None or has_heard:
            return
        assert place.body is not None
        if watcher not in place.body.watchers:
            raise Violation(f"P runs on {place.name} and does not know its watcher on {node.name}")
        if node.core.redirect.route != place.name and node is not place:
            raise Violation(f"P runs on {place.name}, its watcher on {node.name} looks at {node.core.redirect.route}")
