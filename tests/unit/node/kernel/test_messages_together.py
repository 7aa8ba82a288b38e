"""Messages of one process to another that leave the VM together: what is joined, what is not, and the way in."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.envelope import Envelope, Kind, unfold
from node.host.boundary import In, Out
from node.host.kernel import VmConfig
from tests.luaworld import OUTSIDE, REMOTE, World, one_by_one

OTHER = b"{n1@node:test|1-2}"
NODES = [int(In.NODES), [b"n1", b"n2"]]


def left(world: World, body: str, *args: Any) -> list[Envelope]:
    """The messages and the log that leave the VM while a process with this body runs, as they are."""
    raw: list[Envelope] = []
    step = world.kernel.step

    def watched(items: list[Any]) -> Any:
        stepped = step(items)
        raw.extend(item for item in stepped.out if item[0] in (Kind.MESSAGE, Kind.MESSAGES, Out.CAST))
        return stepped

    world.kernel.step = watched  # type: ignore[assignment, method-assign]
    world.main(body, *args)
    return raw


def received(world: World, pid: bytes, *items: Envelope) -> None:
    world.run(*items)
    assert not world.complaints()


def messages(count: int, *pairs: tuple[bytes, list[Any]], to: bytes, sender: bytes = OUTSIDE) -> Envelope:
    packed = b"".join(msgpack.packb(part, use_bin_type=False) for pair in pairs for part in pair)
    return [int(Kind.MESSAGES), to, sender, 0, count, packed]


class TestOut:
    def test_one_message_leaves_as_it_always_did(self) -> None:
        [envelope] = left(World(), "process.send(..., 't', 1)", OUTSIDE)
        assert envelope[:2] == [Kind.MESSAGE, OUTSIDE]
        assert envelope[3:] == [0, b"t", [1], b"", 0]

    def test_several_in_a_row_to_one_process_leave_as_one(self) -> None:
        [envelope] = left(World(), "for i = 1, 3 do process.send(..., 't' .. i, i) end", OUTSIDE)
        assert envelope[0] == Kind.MESSAGES
        assert [item[4:6] for item in unfold(envelope)] == [[b"t1", [1]], [b"t2", [2]], [b"t3", [3]]]
        assert all(item[:2] == [Kind.MESSAGE, OUTSIDE] and item[2] == envelope[2] for item in unfold(envelope))

    def test_what_is_sent_to_others_stays_between(self) -> None:
        body = "local a, b = ... for _, to in ipairs({a, a, b, a}) do process.send(to, 't', 1) end"
        out = left(World(), body, OUTSIDE, OTHER)
        assert [(item[0], item[1]) for item in out] == [
            (Kind.MESSAGES, OUTSIDE),
            (Kind.MESSAGE, OTHER),
            (Kind.MESSAGE, OUTSIDE),
        ]

    def test_anything_else_stays_between(self) -> None:
        body = "local to = ... process.send(to, 't', 1) print('between') process.send(to, 't', 2)"
        assert [item[0] for item in left(World(), body, OUTSIDE)] == [Kind.MESSAGE, Out.CAST, Kind.MESSAGE]

    def test_those_of_two_processes_stay_apart(self) -> None:
        world = World()
        world.entry("app:two", "return { main = function(to) process.send(to, 't', 1) end }")
        out = left(
            world,
            "local to = ... local own = process.pid():match('@(.-)|') "
            "for _ = 1, 2 do process.spawn('app:two', own, to) end",
            OUTSIDE,
        )
        world.run()
        assert [item[0] for item in out] == [Kind.MESSAGE] * 2

    def test_by_name_each_leaves_alone(self) -> None:
        world = World()
        world.post(NODES, [int(In.NAME), b"shop", REMOTE, 7])
        out = left(world, "for _ = 1, 2 do process.send('shop', 't', 1) end")
        assert [item[0] for item in out] == [Kind.MESSAGE] * 2
        assert all(item[6] == b"shop" for item in out)

    def test_no_more_than_32_leave_as_one(self) -> None:
        out = left(World(), "for i = 1, 70 do process.send(..., 't', i) end", OUTSIDE)
        assert [item[4] for item in out] == [32, 32, 6]

    def test_large_ones_leave_in_smaller_company(self) -> None:
        out = left(World(), "for i = 1, 4 do process.send(..., 't', ('x'):rep(7000)) end", OUTSIDE)
        assert [item[4] for item in out] == [2, 2]

    def test_payloads_keep_their_holes(self) -> None:
        [envelope] = left(World(), "for _ = 1, 2 do process.send(..., 't', nil, 2, nil) end", OUTSIDE)
        assert [item[5] for item in unfold(envelope)] == [[None, 2, None]] * 2

    def test_one_that_can_not_be_sent_leaves_the_others_alone(self) -> None:
        body = "local to = ... process.send(to, 't', 1) local _, e = process.send(to, 't', print) "
        out = left(World(), body + "assert(e) process.send(to, 't', 2)", OUTSIDE)
        assert [item[5] for item in one_by_one(out)] == [[1], [2]]

    @pytest.mark.parametrize("more", [0, 1])
    def test_the_limit_counts_the_whole_envelope(self, more: int) -> None:
        world = World(VmConfig(max_message=2000))
        body = """local to, more = ...
            local around = #to + #process.pid() + 9 + 2 + 1 + 3
            local ok = process.send(to, "t", ("x"):rep(2000 - around + more))
            return ok == true"""
        [pid] = [world.spawn_body(body, OUTSIDE, more)]
        assert world.exit_of(pid)[5] is (more == 0)
        for _, payloads in world.messages():
            packed = msgpack.packb([1, OUTSIDE, pid, 0, b"t", payloads, b"", 0], use_bin_type=False)
            assert 2000 - 4 <= len(packed) <= 2000


class TestIn:
    def test_they_arrive_one_by_one_in_their_order(self) -> None:
        world = World()
        pid = world.spawn_body(
            """local inbox, got = process.inbox(), {}
            for i = 1, 3 do local m = inbox:receive() got[i] = m:topic() .. m:from() .. tostring(m:payload():data()) end
            return got"""
        )
        world.run(messages(3, (b"a", [1]), (b"b", [b"x"]), (b"c", [True]), to=pid))
        assert world.exit_of(pid)[5] == [b"a" + OUTSIDE + b"1", b"b" + OUTSIDE + b"x", b"c" + OUTSIDE + b"true"]

    def test_those_after_its_end_are_dead(self) -> None:
        world = World(VmConfig(mailbox_limit=1, mailbox_policy="kill"))
        pid = world.spawn_body("process.events():receive() process.inbox():receive()")
        world.run(messages(4, *[(b"t", [n]) for n in range(4)], to=pid))
        assert world.has_ended(pid)
        assert not world.complaints()

    def test_nobody_gets_them_where_nobody_is(self) -> None:
        world = World()
        world.run(messages(2, (b"t", [1]), (b"t", [2]), to=b"{n1@app:processes|1-zz1}"))
        assert world.query(b"counters")[b"dead_letters"][b"noproc"] == 2

    @pytest.mark.parametrize("topic", [b"@system", 5])
    def test_what_no_process_may_send_is_refused_alone(self, topic: Any) -> None:
        world = World()
        pid = world.spawn_body("return process.inbox():receive():payload():data()")
        world.run(messages(2, (topic, [1]), (b"t", [2]), to=pid))
        assert world.exit_of(pid)[5] == 2

    @pytest.mark.parametrize("packed", [b"", b"\xa1t", b"\xa1t\x91", b"\xc1", 7])
    def test_what_is_cut_short_is_said(self, packed: Any) -> None:
        world = World()
        pid = world.spawn_body("process.inbox():receive()")
        world.run([int(Kind.MESSAGES), pid, OUTSIDE, 0, 1, packed])
        assert world.complaints()
        world.send(pid, "t", 1)
        assert world.has_ended(pid)


KEYS = st.binary(min_size=1, max_size=9)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=70) | st.floats(allow_nan=False),
    lambda inner: st.dictionaries(KEYS, inner.filter(lambda value: value is not None), min_size=1, max_size=3),
    max_leaves=6,
)
WORLD: list[tuple[World, bytes]] = []


def forwarder() -> tuple[World, bytes]:
    """A process that sends on what it gets: made once."""
    if not WORLD:
        world = World()
        body = """local inbox, to = process.inbox(), ...
            while true do local m = inbox:receive() process.send(to, m:topic(), m:payload():data()) end"""
        WORLD.append((world, world.spawn_body(body, OUTSIDE)))
    return WORLD[0]


@given(st.lists(st.tuples(st.sampled_from([b"a", b"topic" * 20]), VALUES), max_size=40))
def test_what_comes_in_together_goes_out_together_and_is_the_same(pairs: list[tuple[bytes, Any]]) -> None:
    world, pid = forwarder()
    world.out.clear()
    world.run(messages(len(pairs), *[(topic, [value]) for topic, value in pairs], to=pid))
    assert [(item[4], item[5]) for item in world.out if item[0] == Kind.MESSAGE] == [(t, [v]) for t, v in pairs]


@pytest.mark.parametrize("packed", [b"\xa1t", b"\xa1t\x91", b"\xc1\xc1", b""])
def test_unfolding_what_is_cut_short_is_refused(packed: bytes) -> None:
    with pytest.raises(ValueError, match="not 1 messages"):
        unfold([int(Kind.MESSAGES), OUTSIDE, OTHER, 0, 1, packed])
