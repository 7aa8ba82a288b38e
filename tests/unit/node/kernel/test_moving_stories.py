"""A process that moves at random moments among random messages: nothing is lost, doubled or reordered.

Two bare VMs, and a way between them that keeps its order (tests/movingworld.py). Senders live beside
the process, on the other node and outside; all number what they send.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.envelope import Kind
from tests.luaworld import OUTSIDE
from tests.movingworld import TwoNodes

TOPICS = ("inbox", "raw", "whole", "own")

TRAVELLER = """
    local function main(log, waits)
        process.set_options({ migratable = true })
        local events, inbox = process.events(), process.inbox()
        local function take_values(ch)
            coroutine.spawn(function()
                while true do
                    local value = ch:receive()
                    log[#log + 1] = value
                end
            end)
        end
        local function take_messages(ch)
            coroutine.spawn(function()
                while true do
                    local message = ch:receive()
                    log[#log + 1] = message:payload():data()
                end
            end)
        end
        if waits ~= "inbox" then
            local own = channel.new()
            subscribe("own", own)
            take_values(process.listen("raw"))
            take_values(own)
            take_messages(process.listen("whole", { message = true }))
        end
        if waits ~= "select" then
            take_messages(inbox)
        end
        while true do
            local picked
            if waits == "select" then
                picked = channel.select({ inbox:case_receive(), events:case_receive() })
            else
                picked = { value = events:receive() }
            end
            local event = picked.value
            if picked.channel == inbox then
                log[#log + 1] = event:payload():data()
            elseif event.reason == "report" then
                process.send(OUTSIDE, "log", log)
            else
                process.upgrade(nil, log, waits)
            end
        end
    end
    return { main = main }
""".replace("OUTSIDE", f'"{OUTSIDE.decode()}"')
"""Logs what it is sent. ``waits``: by a coroutine at the inbox alone, at the inbox and at three topics, or the main one
at the inbox and others at the topics. Between a receive and the log is no point where it could be made to give way:
what a coroutine has taken and not noted is the program's loss."""

SENDER = """return { main = function(pid)
    local inbox, last = process.inbox(), 0
    while true do
        local topic = inbox:receive():topic()
        last = last + 1
        local ok, err = process.send(pid, topic, { process.pid(), topic, last })
        if not ok then error(err) end
    end
end }"""

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 4), st.sampled_from(TOPICS)),
        st.sampled_from([("run",), ("ask",), ("move",), ("stay",), ("upgrade",)]),
    ),
    max_size=60,
)


class Story:
    """One process that travels, its senders, and what they were told to send."""

    def __init__(self, waits: str) -> None:
        self.nodes = TwoNodes()
        world = self.nodes.worlds[b"n1"]
        world.entry("app:traveller", TRAVELLER, modules=("coroutine",))
        world.entry("app:sender", SENDER)
        self.pid = self.nodes.spawn("app:traveller", [], waits.encode())
        self.senders = [self.nodes.spawn("app:sender", self.pid, node=node) for node in (b"n1", b"n1", b"n2", b"n2")]
        self.sent: dict[bytes, list[str]] = defaultdict(list)
        self._asked = False

    def do(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("send", int(sender), str(topic)):
                self._send(sender, topic)
            case ("run",):
                self.nodes.run()
            case ("upgrade",):
                self._tell("upgrade")
            case ("ask",) if not self._asked:
                self.nodes.ask(self.pid)
                self._asked = True
            case ("move" | "stay",) if self.nodes.is_frozen(self.pid):
                self.nodes.settle(self.pid, stays=step[0] == "stay")
                self._asked = False

    def _send(self, number: int, topic: str) -> None:
        if number < len(self.senders):
            sender = self.senders[number]
            self.nodes.send(sender, topic)
        else:
            sender = OUTSIDE
            self.nodes.send(self.pid, topic, [OUTSIDE, topic, len(self.sent[sender]) + 1])
        self.sent[sender].append(topic)

    def _tell(self, reason: str) -> None:
        self.nodes.put([int(Kind.CANCEL), self.pid, OUTSIDE, 0, reason.encode()])

    def log(self) -> list[tuple[bytes, str, int]]:
        """What it has received, once it has settled down."""
        self.nodes.run()
        if self.nodes.is_frozen(self.pid):
            self.nodes.settle(self.pid)
        self.nodes.run()
        self._tell("report")
        self.nodes.run()
        return [(sender, topic.decode(), number) for sender, topic, number in self.nodes.messages("log")[-1]]


@pytest.mark.parametrize("waits", ["inbox", "topics", "select"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_all_arrives_once_and_in_order(waits: str, steps: list[tuple[Any, ...]]) -> None:
    story = Story(waits)
    for step in steps:
        story.do(step)
    log = story.log()
    for sender, topics in story.sent.items():
        of_sender = [(topic, number) for who, topic, number in log if who == sender]
        wanted = [(topic, number) for number, topic in enumerate(topics, start=1)]
        assert sorted(of_sender) == sorted(wanted)
        if waits == "inbox":
            assert of_sender == wanted
        for topic in TOPICS:
            numbers = [number for of, number in of_sender if of == topic]
            assert numbers == sorted(numbers), topic
    for world in story.nodes.worlds.values():
        assert world.complaints() == []
