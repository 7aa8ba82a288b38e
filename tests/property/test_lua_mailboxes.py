"""However a process subscribes and unsubscribes: each message is delivered once, in order of its topic."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.luaworld import OUTSIDE, World

TOPICS = ["a", "b", "c"]

# A process that does what it is told on the topic "do" and reports what it gets.
OBEDIENT = """local function main(who)
    local orders, inbox, listening = process.listen("do"), nil, {}
    while true do
        local order = orders:receive()
        if order.verb == "inbox" then
            inbox = process.inbox()
        elseif order.verb == "listen" then
            listening[order.topic] = process.listen(order.topic)
        elseif order.verb == "unlisten" and listening[order.topic] then
            process.unlisten(listening[order.topic])
            listening[order.topic] = nil
        elseif order.verb == "drain" then
            local more = true
            while more do
                more = false
                if inbox then
                    local r = channel.select({ inbox:case_receive(), default = true })
                    if r.channel then
                        more = true
                        process.send(who, "got", r.value:topic(), r.value:payload():data())
                    end
                end
                for topic, ch in pairs(listening) do
                    local r = channel.select({ ch:case_receive(), default = true })
                    if r.channel then
                        more = true
                        process.send(who, "got", topic, r.value)
                    end
                end
            end
        end
    end
end
return { main = main }"""

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from(TOPICS)),
        st.tuples(st.sampled_from(["listen", "unlisten"]), st.sampled_from(TOPICS)),
        st.tuples(st.sampled_from(["inbox", "drain"]), st.just("")),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_every_message_arrives_exactly_once_and_in_order_of_its_topic(steps: list[tuple[str, str]]) -> None:
    world = World()
    world.entry("app:obedient", OBEDIENT)
    pid = world.spawn("app:obedient", OUTSIDE)
    sent: dict[str, list[int]] = {topic: [] for topic in TOPICS}
    for number, (verb, topic) in enumerate([*steps, ("inbox", ""), ("drain", "")]):
        if verb == "send":
            sent[topic].append(number)
            world.send(pid, topic, number)
        else:
            world.send(pid, "do", {b"verb": verb.encode(), b"topic": topic.encode()})
    got: dict[str, list[int]] = {topic: [] for topic in TOPICS}
    for _, (topic, number) in world.messages():
        got[topic.decode()].append(number)
    assert got == sent
    assert world.query(b"inspect", pid)[b"mailbox"] == 0
