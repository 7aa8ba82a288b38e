"""Races told step by step: those chance would need too many walks for, each the end of a mutant."""

from __future__ import annotations

from cluster.keys import Keys
from cluster.migration import MoveCore, Stamps
from cluster.migration.actions import (
    Action,
    Adopt,
    Deliver,
    Finished,
    Fire,
    Reason,
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
    LinkFlush,
    Luggage,
    Message,
    Parcel,
    Refused,
    Reserved,
    Watcher,
    Way,
)
from cluster.migration.numbers import Accepted
from cluster.migration.transactions import Answer, Found, Outcome, Read, Registration, Transact
from tests.migration.walks import Scenario, Walk

SENT = (
    "P is to move from A to B; A->B; B->A; etcd applies 1 of A; A hears",
    "P freezes on A; A->B",
)
COMMITTED = (*SENT, "etcd applies 1 of B; B hears")
SETTLED = (*COMMITTED, "A sees; A sees; A sees; B->A; A->B; B->A; A->B")
"""B has heard that nothing is on the way to it through A any more; C has seen nothing yet."""
OF_B = Watcher("B", "w")


def requests(actions: list[Action]) -> list[Transact | Read]:
    return [action for action in actions if isinstance(action, Transact | Read)]


def core_on(node: str, peers: set[str]) -> MoveCore:
    return MoveCore(node, "A", "1-1", Keys("test"), Registration(10, 7), lambda peer: peer in peers)


def leave(core: MoveCore, to: str, mark: int, luggage: Luggage) -> list[Action]:
    """As far as the process is frozen and its links are being flushed."""
    attempt = next(
        action.note.attempt  # type: ignore[union-attr]
        for action in core.leave(to)
        if isinstance(action, Send)
    )
    (transact,) = requests(core.reserved(to, attempt))
    core.answered(Answer(transact.request, Outcome.DONE, mark))
    return core.frozen(luggage)


def tombstone_on_a(peers: set[str], *watchers: Watcher) -> MoveCore:
    """P was on A and is on B."""
    core = core_on("A", peers)
    leave(core, "B", 20, Luggage(None, frozenset(watchers)))
    core.moved_seen(Found("B", 21))
    return core


def test_an_abort_nobody_heard_of_is_not_done() -> None:
    Walk(Scenario("", unknown=1), 1).follow(
        *SENT, "deadline on A; 2 of A times out; A hears; 2 of A is never applied; etcd applies 1 of B; B hears"
    )


def test_a_guest_whose_lease_ended_while_it_was_frozen_ends() -> None:
    world = Walk(Scenario("", path="BC", attempts=2, words=1, lapses="B", failures=1), 1).follow(
        *SETTLED,
        "B sees; B sees; B sees; P on B says a word",
        "P is to move from B to C; B->C; B->C; C->B; etcd applies 2 of B; B hears; P freezes on B",
        "B loses its lease; lease of B ends",
    )
    assert not any(node.runs for node in world.nodes.values())


def test_who_comes_home_waits_for_what_it_forwarded() -> None:
    Walk(Scenario("", path="BA", attempts=2, senders="C", messages=2), 1).follow(
        *SETTLED,
        "P is to move from B to A; B->A; A->B; etcd applies 2 of B; B hears; P freezes on B",
        "a message from C; C->A; B->A; etcd applies 2 of A; A hears",
        "a message from C; C->A",
    )


def test_a_pointer_stays_while_its_node_does() -> None:
    Walk(Scenario("", nodes="ABCD", path="BD", attempts=2, senders="C", messages=2), 1).follow(
        *SETTLED,
        "a message from C; C->A",
        "P is to move from B to D; B->D; D->B; etcd applies 2 of B; B hears; P freezes on B; B->D",
        "etcd applies 1 of D; D hears; A sees; A sees; A sees",
        "a message from C; C->A",
    )


def test_the_next_move_waits_for_the_homecoming() -> None:
    core = core_on("A", {"B", "C"})
    leave(core, "B", 20, Luggage(None))
    core.moved_seen(Found("B", 21))
    core.asked("B", 1)
    (commit,) = requests(core.parcel_arrived("B", Parcel(1, 22, 11, None)))
    won = core.answered(Answer(commit.request, Outcome.DONE, 23))
    flush = Flush("A", 1)
    assert won[:2] == [Adopt(Parcel(1, 22, 11, None), 23), Send("B", Forwarded(flush, ("A",)))]
    assert not any(isinstance(action, Send) for action in core.leave("C"))
    core.flushed("B", flush)
    assert any(isinstance(action, Send) for action in core.leave("C"))


def test_who_looks_at_a_tombstone_hears_of_the_end_of_the_latest_holder() -> None:
    core = tombstone_on_a({"B", "C", "D"}, Watcher("C", "w"))
    core.moved_seen(Found("D", 25))
    assert not any(isinstance(action, TellWatchers) for action in core.epoch_ended("B"))
    assert TellWatchers(frozenset({Watcher("C", "w")})) in core.epoch_ended("D")


def test_a_pointer_leaves_a_node_that_is_gone() -> None:
    core = tombstone_on_a({"B", "C", "D"})
    core.moved_seen(Found("D", 25))
    core.epoch_ended("B")
    message = Message("C", 1, "hello")
    assert core.arrived(message, Way("C")) == [Send("D", Forwarded(message, ("A",)))]


def test_who_watches_a_process_that_died_elsewhere_hears_of_it() -> None:
    core = core_on("A", {"B", "C"})
    leave(core, "B", 20, Luggage(None, frozenset({Watcher("C", "w")})))
    (abort,) = requests(core.deadline())
    ended = core.answered(Answer(abort.request, Outcome.FAILED))
    assert TellWatchers(frozenset({Watcher("C", "w")})) in ended


def test_a_process_that_came_while_the_lease_was_in_doubt_has_ended() -> None:
    """Nobody else can know: the node that held its state, for a moment, is there still."""
    core = core_on("B", {"A", "C"})
    core.asked("A", 1)
    core.parcel_arrived("A", Parcel(1, 20, 11, None, watchers=frozenset({Watcher("C", "w")})))
    core.lease_lost()
    core.registered(Registration(10, 7))
    assert not any(isinstance(action, TellWatchers) for action in core.moved_seen(Found("B", 15)))
    told, deletion = core.moved_seen(Found("B", 21))
    assert told == TellWatchers(frozenset({Watcher("C", "w")}))
    assert isinstance(deletion, Transact)


def test_what_the_watch_shows_late_is_old() -> None:
    """A source that has read {D} after its abort failed sees {C} of a time before: C's end says nothing."""
    core = core_on("A", {"B", "C", "D"})
    leave(core, "B", 20, Luggage(None, frozenset({OF_B})))
    (abort,) = requests(core.deadline())
    core.answered(Answer(abort.request, Outcome.FAILED, found=Found("D", 25)))
    core.moved_seen(Found("C", 22))
    assert not any(isinstance(action, TellWatchers) for action in core.epoch_ended("C"))


def test_an_assertion_is_repeated_until_it_is_answered_under_its_number() -> None:
    core = core_on("B", {"A", "C"})
    (asserted,) = core.watch(OF_B)
    first = Assertion(OF_B, 1)
    assert asserted == Send("A", first)
    (again,) = core.relisted()
    second = Assertion(OF_B, 2)
    assert again == Send("A", second)
    core.answer_assertion(first, alive=True)
    assert core.assert_again() == [again]
    assert core.answer_assertion(first, alive=False) == []
    core.answer_assertion(second, alive=True)
    assert core.assert_again() == []


def test_a_watcher_hears_once() -> None:
    core = core_on("B", {"A", "C"})
    core.watch(OF_B, asserted=True)
    assert core.epoch_ended("A") == [Fire(OF_B, Reason.NOCONNECTION)]
    assert core.exit_heard(OF_B) == []


def test_who_waits_for_a_flush_hears_at_once_that_the_holder_ended() -> None:
    core = core_on("B", {"A", "C"})
    core.watch(OF_B, asserted=True)
    assert core.moved_seen(Found("C", 21)) == [Send("A", Flush("B", 1))]
    assert core.epoch_ended("C") == [Fire(OF_B, Reason.NOCONNECTION)]


def test_a_flush_of_what_the_process_sent_goes_again_after_a_close_and_counts_not_for_the_dead() -> None:
    core = core_on("A", {"B", "C", "D"})
    frozen = leave(core, "B", 20, Luggage(None, sent_to=frozenset({"A", "C", "D"})))
    assert frozen == [Send("C", LinkFlush(1)), Send("D", LinkFlush(1))]
    assert core.link_closed("C") == [Send("C", LinkFlush(1))]
    core.link_flushed("C", 1)
    (sent,) = core.epoch_ended("D")
    assert isinstance(sent, Send)
    assert isinstance(sent.note, Parcel)


def test_an_answer_to_the_flush_of_an_earlier_move_does_not_count() -> None:
    core = core_on("A", {"B", "C"})
    leave(core, "B", 20, Luggage(None, sent_to=frozenset({"C"})))
    (abort,) = requests(core.deadline())
    core.answered(Answer(abort.request, Outcome.DONE, 21))
    leave(core, "B", 22, Luggage(None, sent_to=frozenset({"C"})))
    assert core.link_flushed("C", 1) == []
    (sent,) = core.link_flushed("C", 2)
    assert isinstance(sent, Send)
    assert isinstance(sent.note, Parcel)


def test_a_flush_is_answered_the_way_it_came() -> None:
    core = tombstone_on_a({"B", "C"})
    flush = Flush("C", 4)
    assert core.arrived(flush, Way("C")) == [Send("B", Forwarded(flush, ("A",)))]
    assert core.flushed("B", flush) == [Send("C", Flushed(flush))]
    assert core.flushed("B", flush) == []


def test_a_node_that_was_started_again_numbers_above_its_former_life() -> None:
    former, present, accepted = Stamps(1), Stamps(2), Accepted()
    early, late = former.next(), former.next()
    assert accepted.accept("C", early)
    assert accepted.accept("C", present.next())
    assert not accepted.accept("C", late)


def test_a_node_that_has_forgotten_that_a_process_may_move_is_heard_where_it_was_born() -> None:
    core = core_on("A", {"C"})
    numbered, forgotten, again = (Message("C", number, number) for number in (7, 0, 8))
    for message in (numbered, forgotten, again, forgotten):
        assert core.arrived(message, Way("C")) == [Deliver(message)]
    assert core._accepted.highest == {}, "what comes after it has moved is no later than that"


def test_a_move_that_makes_no_sense_is_refused_with_the_reason() -> None:
    assert core_on("B", {"A", "C"}).leave("C") == [Finished(Verdict.STAYED, "the process does not run here")]
    core = core_on("A", {"B"})
    assert core.leave("A") == [Finished(Verdict.STAYED, "it is on node A already")]
    assert core.leave("C") == [Finished(Verdict.STAYED, "there is no link to node C")]
    assert core.leave("B") == [Send("B", Ask(1))]
    assert core.leave("B") == [Finished(Verdict.STAYED, "it is moving already")]


def test_a_node_without_a_lease_neither_gives_nor_takes() -> None:
    core = core_on("A", {"B"})
    core.lease_lost()
    assert core.leave("B") == [Finished(Verdict.STAYED, "the lease of this node is over")]
    taker = core_on("B", {"A"})
    taker.lease_lost()
    assert taker.asked("A", 1) == [Send("A", Refused(1, "its lease is over"))]


def test_a_process_marked_as_another_nodes_stays() -> None:
    core = core_on("A", {"B"})
    core.leave("B")
    (read,) = requests(core.reserved("B", 1))
    (finished,) = core.answered(Answer(read.request, Outcome.FAILED, found=Found("C", 9)))
    assert finished == Finished(Verdict.STAYED, "the process is marked as another node's")


def test_a_process_that_freezes_too_late_is_thawed() -> None:
    core = core_on("A", {"B"})
    core.leave("B")
    core.deadline()
    assert core.frozen(Luggage(None)) == [Resume()]


def test_what_is_frozen_has_no_end_of_its_own() -> None:
    """Should the VM it ran in end now, its state is on its way all the same."""
    core = core_on("A", {"B"})
    leave(core, "B", 20, Luggage(None))
    assert core.exited() == []
    core.moved_seen(Found("B", 21))
    assert core.tombstone is not None


def test_a_second_deadline_asks_for_nothing_more() -> None:
    core = core_on("A", {"B"})
    leave(core, "B", 20, Luggage(None))
    assert len(requests(core.deadline())) == 1
    assert core.deadline() == []


def test_who_watches_no_more_hears_nothing() -> None:
    core = core_on("B", {"A"})
    core.watch(OF_B, asserted=True)
    core.unwatch(OF_B)
    assert core.epoch_ended("A") == []


def test_who_asks_last_gets_the_place_until_a_state_has_come() -> None:
    core = core_on("B", {"A", "C"})
    assert core.asked("A", 1) == [Send("A", Reserved(1))]
    assert core.asked("A", 2) == [Send("A", Reserved(2))]
    assert core.asked("C", 1) == [Send("C", Reserved(1))]
    for attempt in (1, 2):
        (refused,) = core.parcel_arrived("A", Parcel(attempt, 20, 11, None))
        assert refused == Send("A", Refused(attempt, "there is no reservation any more"))
    assert requests(core.parcel_arrived("C", Parcel(1, 20, 13, None)))
    for source in ("A", "C"):
        assert core.asked(source, 3) == [Send(source, Refused(3, "it has an earlier state of the process"))]


def test_a_target_that_lost_says_so_and_what_it_held_is_for_nobody() -> None:
    core = core_on("B", {"A", "C"})
    core.asked("A", 1)
    (commit,) = requests(core.parcel_arrived("A", Parcel(1, 20, 11, None)))
    flush = Flush("C", 1)
    assert core.arrived(flush, Way("C")) == []
    lost = core.answered(Answer(commit.request, Outcome.FAILED, found=Found("A", 21)))
    assert lost == [Send("A", Refused(1, "the commit came too late")), Send("C", Flushed(flush))]


def test_a_node_that_begins_goes_direct() -> None:
    core = core_on("C", {"A", "B"})
    core.listed(Found("B", 21))
    message = Message("C", 1, "hello")
    assert core.arrived(message) == [Send("B", message)]
    assert core.moved_seen(Found("B", 21)) == []


def test_what_has_no_number_comes_before_all_that_has_one() -> None:
    accepted = Accepted({"B": 7})
    assert accepted.accept("C", 0)
    assert accepted.accept("C", 0)
    assert accepted.accept("C", 3)
    assert not accepted.accept("C", 0), "its node knew already that the process may move when it sent this"
    assert not accepted.accept("B", 0)
