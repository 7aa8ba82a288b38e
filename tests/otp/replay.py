"""Runs a scenario on ``cluster.supervision`` and tells what it did, in the words of the recorder."""

from __future__ import annotations

from collections import deque
from typing import Any

from cluster.supervision import AutoShutdown, Backoff, Branch, BranchSpec, ChildSpec, Phase, Restart, Strategy
from cluster.supervision.events import (
    AddChild,
    Answer,
    Begin,
    DeleteChild,
    End,
    Event,
    Exited,
    Failed,
    Finish,
    GraceOver,
    Kill,
    RestartChild,
    Start,
    Started,
    Stop,
    TerminateChild,
    Wait,
)
from cluster.supervision.specs import Ending
from tests.otp.scenarios import Scenario, Told

STATES = {Phase.UP: "running", Phase.WAITING: "restarting", Phase.DOWN: "down"}


class Replay:
    """The children of a scenario, which live and die as it says. No process, no clock."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._dynamic = scenario["strategy"] == "simple_one_for_one"
        self._fails = {child["id"]: deque(child["fails"]) for child in scenario["children"]}
        children = [] if self._dynamic else [_spec(child) for child in scenario["children"]]
        self.branch = Branch(
            BranchSpec(
                Strategy.DYNAMIC if self._dynamic else Strategy(scenario["strategy"]),
                scenario["intensity"],
                scenario["period"],
                AutoShutdown(scenario["auto"]),
                Backoff(0.0),
            ),
            children,
        )
        self._now = 0.0
        self._log: list[str] = []
        self._events: deque[Event] = deque()
        self._alive: dict[str, int] = {}
        self._answer: Answer | None = None
        self._finished: Finish | None = None

    def run(self) -> list[Told]:
        self._events.append(Begin())
        self._go_on()
        if (ended := self._end_told()) is not None:
            failed = "failed " + ended.reason.split()[1]
            return [[failed, self._taken(), [], [0, 0, 0, 0], None]]
        told = [self._told("ok")]
        for step in self._scenario["steps"]:
            if self._end_told() is not None:
                break
            self._now += 0.03
            told.append(self._told(self._step(step)))
        return told

    def _end_told(self) -> Finish | None:
        return self._finished

    def _step(self, step: list[Any]) -> str | None:
        match step:
            case ["exit", name, reason]:
                self._die(name, reason)
            case ["together", deaths]:
                for name, reason in deaths:
                    self._die(name, reason)
            case ["wait", time]:
                self._now += time / 1000
            case ["add", child]:
                if child["id"] not in self.branch.children:
                    self._fails[child["id"]] = deque(child["fails"])
                spec = _spec(self._scenario["children"][0] | child if self._dynamic else child)
                self._events.append(AddChild(1, spec))
            case ["terminate", name]:
                self._events.append(TerminateChild(1, name))
            case ["restart", name]:
                self._events.append(RestartChild(1, name))
            case ["delete", name]:
                self._events.append(DeleteChild(1, name))
            case ["stop"]:
                self._events.append(End())
        self._go_on()
        answer, self._answer = self._answer, None
        return None if answer is None else answer.outcome.value

    def _die(self, name: str, reason: str) -> None:
        if name in self._alive:
            self._events.append(Exited(name, self._alive.pop(name), self._now, Ending(reason)))

    def _go_on(self) -> None:
        while self._events:
            waiting, self._events = self._events, deque()
            actions = [action for event in waiting for action in self.branch.handle(event)]
            for action in actions:
                self._perform(action)

    def _perform(self, action: Any) -> None:
        match action:
            case Start(name, run):
                fails = self._fails.get(name) or deque([False])
                if fails.popleft():
                    self._log.append(f"!{name}")
                    self._events.append(Failed(name, run, self._now, "no start"))
                else:
                    assert name not in self._alive
                    self._log.append(f"+{name}")
                    self._alive[name] = run
                    self._events.append(Started(name, run, self._now))
            case Stop(name, run):
                if name in self._alive:
                    self._log.append(f"-{name}")
                    if self._is_stubborn(name):
                        self._events.append(GraceOver(name, run))
                    else:
                        self._ends(name, run, Ending.SHUTDOWN)
            case Kill(name, run):
                if name in self._alive:
                    self._log.append(f"x{name}")
                    self._ends(name, run, Ending.FAILED)
            case Wait():
                raise AssertionError("there is no back-off here")
            case Answer():
                self._answer = action
            case Finish():
                self._finished = action

    def _is_stubborn(self, name: str) -> bool:
        if self._dynamic:
            return bool(self._scenario["children"][0]["stop"] == "ignore")
        return bool(self.branch.children[name].spec.work == "ignore")

    def _ends(self, name: str, run: int, ending: Ending) -> None:
        del self._alive[name]
        self._events.append(Exited(name, run, self._now, ending))

    def _told(self, answer: str | None) -> Told:
        log = self._taken()
        if self._finished is not None:
            return [answer, log, [], [0, 0, 0, 0], self._finished.ending.value]
        children = list(self.branch.children.values())
        shown = [[child.spec.id, STATES[child.phase]] for child in children]
        supervisors = sum(child.spec.is_supervisor for child in children)
        counts = [
            1 if self._dynamic else len(children),
            sum(child.phase is Phase.UP for child in children),
            supervisors,
            len(children) - supervisors,
        ]
        return [answer, log, sorted(shown) if self._dynamic else shown, counts, None]

    def _taken(self) -> list[str]:
        log, self._log = self._log, []
        return sorted(log) if self._dynamic else log


def _spec(child: dict[str, Any]) -> ChildSpec:
    shutdown = {"brutal_kill": 0.0, "infinity": None}.get(child["shutdown"], 1.0)
    return ChildSpec(
        child["id"],
        Restart(child["restart"]),
        shutdown,
        child["significant"],
        child["type"] == "supervisor",
        work=child["stop"],
    )
