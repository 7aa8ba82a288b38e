-- Mailbox: messages on their way into a process.
--
-- A message goes to the channel that listens to its topic, else to the inbox once the process
-- asked for it, else it waits until somebody subscribes. Topics that begin with "@" are the
-- runtime's own; no message comes here with one.
-- What waits counts against the process's limit; at the limit messages are refused.
--
-- Each channel keeps its own queue, so that a topic nobody receives holds up no other. Every
-- waiting message has its number of arrival: when a subscription ends, what it had not
-- delivered goes where it now belongs, in that order.
local K = ...
local channels, values, turns = K.channels, K.values, K.turns
local hand_over, append, ready = channels.hand_over, channels.append, turns.ready
local rawmeta = debug.getmetatable
local pairs, rawget, setmetatable, sort, type = pairs, rawget, setmetatable, table.sort, type

local VALUE, TOPIC, FROM, COUNT, ARRIVED = 1, 2, 3, 4, 5

-- Payloads: a value as it arrived, first in the table. Their methods are completed by the module payload.
local payload_methods = {}
local payload_meta = { __index = payload_methods, __metatable = false, __name = "payload" }

-- Messages. One that brought a single payload is that payload too: a table less for each message.
local message_methods = {}
local message_meta = { __index = message_methods, __metatable = false, __name = "message" }

local function value_of(payload)
    return payload[VALUE]
end
values.special[payload_meta] = { unwrap = value_of }
values.special[message_meta] = { unwrap = value_of }

local function new_payload(value)
    return setmetatable({ value }, payload_meta)
end

function message_methods.topic(message)
    return message[TOPIC]
end

function message_methods.from(message)
    return message[FROM]
end

-- nil when nothing was sent, a list of payloads when several were.
function message_methods.payload(message)
    local count = message[COUNT]
    if count == 1 then
        return message
    elseif count == 0 then
        return nil
    end
    local list = {}
    for i = 1, count do
        list[i] = new_payload(message[VALUE][i])
    end
    return list
end

-- What a topic's channel gives instead of the message: the value, or the list of several.
local function raw(message)
    return message[VALUE]
end

local function route(process, topic)
    local listeners = process.listeners
    return listeners and listeners[topic] or process.inbox
end

-- A message waits: in the channel it is for, else until somebody subscribes.
local function keep(process, state, message)
    process.mail = process.mail + 1
    if state then
        append(state, message)
        return
    end
    local unclaimed = process.unclaimed
    if not unclaimed then
        unclaimed = { n = 0 }
        process.unclaimed = unclaimed
    end
    unclaimed.n = unclaimed.n + 1
    unclaimed[unclaimed.n] = message
end

-- Deliver to a live process. Returns false when its mailbox is full.
local function deliver(process, topic, from, count, value)
    local listeners = process.listeners
    local state = listeners and listeners[topic] or process.inbox
    if not state or not state.receiver then
        if process.mail >= process.limit then
            return false
        end
        local arrived = process.arrived + 1
        process.arrived = arrived
        keep(process, state, setmetatable({ value, topic, from, count, arrived }, message_meta))
    elseif state.raw then
        hand_over(state, value, true)
    else
        hand_over(state, setmetatable({ value, topic, from, count }, message_meta), true)
    end
    return true
end

-- The same for one payload that is no list. Nearly all messages come this way, so what others do is done here:
-- hand_over to a thread that waits at the inbox, and keep for one that is behind.
local function deliver_one(process, topic, from, value)
    local state = process.inbox
    if not state or process.listeners then
        return deliver(process, topic, from, 1, value)
    end
    local receiver = state.receiver
    if not receiver then
        local mail = process.mail
        if mail >= process.limit then
            return false
        end
        local arrived, last = process.arrived + 1, state.last + 1
        process.arrived, process.mail = arrived, mail + 1
        state[last] = setmetatable({ value, topic, from, 1, arrived }, message_meta)
        state.last = last
    elseif receiver.co and not state.receivers then
        state.receiver = false
        ready(receiver, setmetatable({ value, topic, from, 1 }, message_meta), true)
    else
        hand_over(state, setmetatable({ value, topic, from, 1 }, message_meta), true)
    end
    return true
end

local function by_arrival(a, b)
    return a[ARRIVED] < b[ARRIVED]
end

-- Take out everything that waits in ``state``.
local function drain(state, into)
    for i = state.first, state.last do
        into[#into + 1] = state[i]
        state[i] = nil
    end
    state.first, state.last = 1, 0
end

-- Route everything that waits again, in order of arrival: subscriptions have changed.
local function sort_again(process, closed)
    local waiting = {}
    if closed then
        drain(closed, waiting)
    end
    if process.inbox then
        drain(process.inbox, waiting)
    end
    local unclaimed = process.unclaimed
    if unclaimed then
        for i = 1, unclaimed.n do
            waiting[#waiting + 1] = unclaimed[i]
        end
        process.unclaimed = nil
    end
    sort(waiting, by_arrival)
    process.mail = process.mail - #waiting
    for i = 1, #waiting do
        local message = waiting[i]
        local state = route(process, message[TOPIC])
        if state and state.receiver and state.raw then
            hand_over(state, raw(message), true)
        elseif state and state.receiver then
            hand_over(state, message, true)
        else
            keep(process, state, message)
        end
    end
end

local function subscribed(state, process, on_close)
    state.owner = process
    state.on_close = on_close
    process.holds = process.holds + 1
end

local function inbox_closed(state)
    local process = state.owner
    process.inbox = nil
    process.holds = process.holds - 1
    sort_again(process, state)
end

-- The inbox of the process; messages that waited for it come first.
local function inbox(process)
    local state = process.inbox
    if not state then
        local _
        _, state = channels.open_fed()
        subscribed(state, process, inbox_closed)
        process.inbox = state
        if process.mail > 0 then
            sort_again(process)
        end
    end
    return state.channel
end

local function topic_closed(state)
    local process = state.owner
    process.listeners[state.topic] = nil
    process.topics = process.topics - 1
    process.holds = process.holds - 1
    sort_again(process, state)
end

-- The channel of one topic, the same for every call; or nil and an error object.
local function listen(process, topic, as_messages)
    local listeners = process.listeners
    if not listeners then
        listeners = {}
        process.listeners = listeners
    end
    local state = listeners[topic]
    if not state then
        if process.topics >= K.config.max_subscriptions then
            K.limits.hit("max_subscriptions")
            local text = "the process listens to " .. process.topics .. " topics already; raise max_subscriptions of its host"
            return nil, K.errors.new("RateLimited", text, true)
        end
        process.topics = process.topics + 1
        local _
        _, state = channels.open_fed()
        subscribed(state, process, topic_closed)
        state.topic = topic
        listeners[topic] = state
        state.raw = not as_messages
        if process.mail > 0 then
            sort_again(process)
        end
    end
    return state.channel
end

-- End the subscription behind ``channel``. Returns whether it was one.
local function unlisten(channel)
    local state = type(channel) == "table" and rawmeta(channel)
    if not state or not rawget(state, "owner") or not rawget(state, "topic") or state.closed then
        return false
    end
    channels.close(state)
    return true
end

-- A message that was received from ``state`` is its first again.
local function put_back(state, message)
    if state.last == 0 then
        state.first, state.last = 1, 1
    else
        state.first = state.first - 1
    end
    state[state.first] = message
    message[ARRIVED] = message[ARRIVED] or 0
    state.owner.mail = state.owner.mail + 1
end

local function events_closed(state)
    local process = state.owner_of_events
    process.events = nil
    process.holds = process.holds - 1
end

-- The channel of events: cancel, exits of the monitored, links that went down.
local function events(process)
    local state = process.events
    if not state then
        local _
        _, state = channels.open_fed()
        state.owner_of_events = process
        state.on_close = events_closed
        process.holds = process.holds + 1
        process.events = state
        local waiting = process.waiting_events
        if waiting then
            process.waiting_events = nil
            for i = 1, #waiting do
                append(state, waiting[i])
            end
        end
    end
    return state.channel
end

-- Hand an event to a process; it waits until the process asks for its events.
local function tell(process, event)
    event.at = turns.wall_now()
    local state = process.events
    if state then
        channels.push(state, event)
        return
    end
    local waiting = process.waiting_events
    if not waiting then
        waiting = {}
        process.waiting_events = waiting
    end
    waiting[#waiting + 1] = event
end

-- The event that waits in ``list`` from ``first`` to ``last`` and says that code changed.
local function find_outdated(list, first, last)
    for i = first, last do
        if list[i].kind == "pid.outdated" then
            return list[i]
        end
    end
    return nil
end

-- Tell a process that its code changed. An event nobody took yet is joined.
local function outdated(process, sources)
    local state, waiting = process.events, process.waiting_events
    local event = state and find_outdated(state, state.first, state.last) or waiting and find_outdated(waiting, 1, #waiting)
    if not event then
        event = { kind = "pid.outdated", from = "", sources = {} }
        tell(process, event)
    end
    local listed = {}
    for i = 1, #event.sources do
        listed[event.sources[i]] = true
    end
    for i = 1, #sources do
        if not listed[sources[i]] then
            event.sources[#event.sources + 1] = sources[i]
        end
    end
end

-- The process starts over with the newest code: what it was told of older code and did not take is void.
local function forget_outdated(process)
    local kept = {}
    for _, event in next, process.waiting_events or {} do
        if event.kind ~= "pid.outdated" then
            kept[#kept + 1] = event
        end
    end
    process.waiting_events = #kept > 0 and kept or nil
end

-- All subscriptions end (the process starts over): what was not received waits again.
local function close_all(process)
    local states = {}
    if process.inbox then
        states[1] = process.inbox
    end
    for _, state in pairs(process.listeners or {}) do
        states[#states + 1] = state
    end
    local events_left = {}
    if process.events then
        drain(process.events, events_left)
        channels.close(process.events)
        process.waiting_events = #events_left > 0 and events_left or nil
    end
    for i = 1, #states do
        channels.close(states[i])
    end
end

K.mailbox = {
    COUNT = COUNT,
    deliver = deliver,
    deliver_one = deliver_one,
    raw = raw,
    inbox = inbox,
    listen = listen,
    unlisten = unlisten,
    put_back = put_back,
    events = events,
    tell = tell,
    outdated = outdated,
    forget_outdated = forget_outdated,
    close_all = close_all,
    new_payload = new_payload,
    payload_meta = payload_meta,
    payload_methods = payload_methods,
    message_meta = message_meta,
    message_methods = message_methods,
}
