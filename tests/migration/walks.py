"""Random walks through a world: some steps in which anything may happen, then only what has to, until nothing is left.

A walk is its scenario and a seed, nothing else: the same twice gives the same steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import TypeAlias

from cluster.etcd import Put
from cluster.migration.actions import Action
from cluster.migration.transactions import Answer, Outcome
from tests.migration.etcd import Pending
from tests.migration.world import KEYS, NAME, Node, Violation, World

LIMIT = 4000
"""Steps a walk takes at most until nothing is under way."""


@dataclass(frozen=True)
class Scenario:
    """What there is, and how often each thing may happen. ``path``: where P moves, one letter for each move."""

    name: str
    nodes: str = "ABC"
    path: str = "B"
    attempts: int = 1
    senders: str = ""
    messages: int = 0
    per_node: int = 1
    words: int = 0
    watchers: str = ""
    late: str = ""
    by_name: float = 0.0
    unknown: int = 0
    closes: int = 0
    crashes: str = ""
    lapses: str = ""
    failures: int = 0
    exits: int = 0
    renames: int = 0
    relists: int = 0
    slow: tuple[str, ...] = ()
    """Links ("CA": from C to A), watches ("C") and etcd that may be slow in a walk."""
    deadlines: float = 0.02
    """How likely a timer is the next step."""
    rate: float = 0.06
    """How likely a fault or an exit is."""
    steps: int = 70

    def __str__(self) -> str:
        return self.name


Choice: TypeAlias = tuple[str, Callable[[], None]]


class Walk:
    """One walk."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.random = Random(seed)
        self.world = World(self.random, scenario.nodes, scenario.per_node, scenario.watchers)
        self.left = {
            "unknown": scenario.unknown,
            "close": scenario.closes,
            "failure": scenario.failures,
            "exit": scenario.exits,
            "rename": scenario.renames,
            "attempt": scenario.attempts,
            "word": scenario.words,
            "message": scenario.messages,
            "late": len(scenario.late),
            "relist": scenario.relists,
        }
        self.laziness = self.random.random()
        self.slow = ["late", *(slow for slow in scenario.slow if self.random.random() < 0.7)]

    def run(self) -> World:
        """Raises Violation, with the steps that led there."""
        try:
            for _ in range(self.scenario.steps):
                must, may, timers, faults = self._must(), self._may(), self._timers(), self._faults()
                if timers and self.random.random() < self.scenario.deadlines:
                    self._do(timers)
                elif faults and self.random.random() < self.scenario.rate:
                    self._do(faults)
                elif may and (not must or self.random.random() < 0.1 + 0.4 * self.laziness):
                    self._do(may)
                elif must:
                    self._do(must)
                elif not faults and self.slow == ["late"]:
                    break
            self.slow = []
            self._settle()
            self.world.check_end()
        except Violation as violation:
            raise Violation(f"{violation}\n  " + "\n  ".join(self.world.trace)) from None
        return self.world

    def follow(self, *steps: str) -> World:
        """Take the steps that begin so (several with semicolons between), then all that has to happen."""
        self.slow = []
        labels = [label.strip() for step in steps for label in step.split(";")]
        try:
            for label in labels:
                choices = [*self._must(), *self._may(), *self._timers(), *self._faults()]
                fitting = [choice for choice in choices if choice[0].startswith(label)]
                assert fitting, f"{label!r} is none of {[name for name, _ in choices]} after {self.world.trace}"
                self._do(fitting[:1])
            self._settle()
            self.world.check_end()
        except Violation as violation:
            raise Violation(f"{violation}\n  " + "\n  ".join(self.world.trace)) from None
        return self.world

    def _settle(self) -> None:
        for _ in range(LIMIT):
            must, timers = self._must(), self._timers()
            if timers and (not must or self.random.random() < 0.01):
                self._do(timers)
            elif must:
                self._do(must)
            else:
                return
        raise Violation("it never ends")

    def _do(self, choices: list[Choice]) -> None:
        label, happen = self.random.choice(choices)
        self.world.trace.append(label)
        happen()

    def _spend(self, what: str, happen: Callable[[], None]) -> Callable[[], None]:
        def spend() -> None:
            self.left[what] -= 1
            happen()

        return spend

    # -- what has to happen sooner or later

    def _must(self) -> list[Choice]:
        world, choices = self.world, list[Choice]()
        alive = [node for node in world.nodes.values() if node.is_alive]
        for node in alive:
            choices += self._node_must(node)
            for peer in world.nodes:
                if (
                    peer != node.name
                    and world.links.is_ready(peer, node.name, node.applied)
                    and self._now(peer + node.name)
                ):
                    choices.append((f"{peer}->{node.name}", self._taking(node, peer)))
        for node in world.nodes.values():
            if node.registration.lease in world.etcd.leases and (not node.is_alive or node.in_doubt):
                choices.append((f"lease of {node.name} ends", self._expiring(node)))
        for pending in world.etcd.pending:
            if not self._now("etcd") or (not pending.asked and choices and not self._now("late")):
                continue
            choices.append((f"etcd applies {pending.transact.request} of {pending.node}", self._applying(pending)))
            if not pending.asked:
                choices.append(
                    (f"{pending.transact.request} of {pending.node} is never applied", self._dropping(pending))
                )
        return choices

    def _now(self, link: str) -> bool:
        return link not in self.slow or self.random.random() < 0.05

    def _node_must(self, node: Node) -> list[Choice]:
        world, choices = self.world, list[Choice]()
        if node.cursor < len(world.etcd.log) and self._now(node.name):
            choices.append((f"{node.name} sees {world.etcd.log[node.cursor]}", self._watching(node)))
        if node.answers:
            choices.append((f"{node.name} hears {node.answers[0]}", self._answering(node)))
        if node.is_asked_to_freeze and node.runs:
            choices.append((f"P freezes on {node.name}", lambda: world.freeze(node)))
        if node.is_killed:
            choices.append((f"P is killed on {node.name}", lambda: world.end_process(node)))
        if node.is_over:
            choices.append((f"{node.name} registers again", lambda: world.register_again(node)))
        elif node.in_doubt and not node.is_killed and node.registration.lease in world.etcd.leases:
            choices.append((f"the lease of {node.name} answers again", self._recovering(node)))
        return choices

    def _taking(self, node: Node, peer: str) -> Callable[[], None]:
        def take() -> None:
            note = self.world.links.take(peer, node.name)
            self.world.trace[-1] += f" {note}"
            if note is not None:
                self.world.receive(node, peer, note)

        return take

    def _expiring(self, node: Node) -> Callable[[], None]:
        return lambda: self.world.etcd.end_lease(node.registration.lease)

    def _recovering(self, node: Node) -> Callable[[], None]:
        def recover() -> None:
            node.in_doubt = False
            self.world.perform(node, node.core.registered(node.registration))

        return recover

    def _watching(self, node: Node) -> Callable[[], None]:
        def watch() -> None:
            event = self.world.etcd.log[node.cursor]
            node.cursor += 1
            self.world.watch_event(node, event)

        return watch

    def _answering(self, node: Node) -> Callable[[], None]:
        return lambda: self.world.perform(node, node.core.answered(node.answers.pop(0)))

    def _applying(self, pending: Pending) -> Callable[[], None]:
        def apply() -> None:
            etcd, node = self.world.etcd, self.world.nodes[pending.node]
            etcd.pending.remove(pending)
            answer = etcd.apply(pending.transact)
            self.world.trace[-1] += f": {pending.transact.success[0]} {answer.outcome}"
            if pending.asked and node.is_alive:
                node.answers.append(answer)

        return apply

    def _dropping(self, pending: Pending) -> Callable[[], None]:
        return lambda: self.world.etcd.pending.remove(pending)

    # -- what happens when time passes

    def _timers(self) -> list[Choice]:
        world, choices = self.world, list[Choice]()
        for node in world.nodes.values():
            if not node.is_alive:
                continue
            core = node.core
            if core.departure is not None and core.departure.step.value != "aborting":
                choices.append((f"deadline on {node.name}", self._performing(node, core.deadline)))
            if core.arrival is not None and not core.arrival.has_parcel:
                choices.append((f"reservation on {node.name} ends", self._performing(node, core.expire_reservation)))
            if core.watches.unanswered and core.redirect.pending is None:
                choices.append((f"{node.name} asserts again", self._performing(node, core.assert_again)))
        return choices

    def _performing(self, node: Node, event: Callable[[], list[Action]]) -> Callable[[], None]:
        return lambda: self.world.perform(node, event())

    # -- what may happen

    def _may(self) -> list[Choice]:
        world, scenario, choices = self.world, self.scenario, list[Choice]()
        alive = [node for node in world.nodes.values() if node.is_alive]
        for node in alive:
            if self.left["message"] and node.name in scenario.senders:
                choices.append((f"a message from {node.name}", self._spend("message", partial(self._send, node))))
            if node.runs and not node.is_killed:
                choices += self._process_may(node)
            if self.left["late"] and node.name in scenario.late and not node.watches:
                choices.append((f"{node.name} watches", self._spend("late", partial(world.watch_late, node))))
        return choices

    def _send(self, node: Node) -> None:
        sender = self.random.choice(sorted(node.sent))
        by_name = self.random.random() < self.scenario.by_name and node.name_revision > 0
        self.world.trace[-1] += f" {sender}-{node.sent[sender] + 1}{' by name' if by_name else ''}"
        self.world.send_message(node, sender, by_name)

    def _process_may(self, node: Node) -> list[Choice]:
        world, choices = self.world, list[Choice]()
        if self.left["word"]:
            choices.append((f"P on {node.name} says a word", self._spend("word", lambda: world.say_word(node, "C"))))
        path = self.scenario.path
        if self.left["attempt"] and world.adopted < len(path) and node.core.departure is None and not world.exited:
            to = path[world.adopted]
            leave = self._spend("attempt", lambda: self._leave(node, to))
            may_leave = node.core.redirect.pending is None or self.random.random() < 0.1
            if to != node.name and may_leave:
                choices.append((f"P is to move from {node.name} to {to}", leave))
        return choices

    def _leave(self, node: Node, to: str) -> None:
        self.world.perform(node, node.core.leave(to))
        if node.core.departure is None:  # refused at once: that is no attempt
            self.left["attempt"] += 1

    def _exit(self, node: Node) -> None:
        self.world.exited = True
        self.world.end_process(node)

    def _unknown(self) -> list[Choice]:
        etcd, choices = self.world.etcd, list[Choice]()
        for pending in etcd.pending:
            if pending.asked and self.world.nodes[pending.node].is_alive:
                name = f"{pending.transact.request} of {pending.node}"
                choices.append((f"{name} times out", self._spend("unknown", partial(self._time_out, pending))))
                choices.append((f"{name} is applied, unheard", self._spend("unknown", partial(self._lose, pending))))
        return choices

    def _time_out(self, pending: Pending) -> None:
        etcd = self.world.etcd
        etcd.pending[etcd.pending.index(pending)] = replace(pending, asked=False)
        node = self.world.nodes[pending.node]
        node.answers.append(Answer(pending.transact.request, Outcome.UNKNOWN))

    def _lose(self, pending: Pending) -> None:
        self._time_out(pending)
        self.world.etcd.pending.remove(replace(pending, asked=False))
        self.world.etcd.apply(pending.transact)

    # -- faults, and ends

    def _faults(self) -> list[Choice]:
        world, scenario, choices = self.world, self.scenario, list[Choice]()
        alive = [node for node in world.nodes.values() if node.is_alive]
        if self.left["unknown"]:
            choices += self._unknown()
        if self.left["close"]:
            pairs = [
                (a.name, b.name)
                for a in alive
                for b in alive
                if a is not b and world.links.views[a.name, b.name].is_open
            ]
            choices += [(f"{a} closes its link to {b}", self._spend("close", self._closing(a, b))) for a, b in pairs]
        for node in alive:
            if self.left["relist"] and node.cursor < len(world.etcd.log):
                choices.append((f"{node.name} lists anew", self._spend("relist", partial(world.relist, node))))
            if self.left["exit"] and node.runs and not node.is_killed and not world.exited:
                choices.append((f"P exits on {node.name}", self._spend("exit", partial(self._exit, node))))
        if self.left["failure"]:
            for node in alive:
                if node.name in scenario.crashes:
                    choices.append((f"{node.name} crashes", self._spend("failure", partial(world.crash, node))))
                if node.name in scenario.lapses and not node.in_doubt:
                    lapse = self._spend("failure", partial(world.lose_lease, node))
                    choices.append((f"{node.name} loses its lease", lapse))
        if self.left["rename"] and NAME in world.etcd.keys:
            choices.append(("the name goes to Z", self._spend("rename", self._rename)))
        return choices

    def _closing(self, a: str, b: str) -> Callable[[], None]:
        def close() -> None:
            self.world.faulty = True
            self.world.links.close(a, b)

        return close

    def _rename(self) -> None:
        self.world.renamed = True
        lease = self.world.etcd.keys[KEYS.node("A")].lease if KEYS.node("A") in self.world.etcd.keys else 0
        self.world.etcd.put(Put(NAME, b"Z", lease))


SCENARIOS = (
    Scenario("messages", senders="C", messages=5, words=3, unknown=1),
    Scenario("many senders", senders="ABC", messages=8, per_node=2, words=2, unknown=1),
    Scenario("unknown", senders="C", messages=3, words=2, unknown=4, attempts=4, rate=0.15, deadlines=0.06),
    Scenario(
        "slow etcd",
        senders="C",
        messages=3,
        unknown=3,
        attempts=4,
        rate=0.2,
        deadlines=0.1,
        slow=("etcd", "A"),
        steps=120,
    ),
    Scenario(
        "guest lapse", nodes="ABC", path="BC", attempts=4, lapses="B", failures=1, unknown=1, deadlines=0.02, rate=0.03
    ),
    Scenario("at the target", nodes="AB", senders="B", messages=5, unknown=1, slow=("AB", "BA")),
    Scenario("at both", nodes="AB", senders="AB", messages=6, unknown=1, closes=1),
    Scenario("closes", senders="C", messages=4, words=2, closes=2),
    Scenario("closes out", senders="C", messages=1, words=4, closes=1, slow=("AC",)),
    Scenario("crash", senders="C", messages=3, words=2, unknown=1, crashes="ABC", failures=1),
    Scenario("late crash", senders="C", messages=2, crashes="B", failures=1, slow=("A",), rate=0.1, deadlines=0.05),
    Scenario("lapse", senders="C", messages=3, words=2, unknown=1, lapses="ABC", failures=1, attempts=2),
    Scenario("watch", watchers="C", unknown=2, exits=1, attempts=2),
    Scenario("watch at both", watchers="AB", unknown=1, exits=1, closes=1, crashes="AB", failures=1),
    Scenario("watch crash", watchers="C", unknown=1, exits=1, crashes="AB", failures=2, relists=1, slow=("C", "A")),
    Scenario("watch closes", watchers="C", unknown=1, exits=1, closes=2, crashes="AB", failures=1, relists=1),
    Scenario("watch lapse", watchers="C", unknown=1, exits=1, lapses="ABC", failures=1),
    Scenario("late watch", late="C", unknown=1, exits=1, closes=2, crashes="AB", failures=1, relists=1, slow=("C",)),
    Scenario("rename", unknown=1, renames=1, senders="C", messages=3, by_name=0.5),
    Scenario("by name", senders="ABC", messages=6, by_name=0.5, unknown=1),
    Scenario("by name chain", nodes="ABCD", path="BD", attempts=3, senders="C", messages=8, by_name=0.6, deadlines=0.0),
    Scenario("back", path="BA", attempts=2, senders="CA", messages=8, deadlines=0.0, slow=("C", "AB", "BA")),
    Scenario(
        "back and forth",
        nodes="AB",
        path="BABA",
        attempts=5,
        senders="AB",
        messages=10,
        deadlines=0.0,
        slow=("AB", "BA"),
        steps=160,
    ),
    Scenario(
        "back closes",
        path="BAB",
        attempts=4,
        senders="AC",
        messages=6,
        closes=2,
        deadlines=0.01,
        slow=("CA",),
        steps=100,
    ),
    Scenario("back watch", path="BA", attempts=3, watchers="ABC", exits=1, crashes="AB", failures=1, closes=1),
    Scenario(
        "chain", nodes="ABCD", path="BD", attempts=3, senders="AC", messages=6, words=2, unknown=1, deadlines=0.01
    ),
    Scenario("chain closes", nodes="ABCD", path="BD", attempts=3, senders="C", messages=5, closes=2, deadlines=0.02),
    Scenario(
        "chain watch",
        nodes="ABCD",
        path="BD",
        attempts=3,
        watchers="AC",
        exits=1,
        crashes="ABD",
        failures=2,
        relists=1,
        slow=("C",),
    ),
    Scenario(
        "ring",
        nodes="ABCD",
        path="BDA",
        attempts=4,
        senders="ACB",
        messages=9,
        deadlines=0.0,
        slow=("AB", "B"),
        steps=140,
    ),
    Scenario(
        "ring faults",
        nodes="ABCD",
        path="BDAB",
        attempts=6,
        senders="AC",
        messages=6,
        watchers="CA",
        closes=2,
        crashes="BD",
        lapses="ABCD",
        failures=2,
        unknown=2,
        exits=1,
        words=3,
        deadlines=0.02,
        rate=0.03,
        steps=160,
    ),
    Scenario(
        "everything",
        nodes="ABCD",
        path="BDBA",
        attempts=6,
        senders="ABCD",
        messages=8,
        watchers="ABC",
        late="D",
        closes=2,
        crashes="ABCD",
        lapses="ABCD",
        failures=2,
        unknown=2,
        exits=1,
        words=3,
        by_name=0.3,
        deadlines=0.02,
        relists=1,
        rate=0.03,
        steps=160,
    ),
)
