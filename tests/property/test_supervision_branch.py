"""A supervisor in the hands of a shell that answers in any order, late, and with failures."""

from __future__ import annotations

import random
from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.supervision import AutoShutdown, Backoff, Branch, BranchSpec, ChildSpec, Phase, Restart, Strategy
from cluster.supervision.events import (
    AddChild,
    Answer,
    Begin,
    Change,
    DeleteChild,
    Due,
    End,
    Event,
    Exited,
    Failed,
    Finish,
    GraceOver,
    Kill,
    Postponed,
    RestartChild,
    Start,
    Started,
    Stop,
    TerminateChild,
    Wait,
)
from cluster.supervision.specs import Ending

NAMES = "abcd"


def child_spec(dice: random.Random, name: str, auto: bool) -> ChildSpec:
    restart = dice.choice(list(Restart))
    significant = auto and restart is not Restart.PERMANENT and dice.random() < 0.5
    return ChildSpec(name, restart, dice.choice([0.0, 1.0, None]), significant, work=dice.randint(0, 1))


branch_specs = st.builds(
    BranchSpec,
    st.sampled_from(Strategy),
    st.integers(0, 4),
    st.just(5.0),
    st.sampled_from(AutoShutdown),
    st.builds(Backoff, st.sampled_from([0.0, 0.0, 1.0])),
)


class Shell:
    """Keeps the promises a shell makes, and nothing more. Fails when the supervisor breaks one of its own."""

    def __init__(self, branch: Branch) -> None:
        self.branch = branch
        self.starting: dict[str, int] = {}
        self.alive: dict[str, int] = {}
        self.asked: set[str] = set()
        self.waits: list[tuple[str, int]] = []
        self.graces: list[tuple[str, int]] = []
        self.refs = count(1)
        self.unanswered: set[int] = set()
        self.finished: Finish | None = None
        self.ending_stops: list[str] = []
        self.order: list[str] = []
        self.now = 0.0
        self.killed = False
        self.was_ending = False

    def feed(self, event: Event) -> None:
        self.was_ending = self.branch.is_ending
        self.killed = self.killed or event == End(kill=True)
        actions = self.branch.handle(event)
        if self.branch.is_ending and not self.was_ending:
            self.order = list(self.branch.children)
        for action in actions:
            self.perform(action)

    def perform(self, action: Any) -> None:
        assert self.finished is None, "nothing follows the end"
        match action:
            case Start(id, run):
                assert id not in self.starting | self.alive, "two of one child"
                assert not self.was_ending
                self.starting[id] = run
            case Stop(id, run, grace):
                assert self.alive[id] == run
                self.asked.add(id)
                self._stops(id)
                if grace is not None:
                    self.graces.append((id, run))
            case Kill(id, run):
                assert self.alive[id] == run
                if id not in self.asked:
                    self.asked.add(id)
                    self._stops(id)
            case Wait(id, run, seconds):
                assert seconds > 0
                self.waits.append((id, run))
            case Answer(ref):
                self.unanswered.remove(ref)
            case Finish():
                self.finished = action
                assert not self.starting | self.alive, "something lives on"

    def _stops(self, id: str) -> None:
        by_command = self.branch.children[id].stopping_for
        if self.branch.is_ending and not by_command:
            self.ending_stops.append(id)

    def started(self, id: str) -> None:
        run = self.starting.pop(id)
        self.alive[id] = run
        self.feed(Started(id, run, self.now))

    def failed(self, id: str) -> None:
        self.feed(Failed(id, self.starting.pop(id), self.now, "broken"))

    def postponed(self, id: str) -> None:
        run = self.starting.pop(id)
        self.waits.append((id, run))
        self.feed(Postponed(id, run))

    def exited(self, id: str, ending: Ending, cause: str = "") -> None:
        self.asked.discard(id)
        self.feed(Exited(id, self.alive.pop(id), self.now, ending, cause=cause))

    def command(self, make: Any, *arguments: Any) -> None:
        ref = next(self.refs)
        self.unanswered.add(ref)
        self.feed(make(ref, *arguments))

    def settle(self) -> None:
        """Everything that waits for an answer gets a good one."""
        for _ in range(1000):
            if self.starting:
                self.started(next(iter(self.starting)))
            elif self.asked & self.alive.keys():
                self.exited(next(iter(self.asked & self.alive.keys())), Ending.SHUTDOWN)
            elif self.waits:
                self.feed(Due(*self.waits.pop(0)))
            else:
                return
        raise AssertionError("it never comes to rest")


def drive(shell: Shell, dice: random.Random, auto: bool) -> None:
    """One thing happens, of all that may happen now."""
    shell.now += dice.choice([0.0, 0.5, 3.0, 6.0])
    moves: list[tuple[str, Any]] = [("started", one) for one in shell.starting for _ in range(3)]
    moves += [("failed", one) for one in shell.starting] + [("postponed", one) for one in shell.starting]
    moves += [("exited", one) for one in shell.alive] + [("due", one) for one in shell.waits]
    moves += [("grace", one) for one in shell.graces] + [("change", None), ("end", None)]
    moves += [(dice.choice(["add", "terminate", "restart", "delete"]), name) for name in NAMES]
    verb, what = dice.choice(moves)
    match verb:
        case "started" | "failed" | "postponed":
            getattr(shell, verb)(what)
        case "exited":
            shell.exited(what, dice.choice(list(Ending)), dice.choice(["", "", "node b/7"]))
        case "due":
            shell.waits.remove(what)
            shell.feed(Due(*what))
        case "grace":
            shell.graces.remove(what)
            shell.feed(GraceOver(*what))
        case "add":
            shell.command(AddChild, child_spec(dice, what, auto))
        case "terminate":
            shell.command(TerminateChild, what)
        case "restart":
            shell.command(RestartChild, what)
        case "delete":
            shell.command(DeleteChild, what)
        case "change" if not shell.branch.is_dynamic:
            ids = dice.sample(NAMES, dice.randint(0, 4))
            shell.feed(Change(shell.branch.spec, [child_spec(dice, id, auto) for id in ids]))
        case "end" if dice.random() < 0.3:
            shell.feed(End(dice.random() < 0.5))


moves = st.lists(st.integers(0, 2**16), max_size=60)
names = st.lists(st.sampled_from(NAMES), unique=True)


@settings(max_examples=1000, deadline=None)
@given(branch_specs, names, moves)
def test_whatever_happens_it_keeps_its_promises(spec: BranchSpec, ids: list[str], moves: list[int]) -> None:
    auto = spec.auto_shutdown is not AutoShutdown.NEVER
    ids = [] if spec.strategy is Strategy.DYNAMIC else ids
    shell = Shell(Branch(spec, [child_spec(random.Random(id), id, auto) for id in ids]))
    shell.feed(Begin())
    for move in moves:
        if shell.finished is None:
            drive(shell, random.Random(move), auto)
    shell.settle()
    assert not shell.unanswered, "every command is answered"
    if shell.finished is None:
        for child in shell.branch.children.values():
            assert child.phase in (Phase.UP, Phase.DOWN)
            assert (child.spec.id in shell.alive) is (child.phase is Phase.UP)
        shell.feed(End())
        shell.settle()
    assert shell.finished is not None
    if spec.strategy is not Strategy.DYNAMIC and not shell.killed:
        assert shell.ending_stops == [id for id in reversed(shell.order) if id in shell.ending_stops]


@settings(max_examples=200, deadline=None)
@given(
    branch_specs,
    names.filter(bool),
    st.lists(st.tuples(st.sampled_from([0.0, 1.0, 2.0, 6.0]), st.integers(0, 3)), max_size=12),
)
def test_what_fails_is_there_again_or_the_supervisor_is_gone(
    spec: BranchSpec, ids: list[str], failures: list[tuple[float, int]]
) -> None:
    strategy = Strategy.ONE_FOR_ALL if spec.strategy is Strategy.DYNAMIC else spec.strategy
    shell = Shell(Branch(BranchSpec(strategy, spec.intensity, 5.0), [ChildSpec(id) for id in ids]))
    shell.feed(Begin())
    shell.settle()
    times: list[float] = []
    for later, which in failures:
        shell.now += later
        shell.exited(ids[which % len(ids)], Ending.FAILED)
        shell.settle()
        times.append(shell.now)
        recent = sum(shell.now - at <= 5.0 for at in times)
        assert (shell.finished is not None) is (recent > spec.intensity)
        if shell.finished is not None:
            return
        assert list(shell.branch.children) == ids
        assert shell.alive.keys() == set(ids)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([Strategy.ONE_FOR_ONE, Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE]),
    st.integers(0, 12),
    st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=80),
)
def test_children_that_all_fail_at_once_end_the_supervisor_or_are_there_again(
    strategy: Strategy, intensity: int, answers: list[tuple[bool, int]]
) -> None:
    """Ends cross stops: a child that was asked to stop has failed already, and one just started fails at once."""
    shell = Shell(Branch(BranchSpec(strategy, intensity, 5.0), [ChildSpec(id, shutdown=1.0) for id in NAMES]))
    shell.feed(Begin())
    for is_exit, which in answers:
        some = list(shell.alive) if is_exit else list(shell.starting)
        if shell.finished is None and some:
            id = some[which % len(some)]
            shell.exited(id, Ending.FAILED) if is_exit else shell.started(id)
    shell.settle()
    if shell.finished is not None:
        assert shell.branch.restarts == intensity, "it gave up after as many restarts as it may do"
    else:
        assert shell.alive.keys() == set(NAMES)
        shell.feed(End())
        shell.settle()
    assert shell.finished is not None
