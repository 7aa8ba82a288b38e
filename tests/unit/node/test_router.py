"""The router: every envelope arrives somewhere, and what can't be delivered is said."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cluster.envelope import Kind, Status
from cluster.errors import CallTimeout, MessageTooBig, Unavailable
from cluster.names import Registered, Scope
from node.ports import Refused
from node.router import Router


class Inbox:
    def __init__(self) -> None:
        self.items: list[Any] = []

    def post(self, item: list[Any]) -> None:
        self.items.append(item)


class Links:
    def __init__(self) -> None:
        self.sent: list[tuple[str, list[Any]]] = []
        self.error: Exception | None = None
        self.too_big: list[Any] = []

    def send(self, node: str, envelope: list[Any]) -> None:
        if self.error is not None:
            raise self.error
        if envelope == self.too_big:
            raise MessageTooBig(1000, 900)
        self.sent.append((node, envelope))


class Names:
    def __init__(self) -> None:
        self.held: dict[str, Registered] = {}

    def lookup(self, name: str) -> Registered | None:
        return self.held.get(name)


@pytest.fixture
def links() -> Links:
    return Links()


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
def router(links: Links, names: Names) -> Router:
    router = Router("n1", 7, links, names)  # type: ignore[arg-type]
    router.slots[2] = router.hosts["app:processes"] = Inbox()
    return router


def message(to: bytes, *, ref: int = 0, name: bytes = b"", revision: int = 0) -> list[Any]:
    return [int(Kind.MESSAGE), to, b"{n2@app:processes|1-3}", ref, b"topic", [1], name, revision]


OWN = b"{n1@app:processes|7-2}"


def items(router: Router) -> list[Any]:
    inbox = router.slots[2]
    assert isinstance(inbox, Inbox)
    return inbox.items


def test_an_envelope_for_a_process_here_goes_to_the_vm_its_counter_names(router: Router) -> None:
    envelope = message(OWN)
    router.route(envelope)
    assert items(router) == [envelope]


def test_an_envelope_for_another_node_goes_over_its_link(router: Router, links: Links) -> None:
    envelope = message(b"{n3@app:processes|4-2}")
    router.route(envelope)
    assert links.sent == [("n3", envelope)]


def test_a_request_to_a_slot_without_a_vm_is_answered_noproc(router: Router, links: Links) -> None:
    router.route([int(Kind.MONITOR), b"{n1@app:processes|7-5}", b"{n2@app:processes|1-3}", 66])
    ((node, reply),) = links.sent
    assert node == "n2"
    assert reply[:5] == [int(Kind.REPLY), b"{n2@app:processes|1-3}", b"{n1@app:processes|7-5}", 66, int(Status.NOPROC)]


FAR = b"{n2@app:processes|1-3}"


@pytest.mark.parametrize(
    ("envelope", "expected"),
    [
        ([int(Kind.EXIT), FAR, OWN, 0, 1, b"big", None], [int(Kind.EXIT), FAR, OWN, 0, 1, None]),
        ([int(Kind.EXIT), FAR, OWN, 0, 2, None, {b"message": b"big"}], [int(Kind.EXIT), FAR, OWN, 0, 2, None]),
        ([int(Kind.REPLY), FAR, OWN, 64, 0, b"big"], [int(Kind.REPLY), FAR, OWN, 64, 1]),
    ],
)
def test_an_outcome_that_is_too_big_for_a_link_arrives_as_an_error(
    router: Router, links: Links, envelope: list[Any], expected: list[Any]
) -> None:
    """Else who waits for it would wait for ever."""
    links.too_big = envelope
    router.route(envelope)
    ((node, sent),) = links.sent
    assert (node, sent[:-1]) == ("n2", expected)
    assert sent[-1][b"kind"] == b"Invalid"
    assert b"1000 bytes" in sent[-1][b"message"]


def test_a_message_nobody_takes_is_a_dead_letter_with_its_reason(router: Router, links: Links) -> None:
    links.error = Unavailable("link is closed")
    router.route(message(b"{n3@app:processes|4-2}"))
    (letter,) = router.dead_letters.kept()
    assert (letter.reason, letter.to, letter.topic) == ("noconnection", "{n3@app:processes|4-2}", "topic")
    assert router.dead_letters.counts() == {"noconnection": 1}


def test_a_spawn_on_an_unknown_host_names_the_hosts_there_are(router: Router, links: Links) -> None:
    router.route([int(Kind.SPAWN), b"{n1@app:nowhere|}", b"{n2@app:processes|1-3}", 9, b"app:x", [], {}])
    ((_, reply),) = links.sent
    assert reply[4] == int(Status.ERROR)
    assert b"app:processes" in reply[5][b"message"]


def test_a_message_by_name_reaches_only_the_holder_under_the_same_revision(
    router: Router, names: Names, links: Links
) -> None:
    names.held["counter"] = Registered(OWN.decode(), 41, Scope.CONSISTENT)
    router.applied = lambda: 41
    router.route(message(OWN, name=b"counter", revision=41))
    assert len(items(router)) == 1
    router.route(message(OWN, ref=5, name=b"counter", revision=40))
    assert len(items(router)) == 1
    status, error = links.sent[-1][1][4:]
    assert (status, error[b"details"]) == (int(Status.STALE_NAME), {b"applied": 41})


class TestAMessageByNameThatItsSenderTakesBack:
    """It carries a number."""

    def test_goes_back_whole_with_our_revision_when_the_name_is_anothers(
        self, router: Router, names: Names, links: Links
    ) -> None:
        router.applied = lambda: 50
        router.from_link("n2", [[*message(OWN, name=b"counter", revision=41), 7]])
        returned = [int(Kind.RETURN), FAR, OWN, 0, b"topic", [1], b"counter", 50, 7]
        assert links.sent == [("n2", returned)]
        assert (router.messages_in, router.messages_elsewhere) == (1, 1)
        assert router.dead_letters.kept() == []
        assert items(router) == []

    def test_goes_back_also_when_the_vm_of_the_former_holder_is_gone(self, router: Router, links: Links) -> None:
        router.applied = lambda: 50
        router.slots.clear()
        router.from_link("n2", [[*message(OWN, name=b"counter", revision=41), 7]])
        assert [envelope[0] for _, envelope in links.sent] == [Kind.RETURN]
        assert router.dead_letters.kept() == []

    def test_is_delivered_to_the_holder(self, router: Router, names: Names) -> None:
        names.held["counter"] = Registered(OWN.decode(), 41, Scope.CONSISTENT)
        sent = [*message(OWN, name=b"counter", revision=41), 7]
        router.from_link("n2", [sent])
        assert items(router) == [sent]

    @pytest.mark.parametrize("error", [Unavailable("link is full"), MessageTooBig(1000, 900)])
    def test_is_a_dead_letter_when_it_can_not_go_back(self, router: Router, links: Links, error: Exception) -> None:
        links.error = error
        router.from_link("n2", [[*message(OWN, name=b"counter", revision=0), 7]])
        (letter,) = router.dead_letters.kept()
        assert (letter.reason, letter.to, letter.sender) == ("stale_name", OWN.decode(), FAR.decode())
        assert (letter.topic, letter.name) == ("topic", "counter")

    def test_comes_to_the_vm_of_its_sender_when_the_names_are_new_enough(self, router: Router) -> None:
        returned = [int(Kind.RETURN), OWN, FAR, 0, b"topic", [1], b"counter", 50, 7]
        held: list[Any] = []
        router.on_return = held.append
        router.from_link("n2", [returned])
        assert (held, items(router)) == ([returned], [])
        router.give_back(returned)
        assert items(router) == [returned]

    @pytest.mark.parametrize("sender", [b"{n1@app:processes|7-5}", b"{n1@node:test|7-0}"])
    def test_is_a_dead_letter_when_the_vm_of_its_sender_is_gone(self, router: Router, sender: bytes) -> None:
        returned = [int(Kind.RETURN), sender, FAR, 0, b"topic", [1], b"counter", 50, 7]
        router.from_link("n2", [returned])
        router.give_back(returned)
        assert router.dead_letters.counts() == {"stale_name": 2}


def test_every_vm_is_told_once_that_names_are_in_doubt_and_that_they_are_not(router: Router) -> None:
    for in_doubt in (True, True, False):
        router.names_in_doubt(in_doubt)
    assert items(router) == [[39, True], [39, False]]
    router.names_in_doubt(True)
    newcomer = Inbox()
    router.greet(newcomer)  # type: ignore[arg-type]
    assert newcomer.items == [[39, True]]


def test_a_node_going_down_is_told_to_every_vm(router: Router) -> None:
    router.node_down("n2", "lease ended")
    assert items(router) == [[45, b"n2", b"lease ended"]]


def test_a_reply_to_a_client_of_the_side_door_is_handed_to_the_door(router: Router, links: Links) -> None:
    got: list[Any] = []
    router.on_client_reply = got.append
    reply = [int(Kind.REPLY), b"{client@door|c-1}", OWN, 3, int(Status.OK), None]
    router.route(reply)
    assert got == [reply]
    assert links.sent == []


async def test_a_request_of_a_port_ends_with_the_reply(router: Router) -> None:
    port = router.ports.open("node:test")
    request = asyncio.ensure_future(port.send(OWN, "topic", [1], timeout=5))
    await asyncio.sleep(0)
    (envelope,) = items(router)
    router.route([int(Kind.REPLY), envelope[2], OWN, envelope[3], int(Status.OK), None])
    await request


async def test_a_request_of_a_port_to_a_node_that_goes_down_is_refused(router: Router, links: Links) -> None:
    port = router.ports.open("node:test")
    request = asyncio.ensure_future(port.send(b"{n3@app:processes|4-2}", "topic", [], timeout=5))
    await asyncio.sleep(0)
    router.node_down("n3", "epoch ended")
    with pytest.raises(Refused, match="outcome is unknown") as refused:
        await request
    assert refused.value.code == "noconnection"


async def test_a_request_nobody_answers_ends_at_its_deadline(router: Router) -> None:
    port = router.ports.open("node:test")
    with pytest.raises(CallTimeout, match="message"):
        await port.send(OWN, "topic", [], timeout=0.02)


async def test_a_message_over_the_limit_is_refused_with_both_sizes(router: Router, links: Links) -> None:
    links.error = MessageTooBig(2000, 1000)
    port = router.ports.open("node:test")
    with pytest.raises(Refused, match=r"2000 bytes.*1000 bytes"):
        await port.send(b"{n3@app:processes|4-2}", "topic", [b"x"], timeout=1)


async def test_a_closed_port_is_no_process_any_more(router: Router, links: Links) -> None:
    port = router.ports.open("node:test")
    port.close()
    router.route([int(Kind.MESSAGE), port.pid, b"{n2@app:processes|1-3}", 8, b"topic", [], b"", 0])
    assert links.sent[-1][1][4] == int(Status.NOPROC)


def test_a_message_by_name_is_taken_when_the_senders_watch_is_ahead_of_ours(router: Router, names: Names) -> None:
    router.applied = lambda: 40
    router.route(message(OWN, name=b"counter", revision=41))
    assert len(items(router)) == 1


def test_a_message_by_a_name_that_was_handed_on_is_still_for_who_had_it(router: Router, names: Names) -> None:
    router.applied = lambda: 50
    names.held["counter"] = Registered("{n3@app:processes|3-4}", 50, Scope.CONSISTENT)
    router.route(message(OWN, name=b"counter", revision=41))
    assert items(router) == []
    router.is_handed_on = lambda pid, revision: (pid, revision) == (OWN, 50)
    router.route(message(OWN, name=b"counter", revision=41))
    assert len(items(router)) == 1
    router.route(message(OWN, name=b"counter", revision=50))
    router.by_name_allowed = lambda lease: False
    router.route(message(OWN, name=b"counter", revision=41))
    assert len(items(router)) == 1, "not by the new one's name, and not when the lease is over"


def test_a_local_name_works_without_a_lease_and_a_cluster_name_does_not(router: Router, names: Names) -> None:
    router.by_name_allowed = lambda lease: False
    router.applied = lambda: 41
    names.held["here"] = Registered(OWN.decode(), 0, Scope.LOCAL)
    names.held["counter"] = Registered(OWN.decode(), 41, Scope.CONSISTENT)
    router.route(message(OWN, name=b"later", revision=42))
    assert router.dead_letters.counts() == {"stale_name": 1}
    router.route(message(OWN, name=b"here"))
    router.route(message(OWN, name=b"counter", revision=41))
    assert [item[6] for item in items(router)] == [b"here"]
    assert router.dead_letters.counts() == {"stale_name": 2}


@pytest.mark.parametrize(
    "envelope",
    [
        [1, OWN, b"", 0],
        [1, OWN, b"", 0, b"topic", 5, b"", 0],
        [1, OWN, b"", 0, b"topic", [], b"name", 3, b"4"],
        [1, OWN, b"", 0, b"topic", [], b"name", 3, 4, 5],
        [12, OWN, b"", 0, b"topic", [], b"name", None, 4],
        [12, OWN, b"", 0, b"topic", [], b"name", 3],
        [1, None, b"", 0, b"topic", [], b"", 0],
        [4, OWN, 3, 7],
        [99, OWN, b"", 0],
        [3, b"{n1@node:test|7-1s}", b"", "x", 0, None],
    ],
)
def test_a_malformed_envelope_does_not_take_the_next_one_with_it(router: Router, envelope: list[Any]) -> None:
    good = message(OWN)
    router.from_link("n2", [envelope, good])
    assert items(router) == [good]
    assert router.malformed == 1


def test_made_up_nodes_do_not_fill_the_memory(router: Router) -> None:
    for number in range(10_000):
        router.route(message(b"{x%d@app:processes|4-2}" % number))
    assert len(router._texts) <= 4096


def test_messages_of_other_nodes_are_counted_apart_when_they_are_for_the_node_itself(router: Router) -> None:
    port = router.ports.open("node:test")
    for to in (OWN, OWN, port.pid):
        router.from_link("n2", [[int(Kind.MESSAGE), to, b"{n2@app:processes|1-3}", 0, b"topic", [], b"", 0]])
    port.cast([int(Kind.MESSAGE), port.pid, b"{n1@app:processes|1-3}", 0, b"topic", [], b"", 0])
    assert (router.messages_in, router.messages_elsewhere) == (3, 1)


def test_every_vm_is_told_the_nodes_of_the_cluster_when_they_change(router: Router) -> None:
    inbox = router.slots[2]
    assert isinstance(inbox, Inbox)
    router.nodes_changed(frozenset({"n2", "n1"}))
    router.nodes_changed(frozenset({"n1", "n2"}))
    router.nodes_changed(frozenset({"n1"}))
    assert inbox.items == [[47, [b"n1", b"n2"]], [47, [b"n1"]]]


def test_a_name_of_a_process_whose_vm_is_gone_is_told(router: Router) -> None:
    told: list[bytes] = []
    router.on_nameless = told.append
    gone = "{n1@app:processes|7-5}"
    for pid in (OWN.decode(), FAR.decode(), "{n1@app:processes|6-5}", "not a pid", None, gone):
        router.name_changed("late", pid, 3)
    assert told == [gone.encode()]


class TestMessagesInOne:
    """MESSAGES: for a VM they stay together, for everybody else they are taken apart."""

    PACKED = b"\xa1t\x91\x01\xa1t\x91\x02"

    def several(self, to: bytes, packed: bytes = PACKED) -> list[Any]:
        return [int(Kind.MESSAGES), to, b"{n2@app:processes|5-2}", 0, 2, packed]

    def test_a_vm_gets_them_together(self, router: Router) -> None:
        router.from_link("n2", [self.several(b"{n1@app:processes|7-2}")])
        assert router.slots[2].items == [self.several(b"{n1@app:processes|7-2}")]  # type: ignore[attr-defined]
        assert router.messages_in == 2

    def test_they_leave_together_and_count_as_what_they_are(self, router: Router, links: Links) -> None:
        router.route(self.several(b"{n3@app:processes|7-2}"))
        assert [envelope for _, envelope in links.sent] == [self.several(b"{n3@app:processes|7-2}")]
        assert router.messages_out == 2

    def test_the_node_itself_gets_them_one_by_one(self, router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
        got: list[Any] = []
        pid = router.ports.new_pid("node:test")
        monkeypatch.setattr(router.ports, "deliver", lambda envelope: got.append(envelope) or True)
        router.from_link("n2", [self.several(pid)])
        assert [envelope[:2] + envelope[4:6] for envelope in got] == [[1, pid, b"t", [1]], [1, pid, b"t", [2]]]
        assert router.messages_elsewhere == 2

    @pytest.mark.parametrize("to", [b"{n1@app:processes|7-5}", b"{n3@app:processes|7-2}"])
    def test_each_is_a_dead_letter_where_nobody_gets_them(self, router: Router, links: Links, to: bytes) -> None:
        links.error = Unavailable("the link is closed")
        router.route(self.several(to))
        assert sum(router.dead_letters.counts().values()) == 2
        assert {letter.topic for letter in router.dead_letters.kept()} == {"t"}

    def test_what_does_not_hold_what_it_says_is_malformed(self, router: Router) -> None:
        router.from_link("n2", [self.several(b"{n1@app:processes|7-5}", b"\xa1t")])
        router.from_link("n2", [[int(Kind.MESSAGES), b"{n1@app:processes|7-2}", b"{n2@a:b|1-1}", 0, b"2", b""]])
        assert router.malformed == 2
        assert not router.slots[2].items  # type: ignore[attr-defined]
