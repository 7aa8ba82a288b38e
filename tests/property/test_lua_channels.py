"""Channels under any mix of senders, receivers, selects and sizes: nothing lost, nothing twice, in order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.luaworld import World

PROGRAM = """local sizes, senders, receivers = ...
local taken, total = channel.new(1000), 0
local channels, done, got = {}, channel.new(1000), {}
for i, size in ipairs(sizes) do channels[i] = channel.new(size) got[i] = {} end
local left = 0
for _, s in ipairs(senders) do
    left = left + 1
    total = total + s.count
    coroutine.spawn(function()
        for n = 1, s.count do
            local value = { from = s.id, n = n }
            if s.select then
                local cases = {}
                for i, ch in ipairs(channels) do cases[i] = ch:case_send(value) end
                channel.select(cases)
            else
                channels[s.channel]:send(value)
            end
        end
        done:send(true)
    end)
end
local readers = 0
for _, how in ipairs(receivers) do
    readers = readers + 1
    coroutine.spawn(function()
        while true do
            local value, at
            if how == "select" then
                local cases = {}
                for i, ch in ipairs(channels) do cases[i] = ch:case_receive() end
                local r = channel.select(cases)
                if not r.ok then return end
                value = r.value
                for i, ch in ipairs(channels) do if ch == r.channel then at = i end end
            else
                at = how
                local ok
                value, ok = channels[how]:receive()
                if not ok then return end
            end
            got[at][#got[at] + 1] = { value.from, value.n }
            taken:send(true)
        end
    end)
end
for i = 1, left do done:receive() end
for _ = 1, total do taken:receive() end
return got"""


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 3), st.booleans()), min_size=1, max_size=5),
    st.lists(st.sampled_from(["select", 1, 2, 3]), max_size=3),
)
def test_each_value_is_received_once_and_each_senders_in_order(
    sizes: list[int], senders: list[tuple[int, int, bool]], receivers: list[str | int]
) -> None:
    world = World()
    wanted = [
        {b"id": number, b"count": count, b"channel": (channel - 1) % len(sizes) + 1, b"select": select}
        for number, (count, channel, select) in enumerate(senders)
    ]
    # A reader of all channels at once keeps every sender going.
    readers = ["select", *[how if how == "select" else (int(how) - 1) % len(sizes) + 1 for how in receivers]]
    got = world.main(PROGRAM, sizes, wanted, [how.encode() if isinstance(how, str) else how for how in readers])
    received = [tuple(pair) for one in got for pair in one]
    assert sorted(received) == sorted((w[b"id"], n) for w in wanted for n in range(1, w[b"count"] + 1))
    if len(readers) == 1:
        for one in got:
            for sender in {pair[0] for pair in one}:
                numbers = [n for who, n in one if who == sender]
                assert numbers == sorted(numbers)
