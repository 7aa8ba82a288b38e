"""The link core, transition by transition."""

from __future__ import annotations

import msgpack
import pytest

from cluster import frame as wire
from cluster.errors import Unavailable
from cluster.frame import Frame, Reset
from cluster.link import (
    ACK_BYTES,
    ACK_DELAY,
    PROBE_EVERY,
    RELIEF,
    SLACK,
    Action,
    Closed,
    Deliver,
    Limits,
    LinkCore,
    Publish,
    State,
)
from cluster.session import BATCH_BYTES, FIRST_RETRY, LAST_RETRY, NAK_PAUSE

A_EPOCH, B_EPOCH, REVISION = 10, 20, 30


def packed(number: int, size: int = 0) -> bytes:
    envelope: bytes = msgpack.packb([1, b"to", b"from", 0, number, b"x" * size], use_bin_type=False)
    return envelope


def open_core(limits: Limits | None = None) -> LinkCore:
    core = LinkCore("a", "b", limits)
    assert core.pair(A_EPOCH, B_EPOCH, "") == []
    return core


def peer_core() -> LinkCore:
    core = LinkCore("b", "a")
    core.pair(B_EPOCH, A_EPOCH, "")
    return core


def sent(core: LinkCore, *numbers: int, now: float = 0.0) -> list[bytes]:
    for number in numbers:
        core.send(packed(number))
    return core.frames(now)


def arrive(core: LinkCore, payload: bytes, now: float = 0.0, revision: int = REVISION) -> list[Action]:
    frame = wire.read(payload)
    assert isinstance(frame, Frame)
    return core.frame(frame, len(payload), now, revision)


def numbers(actions: list[Action]) -> list[int]:
    return [envelope[4] for action in actions if isinstance(action, Deliver) for envelope in action.envelopes]


def frames_in(actions: list[Action]) -> list[Frame]:
    frames = [wire.read(action.payload) for action in actions if isinstance(action, Publish)]
    return [frame for frame in frames if isinstance(frame, Frame)]


def reasons(actions: list[Action]) -> list[str]:
    return [action.reason for action in actions if isinstance(action, Closed)]


class TestSending:
    def test_32_envelopes_go_in_one_frame(self) -> None:
        a, b = open_core(), peer_core()
        frames = sent(a, *range(70))
        assert len(frames) == 3
        assert [n for frame in frames for n in numbers(arrive(b, frame))] == list(range(70))

    def test_a_frame_stays_under_256_kib_but_for_one_large_envelope(self) -> None:
        a = open_core()
        for size in (100, 300_000, 100, 200_000, 100_000):
            a.send(packed(1, size))
        sizes = [len(frame) for frame in a.frames(0.0)]
        assert [size > BATCH_BYTES for size in sizes] == [False, True, False, False]

    def test_it_is_refused_when_no_pair_is_known(self) -> None:
        core = LinkCore("a", "b")
        with pytest.raises(Unavailable, match="link to node b is closed"):
            core.send(packed(1))

    @pytest.mark.parametrize("limits", [Limits(max_envelopes=3), Limits(max_bytes=3 * len(packed(1)))])
    def test_senders_are_held_back_when_too_much_waits_and_go_on_when_half_of_it_is_gone(self, limits: Limits) -> None:
        a, b = open_core(limits), peer_core()
        first = sent(a, 1, 2)
        assert not a.congested
        second = sent(a, 3)
        assert a.congested
        for frame in first:
            arrive(b, frame)
        (ack,) = b.acknowledge()
        assert isinstance(ack, Publish)
        arrive(a, ack.payload)
        assert not a.congested
        assert a.relieved == (a.waiting_envelopes < 3 * RELIEF)
        assert (a.waiting_envelopes, a.waiting_bytes) == (1, len(packed(3)))
        assert numbers(arrive(b, second[0])) == [3]

    @pytest.mark.parametrize("limits", [Limits(max_envelopes=3), Limits(max_bytes=3 * len(packed(1)))])
    def test_what_was_on_its_way_is_taken_until_far_too_much_waits(self, limits: Limits) -> None:
        a = open_core(limits)
        for number in range(3 * SLACK):
            a.send(packed(number % 100))
        with pytest.raises(Unavailable, match="wait for node b"):
            a.send(packed(4))
        a.send(packed(99), refusable=False)
        assert numbers(arrive(peer_core(), a.frames(0.0)[-1]))[-1] == 99


class TestReceiving:
    def test_a_frame_is_delivered_once(self) -> None:
        a, b = open_core(), peer_core()
        (frame,) = sent(a, 1, 2)
        assert numbers(arrive(b, frame)) == [1, 2]
        assert arrive(b, frame) == []
        assert b.counters.duplicates == 1

    def test_a_gap_is_told_once_and_what_is_missing_comes_again(self) -> None:
        a, b = open_core(), peer_core()
        frames = sent(a, *range(100))
        (nak,) = arrive(b, frames[1])
        assert isinstance(nak, Publish)
        assert arrive(b, frames[2]) == []
        assert b.counters.gaps == 2
        assert arrive(a, nak.payload) == []
        again = a.frames(0.0)
        assert again == frames
        assert [n for frame in again for n in numbers(arrive(b, frame))] == list(range(100))
        assert (a.n, b.n, a.counters.resent) == (1, 1, 4)

    def test_a_gap_is_told_again_when_it_stays(self) -> None:
        a, b = open_core(), peer_core()
        frames = sent(a, *range(100))
        assert len(arrive(b, frames[1], now=1.0)) == 1
        assert arrive(b, frames[1], now=1.0 + NAK_PAUSE / 2) == []
        assert len(arrive(b, frames[1], now=1.0 + NAK_PAUSE)) == 1

    def test_the_same_complaint_twice_in_a_row_makes_nothing_go_twice(self) -> None:
        a, b = open_core(), peer_core()
        frames = sent(a, *range(64))
        (nak,) = arrive(b, frames[1])
        assert isinstance(nak, Publish)
        arrive(a, nak.payload, now=1.0)
        assert len(a.frames(1.0)) == 2
        arrive(a, nak.payload, now=1.0 + NAK_PAUSE / 2)
        assert a.frames(1.0 + NAK_PAUSE / 2) == []

    def test_an_acknowledgement_of_some_frames_makes_those_under_way_not_go_again(self) -> None:
        a, b = open_core(), peer_core()
        frames = sent(a, *range(100))
        arrive(b, frames[0])
        (ack,) = b.acknowledge()
        assert isinstance(ack, Publish)
        arrive(a, ack.payload)
        assert a.frames(0.0) == []

    def test_a_gap_is_told_apart_from_the_news_of_other_frames(self) -> None:
        a, b = open_core(), peer_core()
        frames = sent(a, *range(100))
        arrive(b, frames[0])
        news, complaint = arrive(b, frames[2])
        assert isinstance(news, Publish)
        assert isinstance(complaint, Publish)
        arrive(a, news.payload)
        assert a.frames(0.0) == []
        arrive(a, complaint.payload)
        assert a.frames(0.0) == frames[1:]

    def test_after_a_close_the_next_session_carries_traffic(self) -> None:
        a, b = open_core(), peer_core()
        sent(a, 1)
        for frame in frames_in(a.close("test")):
            b.frame(frame, 10, 0.0, REVISION)
        assert numbers(arrive(b, sent(a, 2)[0])) == [2]
        assert numbers(arrive(a, sent(b, 3)[0])) == [3]

    def test_a_frame_of_a_former_session_is_dropped_and_answered_with_n(self) -> None:
        a, b = open_core(), peer_core()
        (old,) = sent(a, 1)
        b.close("test")
        (answer,) = frames_in(arrive(b, old))
        assert (answer.n, answer.seq) == (2, 0)

    def test_a_frame_of_a_later_session_closes_and_is_taken(self) -> None:
        a, b = open_core(), peer_core()
        a.close("test")
        actions = arrive(b, sent(a, 7)[0])
        assert reasons(actions) == ["node a closed the link"]
        assert numbers(actions) == [7]
        assert b.n == 2

    def test_an_ack_of_what_was_never_sent_is_a_protocol_error(self) -> None:
        a = open_core()
        head = wire.head("b", B_EPOCH, A_EPOCH, 1)
        assert "protocol error" in reasons(arrive(a, wire.ack(head, 1)))[0]

    def test_acks_of_another_session_do_not_count(self) -> None:
        a, b = open_core(), peer_core()
        arrive(b, sent(a, 1)[0])
        (ack,) = b.acknowledge()
        assert isinstance(ack, Publish)
        a.close("test")
        sent(a, 2)
        arrive(a, ack.payload)
        assert a.waiting_envelopes == 1


class TestAcknowledging:
    def test_an_ack_is_due_20_ms_after_the_first_frame(self) -> None:
        a, b = open_core(), peer_core()
        for payload, now in zip(sent(a, *range(64)), (1.0, 1.01), strict=True):
            arrive(b, payload, now)
        assert b.ack_due == 1.0 + ACK_DELAY
        (ack,) = frames_in(b.acknowledge())
        assert (ack.seq, ack.ack) == (0, 2)
        assert b.acknowledge() == []

    def test_every_frame_carries_the_ack(self) -> None:
        a, b = open_core(), peer_core()
        arrive(b, sent(a, 1)[0])
        arrive(a, sent(b, 2)[0])
        assert a.waiting_envelopes == 0
        assert b.ack_due is None

    def test_many_bytes_are_acknowledged_at_once(self) -> None:
        a, b = open_core(), peer_core()
        published: list[Frame] = []
        for number in range(ACK_BYTES // 200_000 + 1):
            a.send(packed(number, 200_000))
        for payload in a.frames(0.0):
            published += frames_in(arrive(b, payload))
        assert [frame.ack for frame in published] == [6]

    def test_a_probe_is_answered_by_one_ack(self) -> None:
        a = open_core()
        (ack,) = frames_in(arrive(a, wire.probe(wire.head("b", B_EPOCH, A_EPOCH, 1), 0)))
        assert (ack.seq, ack.ack, ack.envelopes) == (0, 0, [])

    def test_a_frame_unacknowledged_for_too_long_closes(self) -> None:
        a = open_core(Limits(timeout=90.0))
        sent(a, 1, now=5.0)
        assert reasons(a.tick(95.0)) == []
        assert reasons(a.tick(95.1)) == ["no acknowledgement from node b within 90 s"]

    def test_an_envelope_unsent_for_too_long_closes(self) -> None:
        a = open_core(Limits(timeout=90.0))
        a.send(packed(1))
        assert a.tick(1.0) == []
        assert reasons(a.tick(91.1)) == ["no acknowledgement from node b within 90 s"]


class TestRetrying:
    def test_the_first_frame_goes_again_and_the_pauses_double(self) -> None:
        a = open_core()
        first, _ = sent(a, *range(64), now=0.0)
        times, now = [], 0.0
        while now < 6.0:
            now = round(now + 0.05, 2)
            times += [now for action in a.tick(now) if action == Publish(B_EPOCH, first)]
        assert times == [0.25, 0.75, 1.75, 3.75, 5.75]
        assert LAST_RETRY == 2.0

    def test_when_the_answer_shows_that_more_is_missing_all_of_it_follows(self) -> None:
        a, b = open_core(), peer_core()
        frames = sent(a, *range(100))
        (again,) = a.tick(FIRST_RETRY)
        assert isinstance(again, Publish)
        arrive(b, again.payload)
        (ack,) = b.acknowledge()
        assert isinstance(ack, Publish)
        arrive(a, ack.payload, FIRST_RETRY)
        assert a.frames(FIRST_RETRY) == frames[1:]

    def test_a_peer_that_is_half_way_through_is_sent_nothing_twice_but_one_frame(self) -> None:
        a, b = open_core(), peer_core()
        frames = sent(a, *range(100))
        a.tick(FIRST_RETRY)
        arrive(b, frames[0])
        arrive(b, frames[1])
        (ack,) = b.acknowledge()
        assert isinstance(ack, Publish)
        arrive(a, ack.payload, FIRST_RETRY)
        assert a.frames(FIRST_RETRY) == []

    def test_a_peer_that_answers_late_is_sent_nothing_twice_but_one_frame(self) -> None:
        a, b = open_core(), peer_core()
        for frame in sent(a, *range(100)):
            arrive(b, frame)
        (again,) = a.tick(FIRST_RETRY)
        (ack,) = b.acknowledge()
        assert isinstance(ack, Publish)
        arrive(a, ack.payload, FIRST_RETRY)
        assert a.frames(FIRST_RETRY) == []
        assert isinstance(again, Publish)
        assert numbers(arrive(b, again.payload)) == []

    def test_nothing_goes_again_while_there_is_no_connection_and_all_of_it_after_a_reconnect(self) -> None:
        a = open_core()
        frames = sent(a, *range(64))
        assert a.tick(10.0, connected=False) == []
        a.reconnected(10.0)
        assert a.frames(10.0) == frames

    def test_what_was_acknowledged_meanwhile_does_not_go_again(self) -> None:
        a, b = open_core(), peer_core()
        frames = sent(a, *range(64))
        arrive(b, frames[0])
        a.reconnected(1.0)
        (ack,) = b.acknowledge()
        assert isinstance(ack, Publish)
        arrive(a, ack.payload, 1.0)
        assert a.frames(1.0) == frames[1:]

    def test_a_close_the_peer_has_not_heard_of_is_told_until_it_answers(self) -> None:
        a, b = open_core(), peer_core()
        a.close("test")
        told = [action for now in range(1, 8) for action in a.tick(float(now))]
        assert len(told) >= 3
        assert isinstance(told[-1], Publish)
        actions = arrive(b, told[-1].payload)
        assert reasons(actions) == ["node a closed the link"]
        for frame in frames_in(actions):
            a.frame(frame, 10, 8.0, REVISION)
        assert [a.tick(float(now)) for now in range(9, 30)] == [[]] * 21
        assert (a.n, b.n) == (2, 2)

    def test_a_close_that_stays_unheard_is_no_second_close(self) -> None:
        a = open_core(Limits(timeout=90.0))
        a.close("test")
        assert not any(reasons(a.tick(now / 2)) for now in range(1000))
        assert a.n == 2


class TestProbing:
    def test_a_link_that_carried_nothing_is_left_alone(self) -> None:
        a = open_core()
        assert [a.tick(float(now)) for now in range(200)] == [[]] * 200

    def test_a_silent_peer_is_asked_every_five_seconds_and_given_up_after_the_timeout(self) -> None:
        a, b = open_core(Limits(timeout=90.0)), peer_core()
        arrive(a, sent(b, 1)[0], now=100.0)
        arrive(b, a.acknowledge()[0].payload)  # type: ignore[union-attr]
        probes, now = [], 100.0
        while not (closed := reasons(actions := a.tick(now))):
            probes += [now for frame in frames_in(actions) if frame.envelopes is None]
            now += 0.5
        assert probes[:3] == [100.0 + PROBE_EVERY, 100.0 + 2 * PROBE_EVERY, 100.0 + 3 * PROBE_EVERY]
        assert closed == ["no acknowledgement from node b within 90 s"]
        assert 195.0 <= now <= 196.0

    def test_an_answer_ends_the_question(self) -> None:
        a, b = open_core(Limits(timeout=90.0)), peer_core()
        arrive(a, sent(b, 1)[0], now=0.0)
        for second in range(1000):
            now = float(second)
            for frame in frames_in(a.tick(now)):
                for answer in frames_in(b.frame(frame, 10, now, REVISION)):
                    a.frame(answer, 10, now, REVISION)
        assert (a.n, a.counters.closes) == (1, 0)
        assert 150 <= a.counters.probes <= 200

    def test_time_without_a_connection_counts(self) -> None:
        a, b = open_core(Limits(timeout=90.0)), peer_core()
        arrive(a, sent(b, 1)[0], now=0.0)
        assert not any(reasons(a.tick(float(now), connected=False)) for now in range(90))
        assert any(reasons(a.tick(float(now), connected=False)) for now in range(90, 100))


class TestEpochs:
    def frame(self, src_epoch: int, dst_epoch: int) -> bytes:
        return wire.data(wire.head("b", src_epoch, dst_epoch, 1), 1, 0, [packed(1)])

    def test_a_frame_for_a_former_epoch_of_ours_is_reset(self) -> None:
        assert arrive(open_core(), self.frame(B_EPOCH, A_EPOCH - 1)) == [
            Publish(B_EPOCH, wire.reset(B_EPOCH, A_EPOCH - 1))
        ]

    def test_a_frame_from_a_former_epoch_of_the_peer_is_reset(self) -> None:
        assert arrive(open_core(), self.frame(B_EPOCH - 1, A_EPOCH)) == [
            Publish(B_EPOCH - 1, wire.reset(B_EPOCH - 1, A_EPOCH))
        ]

    def test_a_frame_from_an_epoch_the_watch_has_not_shown_is_ignored(self) -> None:
        a = open_core()
        assert arrive(a, self.frame(REVISION + 1, A_EPOCH)) == []
        assert a.counters.ignored == 1

    def test_a_frame_for_a_later_epoch_of_ours_is_ignored(self) -> None:
        assert arrive(open_core(), self.frame(B_EPOCH, A_EPOCH + 1)) == []

    def test_nothing_is_answered_without_an_own_epoch(self) -> None:
        core = LinkCore("a", "b")
        core.pair(0, B_EPOCH, "")
        assert arrive(core, self.frame(B_EPOCH, A_EPOCH)) == []

    def test_the_end_of_the_peers_epoch_is_told_with_its_reason(self) -> None:
        a = open_core()
        assert a.pair(A_EPOCH, 0, "node b is gone") == [Closed("node b is gone")]
        assert a.state is State.CLOSED

    def test_a_new_pair_starts_at_n_1(self) -> None:
        a = open_core()
        a.close("test")
        assert a.pair(A_EPOCH, 40, "registered anew") == [Closed("registered anew")]
        assert (a.n, a.state) == (1, State.OPEN)


class TestReset:
    def test_it_closes_without_a_word_and_stays_silent_until_the_pair_changes(self) -> None:
        a = open_core()
        actions = a.reset(Reset(A_EPOCH, B_EPOCH))
        assert reasons(actions) == ["node b does not know this node's registration"]
        assert frames_in(actions) == []
        with pytest.raises(Unavailable):
            a.send(packed(1))
        assert arrive(a, wire.probe(wire.head("b", B_EPOCH, A_EPOCH, 1), 0)) == []
        a.pair(A_EPOCH, 40, "")
        a.send(packed(1))

    @pytest.mark.parametrize("pair", [(A_EPOCH, 21), (11, B_EPOCH), (B_EPOCH, A_EPOCH)])
    def test_one_for_another_pair_does_nothing(self, pair: tuple[int, int]) -> None:
        a = open_core()
        assert a.reset(Reset(*pair)) == []
        assert a.state is State.OPEN
