-- Channels: how the coroutines of one process hand values to each other.
--
-- A channel is an empty table; what it consists of is its metatable, which only the kernel can
-- read. Values that wait sit in the state at first..last. A waiting thread, or a ``select``
-- that waits, is in the queue of receivers or senders; a select leaves all queues when one of
-- its cases is done.
--
-- The kernel feeds some channels itself: inbox, topics, events, timers, streams, results. Those
-- have no capacity of their own, ``push`` always finds room; ``owner`` counts what waits for its
-- process, ``on_close`` ends the subscription.
local K = ...
local turns = K.turns
local ready, check_wait = turns.ready, turns.check_wait
local isyieldable, yield, WAIT = coroutine.isyieldable, coroutine.yield, turns.WAIT
local rawmeta = debug.getmetatable
local error, rawget, setmetatable, type = error, rawget, setmetatable, type

local VALUE = 1 -- of a message (mailbox.lua)
local methods = {}
local CASE = {} -- marks the metatable of a send case
local rotation = 0

K.values.special[methods] = { what = "a channel" }

-- Queues of waiters: the first in a field, the others (rare) in a list.
local function add_waiter(state, side, rest, waiter)
    if not state[side] then
        state[side] = waiter
        return
    end
    local list = state[rest]
    if not list then
        list = { first = 1, last = 0 }
        state[rest] = list
    end
    list.last = list.last + 1
    list[list.last] = waiter
end

local function next_waiter(state, side, rest)
    local list = state[rest]
    if not list then
        state[side] = false
        return
    end
    local waiter = list[list.first]
    list[list.first] = nil
    state[side] = waiter
    if list.first == list.last then
        state[rest] = nil
    else
        list.first = list.first + 1
    end
end

local function remove_waiter(state, side, rest, waiter)
    if state[side] == waiter then
        next_waiter(state, side, rest)
        return
    end
    local list = state[rest]
    if not list then
        return
    end
    local kept = { first = 1, last = 0 }
    for i = list.first, list.last do
        if list[i] ~= waiter then
            kept.last = kept.last + 1
            kept[kept.last] = list[i]
        end
    end
    state[rest] = kept.last > 0 and kept or nil
end

-- One case of a waiting select is done: the select leaves every queue and its thread goes on.
-- Returns the value, which for a send comes from the case.
local function select_done(waiter, state, sending, value, ok)
    local sends, done = waiter.sends, false
    for i = 1, waiter.count do
        local send = sends and sends[i]
        if send then
            remove_waiter(waiter[i], "sender", "senders", waiter)
        else
            remove_waiter(waiter[i], "receiver", "receivers", waiter)
        end
        if not done and waiter[i] == state and (send ~= nil) == sending then
            done = true
            if sending then
                value = send.value
            end
        end
    end
    ready(waiter.thread, { channel = state.channel, value = value, ok = ok ~= false }, ok)
    return value
end

-- Hand a value to the first waiting receiver. ``ok`` is what its receive returns beside the value, but for values out of
-- the mailbox: then it is what they were taken from (mailbox.lua), so that what nobody has looked at can be found.
local function hand_over(state, value, ok)
    local receiver = state.receiver
    if receiver.co then
        if state.receivers then
            next_waiter(state, "receiver", "receivers")
        else
            state.receiver = false
        end
        ready(receiver, value, ok)
    else
        select_done(receiver, state, false, value, ok)
    end
end

local function append(state, value)
    local last = state.last + 1
    state[last] = value
    state.last = last
end

-- Take the value of the first waiting sender and let it go on.
local function take_from_sender(state)
    local sender = state.sender
    if sender.thread then
        return select_done(sender, state, true, nil, true)
    end
    next_waiter(state, "sender", "senders")
    ready(sender.parked, true)
    return sender.value
end

-- Take the first value that waits in the channel.
local function take(state)
    local first = state.first
    local value = state[first]
    state[first] = nil
    if first == state.last then
        state.first, state.last = 1, 0
    else
        state.first = first + 1
    end
    if state.sender then
        append(state, take_from_sender(state))
    end
    local owner = state.owner
    if owner then
        owner.mail = owner.mail - 1
        if state.raw then
            return value[VALUE]
        end
    end
    return value
end

local function state_of(channel, name)
    local state = rawmeta(channel)
    if not state or state.__index ~= methods then
        error("expected a channel: call it as ch:" .. name .. "()", 3)
    end
    return state
end

local function closed_send()
    error("send on closed channel", 3)
end

function methods.send(channel, value)
    local state = state_of(channel, "send")
    if state.closed then
        closed_send()
    elseif state.fed then
        error("can't send on a channel of the runtime", 2)
    elseif state.receiver then
        hand_over(state, value, true)
        return true
    elseif state.last - state.first + 1 < state.capacity then
        append(state, value)
        return true
    end
    check_wait("send")
    add_waiter(state, "sender", "senders", { parked = turns.current, value = value })
    if not yield(WAIT) then
        closed_send()
    end
    return true
end

function methods.receive(channel)
    local state = rawmeta(channel)
    if not state or state.__index ~= methods then
        state_of(channel, "receive")
    end
    if state.last ~= 0 then
        return take(state), true
    elseif state.sender then
        return take_from_sender(state), true
    elseif state.closed then
        return nil, false
    end
    local thread = turns.current
    if thread.pinned or not isyieldable() then
        check_wait("receive")
    end
    if state.receiver then
        add_waiter(state, "receiver", "receivers", thread)
    else
        state.receiver = thread
    end
    local value, ok = yield(WAIT)
    return value, ok ~= false
end

-- Close: values that wait can still be received, waiting receivers get nil, waiting senders an error.
local function close(state)
    if state.closed then
        return
    end
    state.closed = true
    while state.receiver do
        hand_over(state, nil, false)
    end
    while state.sender do
        local sender = state.sender
        if sender.thread then
            sender.failed = true
            select_done(sender, state, true, nil, false)
        else
            next_waiter(state, "sender", "senders")
            ready(sender.parked, false)
        end
    end
    if state.on_close then
        state.on_close(state)
    end
end

function methods.close(channel)
    close(state_of(channel, "close"))
end

-- A channel in a list of cases stands for receiving from it.
function methods.case_receive(channel)
    state_of(channel, "case_receive")
    return channel
end

function methods.case_send(channel, value)
    local state = state_of(channel, "case_send")
    return setmetatable({}, { __metatable = false, case = CASE, state = state, value = value })
end

local function receive_now(state)
    if state.last ~= 0 then
        return { channel = state.channel, value = take(state), ok = true }
    elseif state.sender then
        return { channel = state.channel, value = take_from_sender(state), ok = true }
    elseif state.closed then
        return { channel = state.channel, value = nil, ok = false }
    end
    return nil
end

local function send_now(case)
    local state, value = case.state, case.value
    if state.closed then
        error("send on closed channel", 3)
    elseif state.receiver then
        hand_over(state, value, true)
    elseif state.last - state.first + 1 < state.capacity then
        append(state, value)
    else
        return nil
    end
    return { channel = state.channel, value = value, ok = true }
end

-- Put the running thread into the queues of all cases and wait for the first that is done.
local function select_wait(cases, count)
    check_wait("select")
    local waiter = { thread = turns.current, count = count, sends = nil }
    for i = 1, count do
        local state = rawmeta(cases[i])
        if state.case then
            waiter[i] = state.state
            waiter.sends = waiter.sends or {}
            waiter.sends[i] = state
            add_waiter(state.state, "sender", "senders", waiter)
        else
            waiter[i] = state
            add_waiter(state, "receiver", "receivers", waiter)
        end
    end
    local result = yield(WAIT)
    if waiter.failed then
        error("send on closed channel", 3)
    end
    return result
end

local function check_case(case, position)
    local state = rawmeta(case)
    if not state or rawget(state, "__index") ~= methods and rawget(state, "case") ~= CASE then
        local hint = "expected ch:case_receive() or ch:case_send(value), got " .. type(case)
        error("invalid case " .. position .. " in channel.select: " .. hint, 3)
    end
end

local function select(cases)
    if type(cases) ~= "table" or rawmeta(cases) then
        error("bad argument #1 to 'select' (a plain table of cases expected, got " .. type(cases) .. ")", 2)
    end
    local count = #cases
    rotation = rotation + 1
    for i = 1, count do
        check_case(cases[i], i)
    end
    for i = 1, count do
        local state = rawmeta(cases[(i + rotation) % count + 1])
        local result
        if state.case then
            result = send_now(state)
        else
            result = receive_now(state)
        end
        if result then
            return result
        end
    end
    if cases.default then
        return { default = true, ok = true }
    end
    return select_wait(cases, count)
end

-- A channel and its state.
local function open(capacity)
    local channel = {}
    local state = {
        __index = methods,
        __metatable = false,
        channel = channel,
        capacity = capacity,
        first = 1,
        last = 0,
        closed = false,
        receiver = false,
        sender = false,
    }
    return setmetatable(channel, state), state
end

-- A channel only the kernel feeds.
local function open_fed()
    local channel, state = open(0)
    state.fed = true
    return channel, state
end

-- Feed a value: to a waiting receiver, else it waits. Values for a closed channel are lost.
local function push(state, value)
    if state.closed then
        return
    elseif state.receiver then
        hand_over(state, value, true)
    else
        append(state, value)
    end
end

local function new(size)
    if size == nil then
        size = 0
    elseif type(size) ~= "number" or size < 0 or size % 1 ~= 0 then
        error("bad argument #1 to 'new' (a whole number >= 0 expected)", 2)
    end
    return (open(size))
end

K.channels = {
    methods = methods,
    api = { new = new, select = select },
    open = open,
    open_fed = open_fed,
    push = push,
    append = append,
    hand_over = hand_over,
    close = close,
}
