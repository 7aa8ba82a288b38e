"""One supervisor and its children: what happened comes in, what to do comes out.

The decisions are those of Erlang's ``supervisor``, with a wait before a restart where the
back-off asks for one. Work that concerns several children - the first start, the restart of a
group, a change, the end - is a plan: one step after the other, and what happens meanwhile is
held until the plan is done. A restart of one child alone is no plan: a child that takes long
keeps nobody else from being started again.

    what ended                       strategy                      what follows
    -----------------------------    --------------------------    ------------------------------------------
    permanent; transient, failed     one_for_one, dynamic          it is started again
                                     one_for_all                   all others stop, latest first; all start
                                     rest_for_one                  those after it stop; it and those start
    transient, not failed            any                           it stays down; dynamic: it is forgotten
    temporary                        any                           it is forgotten
    one restart too many             any                           all stop, latest first; Finish(SHUTDOWN)
    a significant child, for good    any, as auto_shutdown says    all stop, latest first; Finish(SHUTDOWN)
    the first start of a child       any                           those started stop; Finish(FAILED)

A start is never taken back: its answer is awaited, so that no child is ever there twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from cluster.supervision.child import Child, Phase
from cluster.supervision.events import (
    Action,
    AddChild,
    Answer,
    Begin,
    Begun,
    Change,
    Command,
    DeleteChild,
    Due,
    End,
    Event,
    Exited,
    Failed,
    Finish,
    GraceOver,
    Kill,
    Outcome,
    Postponed,
    RestartChild,
    Start,
    Started,
    Stop,
    TerminateChild,
    Wait,
)
from cluster.supervision.plan import StartStep, Step, StopStep, one_by_one
from cluster.supervision.rate import Rate
from cluster.supervision.specs import AutoShutdown, BranchSpec, ChildSpec, Ending, Restart, Strategy

GROUPS = frozenset({Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE})


@dataclass(frozen=True, slots=True)
class _Retry:
    """A start within a plan failed: what it means is decided when the plan is over."""

    child: str
    run: int
    failed: Failed


_Held: TypeAlias = Exited | _Retry | Due | Change | Command


class Branch:
    """``handle`` takes an event and says what to do. ``children`` is what to start at Begin, in order."""

    def __init__(self, spec: BranchSpec, children: Iterable[ChildSpec] = ()) -> None:
        self.spec = spec
        self.children: dict[str, Child] = {}
        """In the order of their start. To look at only."""
        self.is_ending = False
        self._may_start = False
        """Begin has come: until then everything that would start a child is held."""
        self.restarts = 0
        for child in children:
            if child.id in self.children:
                raise ValueError(f"two children are named {child.id!r}")
            self.children[child.id] = Child(child)
        self._fixed = set(self.children)
        self._runs = 0
        self._rate = Rate()
        self._steps: deque[Step] = deque()
        self._awaited: set[str] = set()
        self._in_plan = False
        self._plan_over: Callable[[], None] = lambda: None
        self._start_failed: Callable[[Child, Failed], None] = self._retry_later
        self._to_stop: set[str] = set()
        self._held: deque[_Held] = deque()
        self._kills = False
        self._actions: list[Action] = []

    @property
    def is_dynamic(self) -> bool:
        return self.spec.strategy is Strategy.DYNAMIC

    def handle(self, event: Event) -> list[Action]:
        """What to do now. Events of a run that is over do nothing."""
        self._actions = []
        match event:
            case Begin() if self.is_ending:
                pass
            case Begin():
                self._may_start = True
                self._plan([StartStep(id) for id in self.children], self._begun, self._first_start_failed)
            case Started():
                self._started(event)
            case Failed():
                self._failed(event)
            case Postponed():
                self._postponed(event)
            case Exited():
                self._exited(event)
            case GraceOver():
                self._grace_over(event)
            case End(kill):
                self._end(Ending.SHUTDOWN, "", kill=kill)
            case _:
                self._decide_or_hold(event)
        self._go_on()
        return self._actions

    # what is told of a child

    def _started(self, event: Started) -> None:
        child = self._of(event.child, event.run, Phase.STARTING)
        if child is None:
            return
        child.phase, child.since, child.is_new = Phase.UP, event.at, False
        self._answer_start(child, Outcome.STARTED)
        if event.child not in self._to_stop:
            self._awaited.discard(event.child)
        elif event.child in self._awaited:  # its turn to stop has come; else it will
            self._ask_to_stop(child)

    def _failed(self, event: Failed) -> None:
        child = self._of(event.child, event.run, Phase.STARTING)
        if child is None:
            return
        child.phase, child.last_error = Phase.DOWN, event.error
        was_asked_for = child.starting_for
        self._answer_start(child, Outcome.FAILED, event.error)
        if event.child in self._to_stop:
            self._is_down(child)
        elif event.child in self._awaited:
            self._awaited.discard(event.child)
            self._start_failed(child, event)
        elif child.is_new:
            self._forget(child)
        elif not was_asked_for:
            self._decide_or_hold(_Retry(event.child, event.run, event))

    def _postponed(self, event: Postponed) -> None:
        child = self._of(event.child, event.run, Phase.STARTING)
        if child is None:
            return
        child.phase, child.is_new, child.in_group = Phase.WAITING, False, False
        self._answer_start(child, Outcome.POSTPONED)
        if event.child in self._to_stop:
            self._is_down(child)
        else:
            self._awaited.discard(event.child)

    def _exited(self, event: Exited) -> None:
        child = self.children.get(event.child)
        if child is None or child.run != event.run or child.has_ended:
            return
        if child.phase is Phase.STOPPING or (child.phase is Phase.UP and event.child in self._to_stop):
            child.last_error = event.error or child.last_error
            self._is_down(child)
        elif child.phase is Phase.UP:
            self._decide_or_hold(event)

    def _grace_over(self, event: GraceOver) -> None:
        if self._of(event.child, event.run, Phase.STOPPING) is not None:
            self._actions.append(Kill(event.child, event.run))

    def _of(self, id: str, run: int, phase: Phase) -> Child | None:
        child = self.children.get(id)
        return child if child is not None and child.run == run and child.phase is phase else None

    # deciding, now or when what is under way is done

    def _decide_or_hold(self, event: _Held) -> None:
        if self.is_ending:
            self._refuse(event)
        elif self._in_plan or not self._may_start or self._is_busy(event):
            if isinstance(event, Exited):
                self.children[event.child].has_ended = True
            self._held.append(event)
        else:
            self._decide(event)

    def _is_busy(self, event: _Held) -> bool:
        if isinstance(event, AddChild | Change):
            return isinstance(event, AddChild) and self._busy(event.spec.id)
        return self._busy(event.child)

    def _busy(self, id: str) -> bool:
        child = self.children.get(id)
        return child is not None and child.is_busy

    def _decide(self, event: _Held) -> None:
        match event:
            case Exited():
                self._decide_exit(event)
            case _Retry(id, run, failed):
                child = self._of(id, run, Phase.DOWN)
                if child is not None:
                    self._again(child, failed.at, failed.jitter, "")
            case Due(id, run):
                self._due(id, run)
            case Change(spec, children):
                self._change(spec, children)
            case AddChild(ref, spec):
                self._add(ref, spec)
            case TerminateChild(ref, id):
                self._terminate(ref, id)
            case RestartChild(ref, id):
                self._restart(ref, id)
            case DeleteChild(ref, id):
                self._delete(ref, id)

    def _refuse(self, event: _Held) -> None:
        if isinstance(event, Command):
            self._answer(event.ref, Outcome.ENDING)

    def _go_on(self) -> None:
        """Take the steps of the plan, then what was held, until something has to be waited for."""
        while not self._awaited:
            if self._steps:
                self._take(self._steps.popleft())
            elif self._in_plan:
                self._in_plan = False
                self._to_stop.clear()
                self._plan_over()
            elif not self._may_start or not self._take_held():
                return

    def _take_held(self) -> bool:
        for position, event in enumerate(self._held):
            if not self._is_busy(event):
                del self._held[position]
                self._decide(event)
                return True
        return False

    # plans

    def _plan(
        self,
        steps: Iterable[Step],
        over: Callable[[], None],
        start_failed: Callable[[Child, Failed], None] | None = None,
    ) -> None:
        self._steps = deque(steps)
        self._awaited.clear()
        self._in_plan = True
        self._plan_over = over
        self._start_failed = start_failed or self._retry_later
        self._to_stop = {id for step in self._steps if isinstance(step, StopStep) for id in step.children}

    def _take(self, step: Step) -> None:
        match step:
            case StartStep(id):
                child = self.children.get(id)
                if child is not None and child.phase in (Phase.DOWN, Phase.WAITING):
                    self._awaited.add(id)
                    self._start(child)
            case StopStep(ids):
                for id in ids:
                    self._take_down(id)

    def _take_down(self, id: str) -> None:
        """Stop a child as part of a plan."""
        child = self.children.get(id)
        if child is None:
            return
        if child.has_ended or not child.lives:
            self._is_down(child)
            return
        self._awaited.add(id)
        if child.phase is Phase.UP:
            self._ask_to_stop(child)

    def _ask_to_stop(self, child: Child) -> None:
        kills = self._kills or child.spec.shutdown == 0
        child.phase = Phase.STOPPING
        if kills:
            self._actions.append(Kill(child.spec.id, child.run))
        else:
            self._actions.append(Stop(child.spec.id, child.run, child.spec.shutdown))

    def _is_down(self, child: Child) -> None:
        """A child that was to stop has."""
        id = child.spec.id
        child.phase, child.has_ended = Phase.DOWN, False
        self._awaited.discard(id)
        self._to_stop.discard(id)
        if child.stopping_for:
            ref, child.stopping_for = child.stopping_for, 0
            self._answer(ref, Outcome.OK)
        if self.is_dynamic or child.spec.restart is Restart.TEMPORARY:
            self._forget(child)

    def _start(self, child: Child) -> None:
        child.phase, child.in_group = Phase.STARTING, False
        self._runs += 1
        child.run = self._runs
        self._actions.append(Start(child.spec.id, child.run, child.spec))

    def _forget(self, child: Child) -> None:
        self.children.pop(child.spec.id, None)
        self._fixed.discard(child.spec.id)

    def _begun(self) -> None:
        self._actions.append(Begun())

    def _first_start_failed(self, child: Child, failed: Failed) -> None:
        self._end(Ending.FAILED, f"child {child.spec.id} could not be started: {failed.error}")

    def _retry_later(self, child: Child, failed: Failed) -> None:
        self._steps.clear()
        self._held.append(_Retry(child.spec.id, child.run, failed))

    # ends and restarts

    def _decide_exit(self, event: Exited) -> None:
        child = self._of(event.child, event.run, Phase.UP)
        if child is None:
            return  # of a run before: the end of the present one may be held too
        child.phase, child.has_ended = Phase.DOWN, False
        child.last_error = event.error
        if not child.spec.restart.is_due_after(event.ending):
            self._ended_for_good(child)
            return
        if event.at - child.since >= self.spec.backoff.stable_threshold:
            child.failures = 0
        self._again(child, event.at, event.jitter, event.cause)

    def _ended_for_good(self, child: Child) -> None:
        if self.is_dynamic or child.spec.restart is Restart.TEMPORARY:
            self._forget(child)
        if not child.spec.significant:
            return
        others = any(other.spec.significant and other.phase is not Phase.DOWN for other in self.children.values())
        how = self.spec.auto_shutdown
        if how is AutoShutdown.ANY_SIGNIFICANT or (how is AutoShutdown.ALL_SIGNIFICANT and not others):
            self._end(Ending.SHUTDOWN, f"significant child {child.spec.id} ended", by_design=True)

    def _again(self, child: Child, at: float, jitter: float, cause: str) -> None:
        """The child is to be started again, unless that is once too often."""
        spec = self.spec
        if not self._rate.add(at, cause, spec.intensity, spec.period):
            last = f", the last because of: {child.last_error}" if child.last_error else ""
            too_many = f"more than {spec.intensity} restarts within {spec.period:g} s"
            self._end(Ending.SHUTDOWN, f"{too_many}; child {child.spec.id} ended once more{last}")
            return
        self.restarts += 1
        child.restarts += 1
        child.failures += 0 if cause else 1
        delay = spec.backoff.delay(child.failures, jitter) if child.failures else 0.0
        if spec.strategy in GROUPS:
            others = [id for id in self._group(child.spec.id) if id != child.spec.id]
            self._plan(one_by_one(others), lambda: self._start_after(child, delay, in_group=True))
        else:
            self._start_after(child, delay, in_group=False)

    def _start_after(self, child: Child, delay: float, *, in_group: bool) -> None:
        child.phase, child.in_group = Phase.WAITING, in_group
        if delay > 0:
            self._actions.append(Wait(child.spec.id, child.run, delay))
        else:
            self._due(child.spec.id, child.run)

    def _due(self, id: str, run: int) -> None:
        child = self._of(id, run, Phase.WAITING)
        if child is None:
            return
        if not child.in_group:
            self._start(child)
            return
        group = self._group(id)
        stops = one_by_one([other for other in group if self.children[other].lives])
        self._plan([*stops, *(StartStep(other) for other in group)], lambda: None)

    def _group(self, id: str) -> list[str]:
        """The children that are started anew together with this one."""
        ids = list(self.children)
        return ids if self.spec.strategy is Strategy.ONE_FOR_ALL else ids[ids.index(id) :]

    # the end

    def _end(self, ending: Ending, reason: str, *, kill: bool = False, by_design: bool = False) -> None:
        if self.is_ending and (self._kills or not kill):
            return
        held, self._held = self._held, deque()
        for event in held:
            self._refuse(event)
        if not self.is_ending:
            self._finish = Finish(ending, reason, by_design)
        self.is_ending = True
        self._kills = kill
        for child in self.children.values():
            if kill and child.phase is Phase.STOPPING:
                self._actions.append(Kill(child.spec.id, child.run))
        ids = list(self.children)
        together = kill or self.is_dynamic
        self._plan([StopStep(tuple(reversed(ids)))] if together else one_by_one(ids), self._finished)

    def _finished(self) -> None:
        self._actions.append(self._finish)

    # commands

    def _answer(self, ref: int, outcome: Outcome, error: str = "", child: str = "") -> None:
        self._actions.append(Answer(ref, outcome, error, child))

    def _answer_start(self, child: Child, outcome: Outcome, error: str = "") -> None:
        if child.starting_for:
            ref, child.starting_for = child.starting_for, 0
            self._answer(ref, outcome, error, child.spec.id)

    def _add(self, ref: int, spec: ChildSpec) -> None:
        there = self.children.get(spec.id)
        if there is not None:
            known = Outcome.ALREADY_PRESENT if there.phase is Phase.DOWN else Outcome.ALREADY_STARTED
            self._answer(ref, known, child=spec.id)
            return
        child = self.children[spec.id] = Child(spec, starting_for=ref, is_new=True)
        self._start(child)

    def _terminate(self, ref: int, id: str) -> None:
        child = self.children.get(id)
        if child is None:
            self._answer(ref, Outcome.NOT_FOUND)
            return
        child.stopping_for = ref
        waits_for_group = child.phase is Phase.WAITING and child.in_group
        if child.phase is Phase.UP and not child.has_ended:
            self._ask_to_stop(child)
            return
        group = self._group(id) if waits_for_group else []
        self._is_down(child)  # an end that was not looked at yet is no failure now
        if group:  # the others wait for this one, which does not come
            self._plan([StartStep(other) for other in group if other != id], lambda: None)

    def _restart(self, ref: int, id: str) -> None:
        child = self.children.get(id)
        if self.is_dynamic:
            self._answer(ref, Outcome.DYNAMIC)
        elif child is None:
            self._answer(ref, Outcome.NOT_FOUND)
        elif child.phase is Phase.DOWN:
            child.starting_for = ref
            self._start(child)
        else:
            self._answer(ref, _present(child))

    def _delete(self, ref: int, id: str) -> None:
        child = self.children.get(id)
        if self.is_dynamic:
            self._answer(ref, Outcome.DYNAMIC)
        elif child is None:
            self._answer(ref, Outcome.NOT_FOUND)
        elif child.phase is Phase.DOWN:
            self._forget(child)
            self._answer(ref, Outcome.OK)
        else:
            self._answer(ref, _present(child))

    # another definition

    def _change(self, spec: BranchSpec, children: Sequence[ChildSpec]) -> None:
        """Stop what is gone or another child now, latest first; start what is new or changed, in order."""
        wanted = {child.id: child for child in children}
        turned = (spec.strategy is Strategy.DYNAMIC) is not self.is_dynamic
        others = {
            id
            for id, child in self.children.items()
            if turned or (id not in wanted and id in self._fixed) or (id in wanted and child.is_other_than(wanted[id]))
        }
        begun = {id for id in wanted if id not in self.children or id in others} | self._woken(spec.strategy, others)

        def apply() -> None:
            former, self.spec = self.children, spec
            self.children = {}
            for id, one in wanted.items():
                child = self.children[id] = Child(one) if id in others or id not in former else former[id]
                child.spec = one
            added = {id: child for id, child in former.items() if id not in wanted and id not in others}
            self.children.update(added)
            self._fixed = set(wanted)
            self._plan([StartStep(id) for id in self.children if id in begun], lambda: None)

        self._plan(one_by_one([id for id in self.children if id in others]), apply)

    def _woken(self, strategy: Strategy, others: set[str]) -> set[str]:
        """Children that are down for the restart of a group which a change ends: they start with the change."""
        heads = [child.spec.id for child in self.children.values() if child.phase is Phase.WAITING and child.in_group]
        broken = heads if strategy is not self.spec.strategy else [id for id in heads if id in others]
        return {id for head in broken for id in self._group(head)}


def _present(child: Child) -> Outcome:
    """Why nothing can be done with a child that is not down."""
    return Outcome.RESTARTING if child.phase is Phase.WAITING else Outcome.RUNNING
