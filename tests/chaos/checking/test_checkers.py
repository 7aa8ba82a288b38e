"""Every checker accepts what was promised and finds what breaks it, in histories made by hand or drawn and spoilt."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.chaos.checking.everything import check_all
from tests.chaos.checking.looks import check_looks
from tests.chaos.checking.owners import check_acts, check_writes
from tests.chaos.checking.registers import check_registers
from tests.chaos.checking.run import Run
from tests.chaos.checking.stories import Story, pid
from tests.chaos.checking.streams import check_losses, check_order
from tests.chaos.checking.troubles import What
from tests.chaos.checking.watches import check_answers, check_watches

Check = Callable[[Run], list[str]]


def fine(story: Story) -> None:
    assert check_all(story.run()) == []


def wrong(story: Story, check: Check, text: str) -> None:
    """The checker finds just this."""
    problems = check(story.run())
    assert len(problems) == 1, problems
    assert text in problems[0]


def down(story: Story, at: float, who: str, other: str, f: str = "down") -> None:
    story.event(at, who, f, from_=other, error="node disconnected: noconnection to b: it was told so")


class TestOrder:
    def test_a_stream_in_order_is_fine(self) -> None:
        story = Story()
        story.send(1, "a1", "b1", 1, 5)
        story.took(2, "b1", "a1", 1, 3)
        story.took(3, "b1", "a1", 4, 5)
        fine(story)

    def test_a_message_that_comes_twice(self) -> None:
        story = Story()
        story.send(1, "a1", "b1", 1, 5)
        story.took(2, "b1", "a1", 1, 5)
        story.took(3, "b1", "a1", 5, 5)
        wrong(story, check_order, "5 arrived after 5")

    def test_messages_that_change_places(self) -> None:
        story = Story()
        story.send(1, "a1", "b1", 1, 3)
        for n in (1, 3, 2):
            story.took(2, "b1", "a1", n, n)
        wrong(story, check_order, "2 arrived after 3")

    def test_a_message_that_was_refused_and_came(self) -> None:
        story = Story()
        story.send(1, "a1", "b1", 1, 2, refused=(2,))
        story.took(2, "b1", "a1", 1, 2)
        wrong(story, check_order, "2 arrived, which was refused")

    def test_a_message_that_was_never_sent(self) -> None:
        story = Story()
        story.send(1, "a1", "b1", 1, 2)
        story.took(2, "b1", "a1", 1, 3)
        wrong(story, check_order, "3 arrived, which was never sent")


class TestLosses:
    def test_what_is_lost_without_a_word(self) -> None:
        story = Story()
        story.send(1, "a1", "b1", 1, 3)
        story.took(2, "b1", "a1", 1, 1)
        story.took(2, "b1", "a1", 3, 3)
        wrong(story, check_losses, "2 is lost")

    def test_the_last_of_a_stream_whose_ends_live(self) -> None:
        story = Story()
        story.send(1, "a1", "b1", 1, 3)
        story.took(2, "b1", "a1", 1, 2)
        wrong(story, check_losses, "3 is lost")

    def test_what_was_on_its_way_when_an_end_died_is_nobodys(self) -> None:
        story = Story()
        story.send(1, "a1", "b1", 1, 3)
        story.took(2, "b1", "a1", 1, 2)
        story.trouble("b", What.DEAD, 2.1, 8)
        fine(story)

    def test_what_should_have_come_long_before_an_end_died(self) -> None:
        story = Story()
        story.send(1, "a1", "b1", 1, 3)
        story.took(2, "b1", "a1", 1, 2)
        story.trouble("b", What.DEAD, 30, 35)
        wrong(story, check_losses, "3 is lost")

    def test_what_a_close_took_with_it_of_which_the_sender_was_told(self) -> None:
        story = Story()
        story.ask(0.6, 0.7, "a1", "monitor", pid="b1")
        story.send(1, "a1", "b1", 1, 3)
        story.took(2, "b1", "a1", 1, 1)
        story.trouble("b", What.NATS, 1, 11)
        down(story, 10, "a1", "b1")
        fine(story)

    def test_a_close_after_a_partition_that_was_shorter_than_the_timeout(self) -> None:
        story = Story()
        story.ask(0.6, 0.7, "a1", "monitor", pid="b1")
        story.trouble("b", What.NATS, 1, 4)
        down(story, 4.5, "a1", "b1")
        wrong(story, check_losses, "closed, for no reason")

    def test_a_close_that_came_long_before_excuses_no_loss(self) -> None:
        story = Story()
        story.trouble("b", What.NATS, 1, 11)
        down(story, 10, "a1", "b1")
        story.send(20, "a1", "b1", 1, 3)
        story.took(21, "b1", "a1", 1, 1)
        story.took(21, "b1", "a1", 3, 3)
        wrong(story, check_losses, "2 is lost")

    @pytest.mark.parametrize(("what", "seconds"), [(What.ETCD, 4.0), (What.STOPPED, 4.0)])
    def test_a_lease_in_doubt_closes_links(self, what: What, seconds: float) -> None:
        story = Story()
        story.trouble("b", what, 1, 1 + seconds)
        down(story, 5.5, "a1", "b1")
        assert check_losses(story.run()) == []

    def test_a_registration_that_ended_closes_links(self) -> None:
        story = Story()
        story.change(2, "nodes/b", None, 20.0)
        down(story, 20.5, "a1", "b1")
        assert check_losses(story.run()) == []
        down(story, 40.0, "a1", "b1")
        wrong(story, check_losses, "closed, for no reason")


class TestAnswers:
    def test_a_request_that_is_never_answered(self) -> None:
        story = Story()
        story.ask(1, None, "a1", "monitor", pid="b1")
        wrong(story, check_answers, "never answered")

    def test_a_request_of_a_node_that_died_needs_no_answer(self) -> None:
        story = Story()
        story.ask(1, None, "a1", "monitor", pid="b1")
        story.trouble("a", What.DEAD, 3, 9)
        fine(story)

    def test_an_answer_that_is_late(self) -> None:
        story = Story()
        story.ask(1, 20, "a1", "spawn", node="b")
        wrong(story, check_answers, "19.0 s, expected 14 at most")

    def test_time_in_which_the_node_was_stopped_does_not_count(self) -> None:
        story = Story()
        story.ask(1, 20, "a1", "spawn", node="b")
        story.trouble("a", What.STOPPED, 2, 12)
        fine(story)

    def test_an_error_that_nobody_expects_and_a_part_that_fails(self) -> None:
        story = Story()
        story.ask(1, 2, "a1", "register", key="x", scope="STRONG", answer="Internal")
        wrong(story, check_answers, "an answer nobody expects")
        story = Story()
        story.event(1, "a1", "failed", pid="a2", entry="app:sender", error="attempt to call a nil value")
        wrong(story, check_answers, "attempt to call a nil value")


class TestWatches:
    def watched(self, end: float | None = 5.0, fired: float | None = 6.0, *, error: str | None = None) -> Story:
        story = Story()
        story.ask(1, 2, "a1", "monitor", pid="b1")
        if end is not None:
            story.event(end, "b1", "ends")
        if fired is not None:
            story.event(fired, "a1", "exit", from_="b1", error=error)
        return story

    def test_a_monitor_that_fires(self) -> None:
        fine(self.watched())

    def test_one_that_never_does(self) -> None:
        wrong(self.watched(fired=None), check_watches, "has not fired, 95.0 s after")

    def test_one_that_never_does_though_the_node_died(self) -> None:
        story = self.watched(end=None, fired=None)
        story.trouble("b", What.DEAD, 5, 9)
        wrong(story, check_watches, "has not fired, 95.0 s after")

    def test_one_that_is_kept_from_firing_for_a_while(self) -> None:
        story = self.watched(fired=None)
        story.trouble("b", What.NATS, 4, 12)
        story.until = 18.0
        fine(story)
        story.until = 27.0
        wrong(story, check_watches, "has not fired, 22.0 s after")

    def test_one_whose_watcher_died_too(self) -> None:
        story = self.watched(fired=None)
        story.trouble("a", What.DEAD, 7, 9)
        fine(story)

    def test_one_that_fires_twice(self) -> None:
        story = self.watched()
        story.event(7, "a1", "exit", from_="b1", error=None)
        wrong(story, check_watches, "fired 2 times, was confirmed 1 times")

    def test_one_that_tells_of_an_end_that_has_not_come(self) -> None:
        wrong(self.watched(end=8.0, fired=6.0), check_watches, "lives")

    def test_words_that_were_said_before_the_end_and_come_after_it(self) -> None:
        story = self.watched(end=None, fired=None)
        for n in (1, 2):
            story.ask(4, 4.1, "b1", "word", to="a1", n=n)
        story.event(5, "b1", "ends")
        story.event(5.5, "a1", "word", from_="b1", n=1)
        story.event(6, "a1", "exit", from_="b1", error=None)
        story.event(6.1, "a1", "word", from_="b1", n=2)
        wrong(story, check_watches, "after [1] of the words [1, 2]")

    def test_a_link_that_is_silent_when_the_other_was_terminated(self) -> None:
        story = Story()
        story.ask(1, 2, "a1", "link", pid="b1")
        story.ask(3, 4, "a1", "terminate", pid="b1")
        wrong(story, check_watches, "link of")


class TestWrites:
    def held(self) -> Story:
        story = Story()
        story.change(10, "locks/x", b"{}", 1)
        story.ask(0.5, 1.5, "a1", "acquire", key="x", answer={"token": 10})
        return story

    def test_writes_of_the_holder(self) -> None:
        story = self.held()
        story.ask(2, 3, "a1", "write", key="x", token=10, n=1)
        story.write(11, "x", "a1", 10, 1, 2.5)
        fine(story)

    def test_a_write_of_one_who_holds_it_no_more(self) -> None:
        story = self.held()
        story.change(11, "locks/x", None, 2)
        story.change(12, "locks/x", b"{}", 2)
        story.write(13, "x", "a1", 10, 1, 2.5)
        wrong(story, check_writes, "took effect at revision 13, held by 12")

    def test_a_write_that_was_refused_and_took_effect(self) -> None:
        story = self.held()
        story.ask(2, 3, "a1", "write", key="x", token=10, n=1, answer="PermissionDenied")
        story.write(11, "x", "a1", 10, 1, 2.5)
        wrong(story, check_writes, "though it was refused")

    def test_a_write_that_was_confirmed_and_had_none_or_two(self) -> None:
        story = self.held()
        story.ask(2, 3, "a1", "write", key="x", token=10, n=1)
        wrong(story, check_writes, "took effect 0 times")
        story.write(11, "x", "a1", 10, 1, 2.5)
        story.write(12, "x", "a1", 10, 1, 2.6)
        wrong(story, check_writes, "took effect 2 times")

    def test_a_holder_that_acts_after_its_lease(self) -> None:
        story = self.held()
        story.change(20, "locks/x", None, 7)
        story.ask(8, None, "a1", "write", key="x", token=10, n=2)
        wrong(story, check_acts, "acts at 8.000, its lock was over at 7.000")

    def test_one_that_gave_it_back_may_live_on(self) -> None:
        story = self.held()
        story.ask(6, 7, "a1", "release", key="x", answer={"value": True})
        story.change(20, "locks/x", None, 6.5)
        story.event(8, "a1", "ends")
        fine(story)


class TestRegisters:
    def test_one_after_the_other(self) -> None:
        story = Story()
        story.ask(1, 2, "a1", "acquire", key="x", answer={"token": 5})
        story.ask(3, 4, "a1", "release", key="x", answer={"value": True})
        story.ask(5, 6, "b1", "acquire", key="x", answer={"token": 6})
        assert check_registers(story.run()) == []

    def test_two_holders_at_once(self) -> None:
        story = Story()
        story.ask(1, 2, "a1", "acquire", key="x", answer={"token": 5})
        story.ask(3, 4, "b1", "acquire", key="x", answer={"token": 6})
        story.ask(5, 6, "a1", "release", key="x", answer={"value": True})
        wrong(story, check_registers, "is not linearizable")

    def test_a_token_that_does_not_grow(self) -> None:
        story = Story()
        story.ask(1, 2, "a1", "acquire", key="x", answer={"token": 5})
        story.ask(3, 4, "a1", "release", key="x", answer={"value": True})
        story.ask(5, 6, "b1", "acquire", key="x", answer={"token": 5})
        wrong(story, check_registers, "is not linearizable")

    def test_taken_by_one_who_gave_it_back_before(self) -> None:
        story = Story()
        story.ask(1, 2, "a1", "register", key="n", scope="CONSISTENT")
        story.ask(3, 4, "a1", "unregister", key="n", answer={"value": True})
        taken = {"kind": "AlreadyExists", "error": "taken", "details": {"by": pid("a1")}}
        story.ask(5, 6, "b1", "register", key="n", scope="CONSISTENT", answer=taken)
        wrong(story, check_registers, "is not linearizable")

    def test_a_name_is_free_with_its_registration_and_not_before(self) -> None:
        for at, problems in ((20.0, 0), (10.0, 1)):
            story = Story()
            story.ask(1, 2, "a1", "register", key="n", scope="CONSISTENT")
            story.change(9, "nodes/a", None, 15.0)
            story.ask(at, at + 1, "b1", "register", key="n", scope="CONSISTENT")
            story.event(30, "a1", "look", key="m", value=False)  # it lives
            assert len(check_registers(story.run())) == problems

    def test_a_name_that_outlives_its_registration(self) -> None:
        story = Story()
        story.ask(1, 2, "a1", "register", key="n", scope="CONSISTENT")
        story.change(9, "nodes/a", None, 15.0)
        taken = {"kind": "AlreadyExists", "error": "taken", "details": {"by": pid("a1")}}
        story.ask(20, 21, "b1", "register", key="n", scope="CONSISTENT", answer=taken)
        wrong(story, check_registers, "is not linearizable")

    def test_a_name_had_and_lost_before_the_answer_says_that_another_has_it(self) -> None:
        for end, problems in ((9.0, 0), (20.0, 1)):
            story = Story()
            first = {"kind": "AlreadyExists", "error": "taken", "details": {"by": pid("b1")}}
            story.ask(1, 12, "a1", "register", key="n", scope="CONSISTENT", answer=first)
            second = {"kind": "AlreadyExists", "error": "taken", "details": {"by": pid("a1")}}
            story.ask(3, 4, "b2", "register", key="n", scope="CONSISTENT", answer=second)
            story.change(9, "nodes/a", None, end)
            story.ask(10, 11, "b1", "register", key="n", scope="CONSISTENT")
            assert len(check_registers(story.run())) == problems

    def test_an_unknown_outcome_is_held_against_nobody(self) -> None:
        story = Story()
        story.ask(1, 6, "a1", "acquire", key="x", answer="Timeout")
        taken = {"kind": "AlreadyExists", "error": "taken", "details": {"holder": pid("a1")}}
        story.ask(8, 9, "b1", "acquire", key="x", answer=taken)
        story.ask(10, 11, "b1", "acquire", key="x", answer={"token": 7})
        assert check_registers(story.run()) == []


class TestLooks:
    def named(self) -> Story:
        """``n``: nobody, a1 from 10, nobody from 20, b1 from 30."""
        story = Story()
        for revision, value, at in ((5, pid("a1"), 10.0), (6, None, 20.0), (7, pid("b1"), 30.0)):
            story.change(revision, "names/n", None if value is None else value.encode(), at)
        return story

    def look(self, story: Story, at: float, who: str, value: str | None) -> None:
        story.event(at, who, "looks", values={"n": pid(value) if value else False})

    def test_what_was_so_milliseconds_before(self) -> None:
        story = self.named()
        for at, value in ((5, None), (10.1, None), (10.2, "a1"), (20.2, "a1"), (20.3, None), (31, "b1")):
            self.look(story, at, "c1", value)
        fine(story)

    def test_going_back(self) -> None:
        story = self.named()
        self.look(story, 10.2, "c1", "a1")
        self.look(story, 20.1, "c1", None)
        self.look(story, 20.2, "c1", "a1")
        wrong(story, check_looks, "an earlier state")

    def test_two_vms_of_a_node_go_each_their_way(self) -> None:
        story = self.named()
        self.look(story, 20.1, "c1", None)
        self.look(story, 20.2, "c2@others", "a1")
        fine(story)

    def test_what_never_was(self) -> None:
        story = self.named()
        self.look(story, 12, "c1", "c9")
        wrong(story, check_looks, "what never was")

    def test_what_was_so_only_later(self) -> None:
        story = self.named()
        self.look(story, 5, "c1", "a1")
        wrong(story, check_looks, "only later")

    def test_far_behind_on_a_node_that_is_well(self) -> None:
        story = self.named()
        self.look(story, 27, "c1", "a1")
        wrong(story, check_looks, "too far behind")
        story.trouble("c", What.ETCD, 19, 26)
        fine(story)

    def test_not_knowing_what_was_registered_here(self) -> None:
        story = self.named()
        story.ask(9, 10.5, "a1", "register", key="n", scope="CONSISTENT")
        self.look(story, 10.6, "a2", None)
        wrong(story, check_looks, "only later")  # nobody had it before, and nobody will again

    def test_not_knowing_that_it_was_given_back_here(self) -> None:
        story = self.named()
        story.ask(19, 20.5, "a1", "unregister", key="n", answer={"value": True})
        self.look(story, 20.6, "a2", "a1")
        wrong(story, check_looks, "an earlier state")

    def test_not_knowing_elsewhere_what_was_registered_strongly(self) -> None:
        story = self.named()
        story.ask(9, 10.5, "a1", "register", key="n", scope="STRONG")
        self.look(story, 12.6, "c1", None)
        story.trouble("c", What.ETCD, 11, 16)
        wrong(story, check_looks, "after a STRONG registration")

    def test_a_node_whose_registration_ended_meanwhile_need_not_know(self) -> None:
        story = self.named()
        story.ask(9, 10.5, "a1", "register", key="n", scope="STRONG")
        story.change(8, "nodes/c", None, 12.0)
        self.look(story, 12.6, "c1", None)
        story.trouble("c", What.ETCD, 5, 16)
        fine(story)

    def test_told_that_it_was_revoked_while_it_was_not(self) -> None:
        story = self.named()
        story.event(20.1, "a1", "revoked", key="n")
        self.look(story, 20.2, "a2", None)
        fine(story)
        story.event(31, "b1", "revoked", key="n")
        wrong(story, check_looks, "but had it still")

    def test_an_answer_etcd_knows_nothing_of(self) -> None:
        story = self.named()
        story.ask(40, 41, "c1", "register", key="n", scope="CONSISTENT")
        wrong(story, check_looks, "etcd never had")


def story_of(arrivals: list[int], refused: list[int]) -> Story:
    story = Story()
    story.send(1, "a1", "b1", 1, 30, refused=tuple(refused))
    for place, n in enumerate(arrivals):
        story.took(2 + place / 100, "b1", "a1", n, n)
    return story


@given(st.sets(st.integers(1, 30), max_size=6))
@settings(max_examples=60, deadline=None)
def test_a_stream_is_fine_exactly_as_it_was_sent(refused: set[int]) -> None:
    arrivals = [n for n in range(1, 31) if n not in refused]
    fine(story_of(arrivals, sorted(refused)))


@given(
    st.sets(st.integers(1, 30), max_size=6), st.integers(0, 23), st.sampled_from(["drop", "double", "swap", "invent"])
)
@settings(max_examples=100, deadline=None)
def test_any_spoilt_stream_is_found(refused: set[int], place: int, how: str) -> None:
    arrivals = [n for n in range(1, 31) if n not in refused]
    match how:
        case "drop":
            del arrivals[place]
        case "double":
            arrivals.insert(place + 1, arrivals[place])
        case "swap":
            other = (place + 1) % len(arrivals)
            arrivals[place], arrivals[other] = arrivals[other], arrivals[place]
        case "invent":
            arrivals.append(31)
    run = story_of(arrivals, sorted(refused)).run()
    assert check_order(run) + check_losses(run)


@st.composite
def walks(draw: st.DrawFn) -> tuple[list[str], list[int]]:
    """Holders of a name, one a second, and the places of a walk through them that never goes back."""
    holders = draw(st.lists(st.sampled_from(["a1", "a2", "b1", "b2"]), min_size=2, max_size=8, unique=True))
    places = draw(st.lists(st.integers(0, 2 * len(holders)), min_size=2, max_size=12))
    return holders, sorted(places)


def looks_of(holders: list[str], places: list[int]) -> Story:
    """Even places are nobody, odd ones the holders."""
    story = Story()
    for number, holder in enumerate(holders):
        story.change(10 + 2 * number, "names/n", pid(holder).encode(), 1.0 + number)
        story.change(11 + 2 * number, "names/n", None, 1.5 + number)
    story.trouble("c", What.ETCD, 0, 50)
    for number, place in enumerate(places):
        value = pid(holders[place // 2]) if place % 2 else False
        story.event(20.0 + number, "c1", "looks", values={"n": value})
    return story


@given(walks())
@settings(max_examples=60, deadline=None)
def test_look_ups_that_never_go_back_are_fine(walk: tuple[list[str], list[int]]) -> None:
    fine(looks_of(*walk))


@given(walks(), st.data())
@settings(max_examples=60, deadline=None)
def test_look_ups_that_go_back_to_an_earlier_holder_are_found(
    walk: tuple[list[str], list[int]], data: st.DataObject
) -> None:
    holders, places = walk
    earlier = data.draw(st.integers(0, len(holders) - 2))
    later = data.draw(st.integers(earlier + 1, len(holders) - 1))
    assert check_looks(looks_of(holders, [*places, 2 * later + 1, 2 * earlier + 1]).run())
