"""Messages by name: what is sent carries the name's revision and a number; what comes back is sent again, or dead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from cluster.envelope import Kind
from node.host.boundary import In, Out
from tests.luaworld import HOST, OUTSIDE, REMOTE, World

NEXT = b"{n3@app:processes|4-2a}"

SENDER = """local function main(who)
    local orders = process.listen("do")
    while true do
        local order = orders:receive()
        local ok, err = process.send(order.to, "topic", order.value)
        if not ok then process.send(who, "refused", err:kind(), tostring(err)) end
    end
end
return { main = main }"""


@pytest.fixture
def sender(world: World) -> bytes:
    """A process that sends what it is told, with name "counter" held by a process elsewhere."""
    world.entry("app:sender", SENDER)
    pid = world.spawn("app:sender", OUTSIDE)
    world.run([In.NAME, b"counter", REMOTE, 9])
    return pid


def send(world: World, sender: bytes, to: bytes, value: Any) -> list[Any]:
    """Have it send; the envelope that left the VM last."""
    world.send(sender, "do", {b"to": to, b"value": value})
    return messages(world)[-1] if messages(world) else []


def messages(world: World) -> list[list[Any]]:
    return [item for item in world.out if item[0] == Kind.MESSAGE and item[1] != OUTSIDE]


def come_back(world: World, sent: Sequence[Any], applied: int = 20) -> list[list[Any]]:
    """The envelope returns to its sender; what leaves the VM then."""
    _, to, by, _, topic, payloads, name, _, number = sent
    return world.run([int(Kind.RETURN), by, to, 0, topic, payloads, name, applied, number])


def reasons(items: list[list[Any]]) -> list[bytes]:
    return [item[5] for item in items if item[0] == Out.DEAD_LETTER]


def test_a_message_by_name_carries_the_revision_and_a_number_and_one_to_a_pid_none(world: World, sender: bytes) -> None:
    assert send(world, sender, REMOTE, 1)[6:] == [b"", 0]
    assert send(world, sender, b"counter", 2)[6:] == [b"counter", 9, 1]
    assert send(world, sender, REMOTE, 3)[6:] == [b"", 0]
    assert send(world, sender, b"counter", 4)[6:] == [b"counter", 9, 3]


def test_one_that_comes_back_goes_to_the_new_holder_and_not_back_again(world: World, sender: bytes) -> None:
    sent = send(world, sender, b"counter", {b"deep": [1, None, 2.0], b"binary": b"\xff"})
    world.run([In.NAME, b"counter", NEXT, 15])
    assert come_back(world, sent) == [[Kind.MESSAGE, NEXT, sender, 0, b"topic", sent[5], b"counter", 15]]


def test_several_that_come_back_keep_their_order(world: World, sender: bytes) -> None:
    sent = [send(world, sender, b"counter", value) for value in (1, 2, 3)]
    world.run([In.NAME, b"counter", NEXT, 15])
    assert [come_back(world, one)[0][5] for one in sent] == [[1], [2], [3]]


def test_one_never_goes_behind_a_later_one_by_name(world: World, sender: bytes) -> None:
    sent = send(world, sender, b"counter", 1)
    world.run([In.NAME, b"counter", NEXT, 15])
    send(world, sender, b"counter", 2)
    assert come_back(world, sent) == [
        [Out.DEAD_LETTER, REMOTE, sender, b"topic", b"counter", b"stale_name_overtaken"],
    ]


def test_one_never_goes_behind_a_later_one_by_pid(world: World, sender: bytes) -> None:
    sent = send(world, sender, b"counter", 1)
    send(world, sender, NEXT, 2)
    world.run([In.NAME, b"counter", NEXT, 15])
    assert reasons(come_back(world, sent)) == [b"stale_name_overtaken"]


def test_one_never_goes_behind_a_later_one_to_a_process_of_the_same_vm(world: World, sender: bytes) -> None:
    world.entry("app:wait", "return { main = function() return process.inbox():receive():payload():data() end }")
    first, second = world.spawn("app:wait"), world.spawn("app:wait")
    sent = [send(world, sender, b"counter", value) for value in (1, 2)]
    world.send(sender, "do", {b"to": second, b"value": 3})
    world.run([In.NAME, b"counter", second, 15])
    assert reasons(come_back(world, sent[0])) == [b"stale_name_overtaken"]
    world.run([In.NAME, b"counter", first, 16])
    come_back(world, sent[1])
    assert world.exit_of(first)[5] == 2


def test_one_never_goes_behind_a_signal_to_the_new_holder(world: World) -> None:
    world.run([In.NAME, b"counter", REMOTE, 9])
    pid = world.spawn_body("process.send('counter', 'topic', 1) process.cancel(...) process.inbox():receive()", NEXT)
    world.run([In.NAME, b"counter", NEXT, 15])
    assert reasons(come_back(world, messages(world)[0])) == [b"stale_name_overtaken"]
    assert not world.has_ended(pid)


def test_a_name_nobody_holds_any_more_makes_it_a_dead_letter(world: World, sender: bytes) -> None:
    sent = send(world, sender, b"counter", 1)
    world.run([In.NAME, b"counter", b"", 15])
    assert reasons(come_back(world, sent)) == [b"stale_name_free"]


def test_one_of_a_process_that_ended_is_sent_again_but_not_to_who_saw_it_end(world: World) -> None:
    world.run([In.NAME, b"counter", REMOTE, 9])
    world.spawn_body("process.send('counter', 'topic', 1) process.send('counter', 'topic', 2)")
    first, second = messages(world)
    world.run([In.NAME, b"counter", NEXT, 15])
    assert come_back(world, first)[0][1] == NEXT
    world.run([In.NAME, b"counter", OUTSIDE, 16])
    assert reasons(come_back(world, second)) == [b"stale_name_overtaken"], "its monitor was told of the end"


def test_one_of_a_process_that_went_on_as_another_is_sent_again(world: World) -> None:
    world.run([In.NAME, b"counter", REMOTE, 9])
    world.entry("app:later", "return { main = function() process.inbox():receive() end }")
    world.spawn_body("process.send('counter', 'topic', 1) process.upgrade('app:later')")
    world.run([In.NAME, b"counter", NEXT, 15])
    assert come_back(world, messages(world)[0])[0][1] == NEXT


@pytest.mark.parametrize("damage", [{4: b"@pid"}, {5: 7}, {8: b"x"}])
def test_one_that_is_malformed_is_counted_and_dropped(world: World, sender: bytes, damage: dict[int, Any]) -> None:
    sent = send(world, sender, b"counter", 1)
    envelope = [int(Kind.RETURN), sender, REMOTE, 0, b"topic", sent[5], b"counter", 20, sent[8]]
    for position, value in damage.items():
        envelope[position] = value
    assert world.run(envelope) == []
    assert world.query(b"counters")[b"dead_letters"][b"invalid"] == 1
    assert world.complaints() == []


def test_one_nobody_here_has_sent_is_a_dead_letter(world: World) -> None:
    world.run([In.NAME, b"counter", NEXT, 9])
    forged = [int(Kind.RETURN), b"{n1@app:processes|1-zz}", REMOTE, 0, b"topic", [], b"counter", 20, 4]
    assert reasons(world.run(forged)) == [b"stale_name_forgotten"]


def test_the_startup_messages_for_a_process_that_has_the_name_carry_its_revision(world: World) -> None:
    world.run([In.NAME, b"counter", REMOTE, 9])
    world.entry("app:wait", "return { main = function() process.inbox():receive() end }")
    host = HOST.decode().strip("{}|").split("@")[1]
    held = world.main(
        "return process.with_context({}):with_name('counter'):with_message('topic', 1):spawn('app:wait', ...)", host
    )
    assert held == REMOTE
    assert messages(world)[0][6:] == [b"counter", 9, 1]


class TestWhileTheLeaseOfTheNodeIsInDoubt:
    """Then another process of the cluster may have its names by now."""

    @pytest.fixture
    def holder(self, world: World, sender: bytes) -> bytes:
        world.entry("app:wait", "return { main = function() return process.inbox():receive():payload():data() end }")
        pid = world.spawn("app:wait")
        world.run([In.NAME, b"mine", pid, 12], [In.NAME, b"here", pid, 0], [In.NAMES_IN_DOUBT, True])
        return pid

    def test_a_cluster_name_of_a_process_here_is_refused_at_once(
        self, world: World, sender: bytes, holder: bytes
    ) -> None:
        world.send(sender, "do", {b"to": b"mine", b"value": 1})
        ((topic, (kind, text)),) = world.messages()
        assert (topic, kind) == ("refused", b"Unavailable")
        assert b"lease" in text
        assert not world.has_ended(holder)

    @pytest.mark.parametrize("to", ["holder", "here"])
    def test_its_pid_and_a_local_name_lead_there_all_the_same(
        self, world: World, sender: bytes, holder: bytes, to: str
    ) -> None:
        world.send(sender, "do", {b"to": holder if to == "holder" else b"here", b"value": 1})
        assert world.exit_of(holder)[5] == 1

    def test_a_name_of_another_node_is_sent_to(self, world: World, sender: bytes, holder: bytes) -> None:
        assert send(world, sender, b"counter", 1)[1] == REMOTE

    def test_one_that_comes_back_is_not_given_to_it(self, world: World, sender: bytes, holder: bytes) -> None:
        sent = send(world, sender, b"counter", 1)
        world.run([In.NAME, b"counter", holder, 15])
        assert reasons(come_back(world, sent)) == [b"stale_name_in_doubt"]
        assert not world.has_ended(holder)

    def test_it_gets_no_startup_messages_by_its_name(self, world: World, holder: bytes) -> None:
        kind = world.main(
            """local spawner = process.with_context({}):with_name('mine'):with_message('topic', 1)
            local pid, err = spawner:spawn('app:wait', 'app:processes')
            return err:kind()"""
        )
        assert kind == b"Unavailable"
        assert not world.has_ended(holder)

    def test_it_is_taken_again_once_the_lease_is_sure(self, world: World, sender: bytes, holder: bytes) -> None:
        world.run([In.NAMES_IN_DOUBT, False])
        world.send(sender, "do", {b"to": b"mine", b"value": 1})
        assert world.exit_of(holder)[5] == 1


class TestANameThatComesTooLate:
    """A registration whose outcome was unknown takes effect when its process has ended."""

    def nameless(self, items: list[list[Any]]) -> list[bytes]:
        return [item[1] for item in items if item[0] == Out.ENDED]

    def test_is_given_up(self, world: World) -> None:
        pid = world.spawn_body("return 1")
        assert self.nameless(world.run([In.NAME, b"late", pid, 7])) == [pid]

    def test_is_kept_by_a_process_that_lives_and_given_up_with_it(self, world: World) -> None:
        pid = world.spawn_body("process.inbox():receive()")
        assert self.nameless(world.run([In.NAME, b"late", pid, 7])) == []
        world.send(pid, "end")
        assert self.nameless(world.out) == [pid]

    @pytest.mark.parametrize("pid", [REMOTE, b"{n1@app:processes|1-2b}", b"{n1@app:processes|2-3l}"])
    def test_of_a_process_of_another_vm_is_not_this_ones_business(self, world: World, pid: bytes) -> None:
        assert self.nameless(world.run([In.NAME, b"late", pid, 7])) == []

    def test_of_a_process_that_is_about_to_start_is_kept(self, world: World) -> None:
        world.entry("app:wait", "return { main = function() process.inbox():receive() end }")
        starter = world.spawn_body("return process.with_context({}):with_name('n'):spawn('app:wait', 'app:processes')")
        _, operation, *_, arguments = next(item for item in world.out if item[0] == Out.CALL)
        out = world.run([In.NAME, b"n", arguments[1], 7], [In.ANSWER, operation, None, [True]])
        assert self.nameless(out) == []
        assert world.exit_of(starter)[5] == arguments[1]

    def test_of_a_process_that_is_not_started_any_more_is_given_up(self, world: World) -> None:
        world.entry("app:wait", "return { main = function() process.inbox():receive() end }")
        starter = world.spawn_body("return process.with_context({}):with_name('n'):spawn('app:wait', 'app:processes')")
        pid = next(item for item in world.out if item[0] == Out.CALL)[6][1]
        world.run([In.NAME, b"n", pid, 7])
        assert self.nameless(world.run([int(Kind.TERMINATE), starter, OUTSIDE, 0])) == [pid]
        assert self.nameless(world.run([In.NAME, b"n", pid, 8])) == [pid]

    def test_of_a_process_that_its_starter_forgot_by_an_upgrade_is_given_up(self, world: World) -> None:
        world.entry("app:wait", "return { main = function() process.inbox():receive() end }")
        starter = world.spawn_body(
            """coroutine.spawn(function()
                process.with_context({}):with_name('n'):spawn('app:wait', 'app:processes')
            end)
            process.inbox():receive()
            process.upgrade('app:wait')"""
        )
        pid = next(item for item in world.out if item[0] == Out.CALL)[6][1]
        world.run([In.NAME, b"n", pid, 7])
        before = len(world.out)
        world.send(starter, "go on")
        assert self.nameless(world.out[before:]) == [pid]
