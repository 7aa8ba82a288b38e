-- Mailbox: messages on their way into a process.
--
-- A message goes to the channel that listens to its topic, else to the inbox once the process
-- asked for it, else it waits until somebody subscribes. Topics that begin with "@" are the
-- runtime's own; no message comes here with one.
-- What waits counts against the process's limit; at the limit messages are refused.
--
-- Each channel keeps its own queue, so that a topic nobody receives holds up no other. Every
-- message has its number of arrival: when a subscription ends, what it had not delivered goes
-- where it now belongs, in that order.
--
-- A process that starts over loses nothing it has not looked at. That is what waits, and what
-- was handed to a thread that has not run since: such a thread wakes with the message, or the
-- event in a table of its own, as its second value.
local K = ...
local channels, values, turns = K.channels, K.values, K.turns
local is_sending -- of subscriptions, which come later
local hand_over, append, ready = channels.hand_over, channels.append, turns.ready
local rawmeta = debug.getmetatable
local pairs, rawget, setmetatable, sort, type = pairs, rawget, setmetatable, table.sort, type

local VALUE, TOPIC, FROM, ARRIVED, COUNT = 1, 2, 3, 4, 5 -- the count of payloads only where it is not one

-- Payloads: a value as it arrived, first in the table. Their methods are completed by the module payload.
local payload_methods = {}
local payload_meta = { __index = payload_methods, __metatable = false, __name = "payload" }

-- Messages. One that brought a single payload is that payload too: a table less for each message.
local message_methods = {}
local message_meta = { __index = message_methods, __metatable = false, __name = "message" }

local told_meta = {} -- of {event}, what a thread that is handed an event wakes with

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
    if not count then
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

local function new_message(value, topic, from, arrived, count)
    if count == 1 then
        return setmetatable({ value, topic, from, arrived }, message_meta)
    end
    return setmetatable({ value, topic, from, arrived, count }, message_meta)
end

-- Hand what a message brought to who waits at a topic of raw values. A receiver wakes with the message beside the value,
-- or with the channel, which keeps the rest of what its usual receiver was handed last: no table for each message.
local function hand_raw(state, value, from, arrived, count)
    local receiver, usual = state.receiver, state.usual
    if (receiver == usual or not usual and receiver.co) and not state.receivers then
        state.from, state.number, state.count = from, arrived, count
        state.receiver, state.usual = false, receiver
        ready(receiver, value, state)
    else
        hand_over(state, value, new_message(value, state.topic, from, arrived, count))
    end
end

-- Deliver to a live process. Returns false when its mailbox is full.
local function deliver(process, topic, from, count, value)
    local listeners = process.listeners
    local state = listeners and listeners[topic] or process.inbox
    local receiver = state and state.receiver
    if not receiver and process.mail >= process.limit then
        return false
    end
    local arrived = process.arrived + 1
    process.arrived = arrived
    if receiver and state.raw then
        hand_raw(state, value, from, arrived, count)
        return true
    end
    local message = new_message(value, topic, from, arrived, count)
    if receiver then
        hand_over(state, message, message)
    else
        keep(process, state, message)
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
        state[last] = setmetatable({ value, topic, from, arrived }, message_meta)
        state.last = last
        return true
    end
    local arrived = process.arrived + 1
    process.arrived = arrived
    local message = setmetatable({ value, topic, from, arrived }, message_meta)
    if receiver.co and not state.receivers then
        state.receiver = false
        ready(receiver, message, message)
    else
        hand_over(state, message, message)
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
            hand_over(state, raw(message), message)
        elseif state and state.receiver then
            hand_over(state, message, message)
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
    if state and state.receiver then
        hand_over(state, event, setmetatable({ event }, told_meta))
        return
    elseif state then
        append(state, event)
        return
    end
    local waiting = process.waiting_events
    if not waiting then
        waiting = {}
        process.waiting_events = waiting
    end
    waiting[#waiting + 1] = event
end

local function find_event(list, first, last, kind)
    for i = first, last do
        if list[i].kind == kind then
            return i
        end
    end
    return nil
end

-- The event of a kind that waits and that nobody took yet: the list it is in and its place, or nil.
local function find_waiting(process, kind)
    local state, waiting = process.events, process.waiting_events
    local at = state and find_event(state, state.first, state.last, kind)
    if at then
        return state, at
    end
    at = waiting and find_event(waiting, 1, #waiting, kind)
    return at and waiting, at
end

-- Tell a process that its code changed. An event nobody took yet is joined.
local function outdated(process, sources)
    local list, at = find_waiting(process, "pid.outdated")
    local event = list and list[at]
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

-- Tell a process that it is asked to leave before ``deadline``, in ms since 1970. An event nobody took yet is joined: the later wish counts.
local function migrate(process, to, deadline)
    local list, at = find_waiting(process, "pid.migrate")
    if list then
        list[at].to, list[at].deadline = to, deadline
    else
        tell(process, { kind = "pid.migrate", from = "", to = to, deadline = deadline })
    end
end

-- The wish is withdrawn: an event nobody took yet is gone.
local function stay(process)
    local list, at = find_waiting(process, "pid.migrate")
    if not list then
        return
    end
    local last = list.last or #list
    for i = at, last do
        list[i] = list[i + 1]
    end
    if not list.last then
        return
    elseif list.first == last then
        list.first, list.last = 1, 0
    else
        list.last = last - 1
    end
end

-- What the threads that were woken and have not run since wake with.
local function gather_unread(process, messages, events)
    local thread = process.first
    while thread do
        local woken_by = thread.b
        local meta = type(woken_by) == "table" and rawmeta(woken_by)
        if meta == message_meta then
            messages[#messages + 1] = woken_by
        elseif meta == told_meta then
            events[#events + 1] = woken_by[1]
        elseif meta == nil and rawget(woken_by, "usual") == thread then
            local message = new_message(thread.a, woken_by.topic, woken_by.from, woken_by.number, woken_by.count)
            messages[#messages + 1] = message
        end
        thread = thread.next
    end
end

-- What waits in the channel of a topic, and what its feed holds that the channel of the program did not take.
local function gather_topic(state, messages)
    drain(state, messages)
    local feed = state.feed
    if feed and feed.held and is_sending(feed) then
        messages[#messages + 1] = feed.held
    end
end

-- All that a process was sent and has not looked at, in order of arrival; nothing of it is left with the process.
local function gather_messages(process, messages)
    if process.inbox then
        drain(process.inbox, messages)
    end
    for _, state in pairs(process.listeners or {}) do
        gather_topic(state, messages)
    end
    local unclaimed = process.unclaimed
    for i = 1, unclaimed and unclaimed.n or 0 do
        messages[#messages + 1] = unclaimed[i]
    end
    process.unclaimed, process.mail = nil, 0
    sort(messages, by_arrival)
end

-- What it was told of older code, and that it is asked to leave, is void for whoever starts over.
local VOID = { ["pid.outdated"] = true, ["pid.migrate"] = true }

local function gather_events(process, events)
    if process.events then
        drain(process.events, events)
    end
    for _, event in next, process.waiting_events or {} do
        events[#events + 1] = event
    end
    process.waiting_events = nil
    local kept = {}
    for i = 1, #events do
        if not VOID[events[i].kind] then
            kept[#kept + 1] = events[i]
        end
    end
    return kept
end

-- Messages and events for a process that has not asked for any yet.
local function leave_with(process, messages, events)
    process.mail = #messages
    if #messages > 0 then
        messages.n = #messages
        process.unclaimed = messages
    end
    process.waiting_events = #events > 0 and events or nil
end

-- ``fresh`` takes the place of ``process``, of which nothing runs any more.
local function pass_on(process, fresh)
    local messages, events = {}, {}
    gather_unread(process, messages, events)
    gather_messages(process, messages)
    leave_with(fresh, messages, gather_events(process, events))
end

-- What waits for a process that is about to travel: lists of messages, as {topic, from, number, count, value}, and events.
local function pack(process)
    local list, events = {}, {}
    local unclaimed = process.unclaimed
    for i = 1, unclaimed and unclaimed.n or 0 do
        local message = unclaimed[i]
        list[i] = { message[TOPIC], message[FROM], message[ARRIVED], message[COUNT] or 1, message[VALUE] }
    end
    for _, event in next, process.waiting_events or {} do
        if not VOID[event.kind] then
            events[#events + 1] = event
        end
    end
    return list, events
end

local function unpack(process, list, events)
    local messages = {}
    for i = 1, #list do
        local one = list[i]
        messages[i] = new_message(one[5], one[1], one[2], one[3], one[4])
    end
    leave_with(process, messages, events)
end

-- How it can be told whether what a feed holds was not taken; see subscriptions.lua.
local function set_is_sending(ask)
    is_sending = ask
end

K.mailbox = {
    ARRIVED = ARRIVED,
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
    migrate = migrate,
    stay = stay,
    pass_on = pass_on,
    pack = pack,
    unpack = unpack,
    set_is_sending = set_is_sending,
    new_payload = new_payload,
    payload_meta = payload_meta,
    payload_methods = payload_methods,
    message_meta = message_meta,
    message_methods = message_methods,
}
