"""The decisions of a drain. Pure.

    may move (also a service's)          moved; refused twice, it ends as if it could not
    a service, with its processes        handed over, unless its process moves
    child of a supervisor elsewhere      asked to end: its supervisor starts it elsewhere
    child of a supervisor here           ends with that
    function call                        comes to its end
    any other                            asked to end

Whatever was asked to end, and calls, are killed at the deadline. What may move and has not by then is left where it
is: to end it would gain nothing. At most ``AT_ONCE`` processes move at a time, so that none stands still for longer
than its own move takes. What starts meanwhile is taken in too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from cluster.drain.events import (
    Action,
    CallOff,
    Cancel,
    Care,
    Deadline,
    Event,
    GiveUp,
    HandedOver,
    HandOver,
    Kill,
    Left,
    Look,
    Move,
    MoveEnded,
    Process,
    Progress,
    Targets,
)
from cluster.drain.residents import Phase, Resident, Residents
from cluster.migration.actions import Verdict

AT_ONCE = 4
"""Processes that move at a time. More make no drain shorter, as these give a node enough to do, but each stands still
for longer."""
PER_TARGET = 4
"""Of those, to one node, when there are several."""
HAND_OVERS = 16
"""Services that are handed over at a time: most of that time is waiting."""
TRIES = 2
"""How often a process is offered to a node."""
SHOWN = 20
"""Different reasons, and processes that are left, that are told one by one."""
OTHER = "other reasons"


class Drain:
    """One drain of one node. ``is_patient``: what may move waits for a node that is ready when there is none."""

    def __init__(self, *, at_once: int = AT_ONCE, per_target: int = PER_TARGET, is_patient: bool = True) -> None:
        self._at_once = at_once
        self._per_target = per_target
        self._is_patient = is_patient
        self.tick = 0
        """Grows with each event."""
        self._processes = Residents()
        self._services = Residents()
        self._gone: set[str] = set()
        self._loads: dict[str, int] = {}
        self._round = 0
        self._coming: Counter[str] = Counter()
        """Moves that are under way, by node."""
        self._movers: Counter[str] = Counter()
        """Processes of a service that are to move or are moving, by service."""
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._has_looked = False
        self._is_late = False
        self._has_ended = False

    # -- how far it is

    @property
    def is_empty(self) -> bool:
        """Whether a look has found nothing that is not gone since."""
        return self._has_looked and not self._processes and not self._services

    @property
    def is_handed_on(self) -> bool:
        """Whether nothing waits for a move or a hand-over, and none is under way."""
        return self._has_looked and not self._in(Phase.WAITING) and not self._in(Phase.UNDER_WAY)

    @property
    def is_over(self) -> bool:
        """Whether nothing will be done any more and nothing is under way."""
        return self.is_empty or (self._has_ended and not self._in(Phase.UNDER_WAY))

    def progress(self) -> Progress:
        left = self._left() if self._has_ended or self._is_late else []
        return Progress(
            moved=self._counts["moved"],
            restarted_elsewhere=self._counts["restarted_elsewhere"],
            handed_over=self._counts["handed_over"],
            cancelled=self._counts["cancelled"],
            killed=self._counts["killed"],
            lost=self._counts["lost"],
            waiting=self._in(Phase.WAITING),
            moving=self._in(Phase.UNDER_WAY),
            ending=self._in(Phase.ASKED) + self._in(Phase.ALONE) + self._in(Phase.KILLED),
            left=len(left),
            still_here=tuple(left[:SHOWN]),
            reasons=dict(self._reasons),
        )

    def _in(self, phase: Phase) -> int:
        return len(self._processes.standing(phase)) + len(self._services.standing(phase))

    def _left(self) -> list[Left]:
        """The processes of a service that is left are told as that service."""
        services = [Left(one.id, "", one.why) for one in self._services.all()]
        return services + [
            Left(one.id, one.process.entry, one.why)
            for one in self._processes.all()
            if one.process.service not in self._services
        ]

    # -- what happens

    def handle(self, event: Event) -> list[Action]:
        """What is to be done now."""
        self.tick += 1
        actions: list[Action] = []
        match event:
            case Look():
                actions = self._look(event)
            case Targets(loads):
                self._loads = dict(loads)
                self._round += 1
            case MoveEnded():
                actions = self._move_ended(event)
            case HandedOver():
                self._handed_over(event)
            case Deadline():
                actions = self._be_late()
            case GiveUp() | CallOff():
                self._has_ended = True
        if self._has_ended or self._is_late:
            return actions
        return [*actions, *self._moves(), *self._hand_overs()]

    def _look(self, look: Look) -> list[Action]:
        self._has_looked = True
        seen = {process.pid: process for process in look.processes if process.pid not in self._gone}
        for resident in list(self._processes.all()):
            if resident.id in seen:
                of = resident.process
                resident.process = replace(seen[resident.id], care=of.care, service=of.service)
            elif resident.phase is not Phase.UNDER_WAY and look.tick >= resident.since:
                self._ended(resident)
        self._look_at_services(look)
        actions: list[Action] = []
        for process in seen.values():
            if process.pid not in self._processes and not self._has_ended:
                actions += self._take_in(process)
        return actions

    def _look_at_services(self, look: Look) -> None:
        seen = {service for service in look.services if service not in self._gone}
        for resident in list(self._services.all()):
            if resident.id not in seen and resident.phase is not Phase.UNDER_WAY and look.tick >= resident.since:
                self._services.drop(resident)
        for service in seen:
            if service not in self._services and not self._has_ended:
                self._services.add(Process(service), Phase.STUCK if self._is_late else Phase.WAITING, self.tick)

    def _take_in(self, process: Process) -> list[Action]:
        """A process is here: what is to become of it?"""
        resident = self._processes.add(process, Phase.WAITING, self.tick)
        if process.may_move and not self._is_late:
            self._movers[process.service] += 1
            return []
        return self._do_without_a_move(resident)

    def _do_without_a_move(self, resident: Resident) -> list[Action]:
        process = resident.process
        ends_with_another = process.care in (Care.SERVICE, Care.HERE)
        if ends_with_another or (process.may_move if self._is_late else process.is_call):
            self._processes.become(resident, Phase.ALONE, self.tick)
            return []
        return self._end(resident)

    def _end(self, resident: Resident) -> list[Action]:
        """Have the process end: asked, or without being asked any more."""
        self._processes.become(resident, Phase.KILLED if self._is_late else Phase.ASKED, self.tick)
        return [Kill(resident.id) if self._is_late else Cancel(resident.id)]

    def _ended(self, resident: Resident) -> None:
        """A process is not here any more, and nobody moved it."""
        if resident.phase is Phase.WAITING:
            self._movers[resident.process.service] -= 1
        self._forget(self._processes, resident)
        care = resident.process.care
        if care is Care.ELSEWHERE or (care is Care.HERE and resident.process.service):
            self._counts["restarted_elsewhere"] += 1
        elif resident.phase in (Phase.ASKED, Phase.KILLED) or care is Care.HERE:
            self._counts["cancelled"] += 1
            self._counts["killed"] += resident.phase is Phase.KILLED

    def _forget(self, residents: Residents, resident: Resident) -> None:
        residents.drop(resident)
        self._gone.add(resident.id)

    def _move_ended(self, event: MoveEnded) -> list[Action]:
        resident = self._processes.get(event.pid)
        if resident is None or resident.phase is not Phase.UNDER_WAY:
            return []
        self._coming[resident.to] -= 1
        if event.verdict is not Verdict.MOVED:
            self._note(event.reason)
        if event.verdict is Verdict.STAYED:
            return self._stayed(resident, event.reason)
        self._counts["moved" if event.verdict is Verdict.MOVED else "lost"] += 1
        self._movers[resident.process.service] -= 1
        self._forget(self._processes, resident)
        service = self._services.get(resident.process.service)
        if event.verdict is Verdict.MOVED and service is not None and service.phase is Phase.WAITING:
            self._forget(self._services, service)  # it has moved with its process
        return []

    def _stayed(self, resident: Resident, reason: str) -> list[Action]:
        resident.reason = reason
        self._processes.become(resident, Phase.WAITING, self.tick)
        if resident.tries < TRIES or self._has_ended or self._is_late:
            return []
        self._movers[resident.process.service] -= 1
        return self._do_without_a_move(resident)

    def _handed_over(self, event: HandedOver) -> None:
        resident = self._services.get(event.service)
        if resident is None or resident.phase is not Phase.UNDER_WAY:
            return
        if event.reason:
            self._note(event.reason)
            resident.reason = event.reason
            self._services.become(resident, Phase.STUCK, self.tick)
            return
        self._counts["handed_over" if event.is_elsewhere else "cancelled"] += 1
        self._forget(self._services, resident)

    def _note(self, reason: str) -> None:
        is_known = reason in self._reasons or len(self._reasons) < SHOWN
        self._reasons[reason if is_known else OTHER] += 1

    def _be_late(self) -> list[Action]:
        if self._has_ended:
            return []
        self._is_late = True
        alone = self._processes.standing(Phase.ALONE).values()
        ending = [
            *self._processes.standing(Phase.ASKED).values(),
            *(one for one in alone if one.process.is_call and one.process.care is Care.NOBODY),
        ]
        return [action for resident in ending for action in self._end(resident)]

    # -- what is done next

    def _moves(self) -> list[Action]:
        """Moves for those that wait, some at a time."""
        moves: list[tuple[Resident, str]] = []
        homeless: list[Resident] = []
        room = self._at_once - len(self._processes.standing(Phase.UNDER_WAY))
        for resident in self._processes.standing(Phase.WAITING).values():
            if len(moves) >= room:
                break
            able = [node for node in self._loads if resident.process.able is None or node in resident.process.able]
            if not able and not self._is_patient:
                homeless.append(resident)
            elif not resident.process.is_busy and (to := self._choose(able, resident)):
                self._coming[to] += 1
                self._loads[to] += 1
                moves.append((resident, to))
        for resident, to in moves:
            resident.to = to
            resident.tries += 1
            resident.asked[to] = self._round
            self._processes.become(resident, Phase.UNDER_WAY, self.tick)
        actions: list[Action] = [Move(resident.id, to) for resident, to in moves]
        for resident in homeless:
            self._movers[resident.process.service] -= 1
            actions += self._do_without_a_move(resident)
        return actions

    def _choose(self, able: Sequence[str], resident: Resident) -> str:
        """The node with least to do, one that was not asked if there is one; empty when each has enough coming, or
        has refused and nothing new is known of it: what keeps it from taking one may keep it from taking all."""
        fresh = [node for node in able if node not in resident.asked] or [
            node for node in able if resident.asked[node] < self._round
        ]
        limit = self._at_once if len(self._loads) == 1 else self._per_target
        free = [node for node in fresh if self._coming[node] < limit]
        return min(free, key=lambda node: (self._loads[node], node), default="")

    def _hand_overs(self) -> list[Action]:
        """Hand-overs of services whose processes do not move, some at a time."""
        waiting = self._services.standing(Phase.WAITING).values()
        room = HAND_OVERS - len(self._services.standing(Phase.UNDER_WAY))
        chosen = [one for one in waiting if self._movers[one.id] <= 0][: max(room, 0)]
        for resident in chosen:
            self._services.become(resident, Phase.UNDER_WAY, self.tick)
        return [HandOver(resident.id) for resident in chosen]
