"""What becomes of the processes and services of a node that is emptied."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cluster.drain import (
    Action,
    CallOff,
    Cancel,
    Care,
    Deadline,
    Drain,
    GiveUp,
    HandedOver,
    HandOver,
    Kill,
    Look,
    Move,
    MoveEnded,
    Process,
    Targets,
)
from cluster.drain.core import HAND_OVERS, OTHER, SHOWN, TRIES
from cluster.migration.actions import Verdict

MOVED, STAYED, DIED = Verdict.MOVED, Verdict.STAYED, Verdict.DIED
PLAIN = Process("p", "app:p")
MOVABLE = Process("m", "app:m", migratable=True)
CHILD = Process("c", "app:c", care=Care.ELSEWHERE)
CALL = Process("f", "app:f", is_call=True)


def look(drain: Drain, *processes: Process, services: Iterable[str] = ()) -> list[Action]:
    return drain.handle(Look(drain.tick, processes, list(services)))


def drain_to(*nodes: str, **options: int) -> Drain:
    drain = Drain(**options)  # type: ignore[arg-type]
    drain.handle(Targets(dict.fromkeys(nodes, 0)))
    return drain


class TestWhatBecomesOfEach:
    def test_what_may_move_moves(self) -> None:
        drain = drain_to("n2")
        assert look(drain, MOVABLE) == [Move("m", "n2")]
        assert drain.handle(MoveEnded("m", MOVED)) == []
        assert drain.is_empty
        assert drain.progress().moved == 1

    def test_another_is_asked_to_end_and_killed_at_the_deadline(self) -> None:
        drain = drain_to("n2")
        assert look(drain, PLAIN) == [Cancel("p")]
        assert look(drain, PLAIN) == []
        assert drain.handle(Deadline()) == [Kill("p")]
        assert look(drain) == []
        progress = drain.progress()
        assert (progress.cancelled, progress.killed, progress.left) == (1, 1, 0)

    def test_one_that_ends_when_asked_was_not_killed(self) -> None:
        drain = drain_to("n2")
        look(drain, PLAIN)
        look(drain)
        progress = drain.progress()
        assert (progress.cancelled, progress.killed) == (1, 0)

    def test_a_child_of_a_supervisor_elsewhere_ends_and_counts_as_restarted_there(self) -> None:
        drain = drain_to("n2")
        assert look(drain, CHILD) == [Cancel("c")]
        look(drain)
        assert drain.progress().restarted_elsewhere == 1

    def test_a_child_does_not_move_though_it_could(self) -> None:
        assert look(drain_to("n2"), replace(CHILD, migratable=True)) == [Cancel("c")]

    def test_a_child_of_a_supervisor_here_is_left_to_that(self) -> None:
        drain = drain_to("n2")
        tree = Process("c", care=Care.HERE, service="app:tree/0")
        assert look(drain, tree, services=["app:tree/0"]) == [HandOver("app:tree/0")]
        assert drain.handle(Deadline()) == []
        drain.handle(HandedOver("app:tree/0"))
        look(drain)
        progress = drain.progress()
        assert (progress.handed_over, progress.restarted_elsewhere, progress.cancelled) == (1, 1, 0)

    def test_a_call_comes_to_its_end_or_is_killed_at_the_deadline(self) -> None:
        drain = drain_to("n2")
        assert look(drain, CALL, replace(CALL, pid="g")) == []
        assert look(drain, CALL) == []
        assert drain.progress().cancelled == 0
        assert drain.handle(Deadline()) == [Kill("f")]

    def test_the_process_of_a_service_moves_and_the_service_with_it(self) -> None:
        drain = drain_to("n2")
        of = Process("s", migratable=True, care=Care.SERVICE, service="app:s/0")
        assert look(drain, of, services=["app:s/0"]) == [Move("s", "n2")]
        drain.handle(MoveEnded("s", MOVED))
        assert drain.is_empty
        progress = drain.progress()
        assert (progress.moved, progress.handed_over) == (1, 0)

    def test_a_service_that_does_not_move_is_handed_over(self) -> None:
        drain = drain_to("n2")
        of = Process("s", care=Care.SERVICE, service="app:s/0")
        assert look(drain, of, services=["app:s/0"]) == [HandOver("app:s/0")]
        assert look(drain, of, services=["app:s/0"]) == []
        drain.handle(HandedOver("app:s/0"))
        look(drain)
        assert drain.is_empty
        assert drain.progress().handed_over == 1

    def test_a_service_whose_process_is_refused_twice_is_handed_over(self) -> None:
        drain = drain_to("n2")
        of = Process("s", migratable=True, care=Care.SERVICE, service="app:s/0")
        look(drain, of, services=["app:s/0"])
        assert drain.handle(MoveEnded("s", STAYED, "no")) == []
        assert drain.handle(Targets({"n2": 0})) == [Move("s", "n2")]
        assert drain.handle(MoveEnded("s", STAYED, "no")) == [HandOver("app:s/0")]

    def test_a_service_that_could_not_be_handed_over_is_left_and_its_processes_are_not_told_beside(self) -> None:
        drain = drain_to("n2")
        of = Process("s", care=Care.SERVICE, service="app:s/0")
        look(drain, of, services=["app:s/0"])
        drain.handle(HandedOver("app:s/0", "it does not stop"))
        assert drain.handle(Deadline()) == []
        drain.handle(GiveUp())
        progress = drain.progress()
        assert [(one.id, one.reason) for one in progress.still_here] == [("app:s/0", "it does not stop")]
        assert progress.left == 1

    def test_one_that_somebody_else_moves_waits(self) -> None:
        drain = drain_to("n2")
        assert look(drain, replace(MOVABLE, is_busy=True)) == []
        assert look(drain, MOVABLE) == [Move("m", "n2")]

    def test_one_that_starts_meanwhile_is_taken_in_and_after_the_deadline_killed(self) -> None:
        drain = drain_to("n2")
        look(drain, CALL)
        assert look(drain, CALL, PLAIN) == [Cancel("p")]
        drain.handle(Deadline())
        assert look(drain, replace(PLAIN, pid="late"), replace(MOVABLE, pid="may move")) == [Kill("late")]


class TestMoves:
    def test_one_that_was_refused_is_offered_to_another_node_and_then_asked_to_end(self) -> None:
        drain = drain_to("n2", "n3")
        assert look(drain, MOVABLE) == [Move("m", "n2")]
        assert drain.handle(MoveEnded("m", STAYED, "n2 is full")) == [Move("m", "n3")]
        assert drain.handle(MoveEnded("m", STAYED, "n3 is full")) == [Cancel("m")]
        assert drain.progress().reasons == {"n2 is full": 1, "n3 is full": 1}
        assert drain.handle(Deadline()) == [Kill("m")]

    def test_the_only_node_is_asked_again_when_something_new_may_be_known_of_it(self) -> None:
        drain = drain_to("n2")
        look(drain, MOVABLE)
        assert drain.handle(MoveEnded("m", STAYED, "no link to n2")) == []
        assert look(drain, MOVABLE) == []
        assert drain.handle(Targets({})) == []
        assert drain.handle(Targets({"n2": 0})) == [Move("m", "n2")]

    def test_so_many_at_a_time_and_so_many_to_one_node(self) -> None:
        drain = drain_to("n2", "n3", at_once=5, per_target=2)
        processes = [replace(MOVABLE, pid=str(n)) for n in range(9)]
        moves = look(drain, *processes)
        assert [move.to for move in moves if isinstance(move, Move)] == ["n2", "n3", "n2", "n3"]
        assert drain.handle(MoveEnded("0", MOVED)) == [Move("4", "n2")]

    def test_the_node_with_least_to_do_comes_first(self) -> None:
        drain = Drain(at_once=6)
        drain.handle(Targets({"n2": 12, "n3": 10}))
        moves = look(drain, *(replace(MOVABLE, pid=str(n)) for n in range(6)))
        assert [move.to for move in moves if isinstance(move, Move)] == ["n3", "n3", "n2", "n3", "n2", "n3"]

    def test_one_that_may_go_to_some_nodes_only_waits_for_those(self) -> None:
        drain = drain_to("n2")
        assert look(drain, replace(MOVABLE, able=frozenset({"n3"}))) == []
        assert drain.handle(Targets({"n2": 0, "n3": 99})) == [Move("m", "n3")]

    def test_without_a_node_that_is_ready_it_waits_and_is_left_alive_at_the_deadline(self) -> None:
        drain = drain_to()
        assert look(drain, MOVABLE) == []
        assert drain.handle(Deadline()) == []
        drain.handle(GiveUp())
        assert drain.is_over
        assert [one.reason for one in drain.progress().still_here] == ["no node took it in time"]

    def test_a_node_that_stops_does_not_wait_for_others_to_become_ready(self) -> None:
        drain = drain_to(is_patient=False)
        assert look(drain, MOVABLE) == [Cancel("m")]
        assert drain.is_handed_on

    def test_one_that_died_on_the_way_is_told(self) -> None:
        drain = drain_to("n2")
        look(drain, MOVABLE)
        drain.handle(MoveEnded("m", DIED, "n2 is gone"))
        progress = drain.progress()
        assert (progress.lost, progress.moved, dict(progress.reasons)) == (1, 0, {"n2 is gone": 1})

    def test_only_so_many_reasons_are_told_one_by_one(self) -> None:
        drain = drain_to("n2")
        for n in range(SHOWN + 5):
            look(drain, replace(MOVABLE, pid=str(n)))
            drain.handle(MoveEnded(str(n), DIED, f"reason {n}"))
        reasons = drain.progress().reasons
        assert (len(reasons), reasons[OTHER]) == (SHOWN + 1, 5)


class TestLooksThatCameLate:
    def test_one_that_moved_during_the_look_is_not_found_again(self) -> None:
        drain = drain_to("n2")
        look(drain, MOVABLE)
        late = Look(drain.tick, [MOVABLE], [])
        drain.handle(MoveEnded("m", MOVED))
        assert drain.handle(late) == []
        assert drain.is_empty

    def test_one_that_stood_still_during_the_look_has_not_ended(self) -> None:
        drain = drain_to("n2", "n3")
        look(drain, MOVABLE)
        late = Look(drain.tick, [], [])
        assert drain.handle(MoveEnded("m", STAYED)) == [Move("m", "n3")]
        drain.handle(MoveEnded("m", STAYED))
        drain.handle(late)
        assert not drain.is_empty


class TestTheEnd:
    def test_nothing_is_known_before_the_first_look(self) -> None:
        drain = drain_to("n2")
        assert (drain.is_empty, drain.is_over, drain.is_handed_on) == (False, False, False)
        look(drain)
        assert drain.is_empty
        assert drain.is_over
        assert drain.is_handed_on

    def test_called_off_it_begins_nothing_and_ends_with_what_is_under_way(self) -> None:
        drain = drain_to("n2", at_once=1)
        look(drain, MOVABLE, replace(MOVABLE, pid="n"), PLAIN)
        assert drain.handle(CallOff()) == []
        assert not drain.is_over
        assert drain.handle(MoveEnded("m", MOVED)) == []
        assert drain.is_over
        assert drain.handle(Deadline()) == []
        assert look(drain, replace(PLAIN, pid="new")) == []

    @pytest.mark.parametrize("event", [MoveEnded("?", MOVED), HandedOver("?")])
    def test_what_nobody_asked_for_changes_nothing(self, event: MoveEnded | HandedOver) -> None:
        drain = drain_to("n2")
        look(drain, PLAIN)
        assert drain.handle(event) == []
        assert drain.progress().moved == drain.progress().handed_over == 0


NODES = ("n2", "n3", "n4")
PROCESSES = st.builds(
    Process,
    pid=st.just(""),
    migratable=st.booleans(),
    care=st.sampled_from(Care),
    service=st.just(""),
    is_call=st.booleans(),
    able=st.none() | st.frozensets(st.sampled_from(NODES)),
)


class Machine(RuleBasedStateMachine):
    """A node in which anything may happen while it is emptied. ``here`` is what there really is."""

    @initialize(at_once=st.integers(1, 4), per_target=st.integers(1, 3), is_patient=st.booleans())
    def begin(self, at_once: int, per_target: int, is_patient: bool) -> None:
        self.at_once, self.per_target, self.is_patient = at_once, per_target, is_patient
        self.drain = Drain(at_once=at_once, per_target=per_target, is_patient=is_patient)
        self.here: dict[str, Process] = {}
        self.services: set[str] = set()
        self.moving: dict[str, str] = {}
        self.handing: set[str] = set()
        self.hanging: set[str] = set()
        self.targets: dict[str, int] = {}
        self.moves: dict[str, int] = {}
        self.refused: set[str] = set()
        self.cancelled: set[str] = set()
        self.left_us = 0
        self.late = self.ended = False
        self.looks: list[Look] = []
        self.number = 0

    def feed(self, event: Look | Targets | MoveEnded | HandedOver | Deadline | GiveUp | CallOff) -> None:
        for action in self.drain.handle(event):
            self.check(action)

    def check(self, action: Action) -> None:
        assert not self.ended
        match action:
            case Move(pid, to):
                assert not self.late
                assert pid not in self.moving
                assert to in self.targets
                process = self.here.get(pid)
                if process is not None:
                    assert process.may_move
                    assert process.able is None or to in process.able
                self.moving[pid] = to
                self.moves[pid] = self.moves.get(pid, 0) + 1
                assert self.moves[pid] <= TRIES
            case HandOver(service):
                assert not self.late
                assert service not in self.handing
                self.handing.add(service)
            case Cancel(pid):
                assert not self.late
                assert pid not in self.cancelled
                self.cancelled.add(pid)
                process = self.here.get(pid)
                assert process is None or not process.may_move or pid in self.refused or not self.is_patient
                assert process is None or process.care in (Care.NOBODY, Care.ELSEWHERE)
            case Kill(pid):
                assert self.late
                process = self.here.get(pid)
                assert process is None or process.care in (Care.NOBODY, Care.ELSEWHERE)
                assert process is None or not process.may_move or pid in self.cancelled
        assert len(self.moving) <= self.at_once
        assert len(self.handing) <= HAND_OVERS

    @rule(process=PROCESSES, has_service=st.booleans())
    def starts(self, process: Process, has_service: bool) -> None:
        self.number += 1
        key = ""
        if process.care is Care.SERVICE or (process.care is Care.HERE and has_service):
            key = f"s{self.number}/0"
            self.services.add(key)
        pid = f"p{self.number}"
        self.here[pid] = replace(process, pid=pid, service=key)

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def ends(self, data: st.DataObject) -> None:
        pid = data.draw(st.sampled_from(sorted(self.here)))
        if pid not in self.moving:
            del self.here[pid]

    @rule()
    def look_begins(self) -> None:
        self.looks.append(Look(self.drain.tick, list(self.here.values()), sorted(self.services)))

    @precondition(lambda self: self.looks)
    @rule()
    def look_ends(self) -> None:
        self.feed(self.looks.pop(0))

    @rule(nodes=st.dictionaries(st.sampled_from(NODES), st.integers(0, 9)))
    def targets_change(self, nodes: dict[str, int]) -> None:
        self.targets = nodes
        self.feed(Targets(nodes))

    @precondition(lambda self: self.moving)
    @rule(data=st.data(), verdict=st.sampled_from(Verdict))
    def move_ends(self, data: st.DataObject, verdict: Verdict) -> None:
        pid = data.draw(st.sampled_from(sorted(self.moving)))
        del self.moving[pid]
        if verdict is STAYED:
            self.refused.add(pid)
        else:
            process = self.here.pop(pid, None)
            self.left_us += 1
            if process is not None:
                self.services.discard(process.service)
        self.feed(MoveEnded(pid, verdict, "said so"))

    @precondition(lambda self: self.handing)
    @rule(data=st.data(), works=st.booleans())
    def hand_over_ends(self, data: st.DataObject, works: bool) -> None:
        service = data.draw(st.sampled_from(sorted(self.handing)))
        self.handing.discard(service)
        if works:
            self.services.discard(service)
            self.here = {pid: one for pid, one in self.here.items() if one.service != service}
        else:
            self.hanging.add(service)
        self.feed(HandedOver(service, "" if works else "it hangs"))

    @rule()
    def deadline(self) -> None:
        if not self.late:
            self.late = True
            self.feed(Deadline())

    @precondition(lambda self: self.late)
    @rule(event=st.sampled_from([GiveUp(), CallOff()]))
    def is_given_up(self, event: GiveUp | CallOff) -> None:
        self.ended = True
        self.feed(event)

    @invariant()
    def what_is_under_way_is_counted(self) -> None:
        assert self.drain.progress().moving == len(self.moving) + len(self.handing)
        assert self.drain.progress().moved + self.drain.progress().lost == self.left_us

    def teardown(self) -> None:
        """When everything goes well from now on, the node is empty before the deadline, or all that is left is told."""
        if not hasattr(self, "drain") or self.late or self.ended:
            return
        self.looks.clear()
        self.targets = dict.fromkeys(NODES, 0)
        self.feed(Targets(dict(self.targets)))
        for _ in range(4 * self.number + 4):
            self.feed(Targets(dict(self.targets)))
            for pid in list(self.moving):
                del self.moving[pid]
                process = self.here.pop(pid, None)
                self.left_us += 1
                if process is not None:
                    self.services.discard(process.service)
                self.feed(MoveEnded(pid, MOVED))
            for service in list(self.handing):
                self.handing.discard(service)
                self.services.discard(service)
                self.here = {pid: one for pid, one in self.here.items() if one.service != service}
                self.feed(HandedOver(service))
            with_us = {pid: one for pid, one in self.here.items() if pid not in self.cancelled and not one.is_call}
            self.here = {pid: one for pid, one in with_us.items() if one.care is not Care.HERE or one.service}
            self.feed(Look(self.drain.tick, list(self.here.values()), sorted(self.services)))
        homeless = {one.pid for one in self.here.values() if one.may_move and one.able is not None and not one.able}
        hanging = {one.pid for one in self.here.values() if one.service in self.hanging}
        assert set(self.here) == homeless | hanging


TestAnything = Machine.TestCase
TestAnything.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
