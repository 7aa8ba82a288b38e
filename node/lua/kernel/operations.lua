-- Operations: what a process asks of the world outside its VM, and the way the answers come back.
--
-- Everything that leaves the VM in a step is in ``out``, in order. An operation is answered by
-- its number, a request to another process by its reference; whoever waits is a thread, or the
-- kernel itself by a callback. When a process ends, its operations are taken back.
local K = ...
local errors, turns, values, timers, channels = K.errors, K.turns, K.values, K.timers, K.channels
local ready, check_wait = turns.ready, turns.check_wait
local yield, WAIT = coroutine.yield, turns.WAIT
local next, select, type, unpack = next, select, type, table.unpack

local OK, NOPROC, NOCONNECTION = 0, 2, 3
local SLOTS = 64
local SECOND = 1000000000

local box = { out = {}, count = 0 }
local last_operation, last_reference, last_stream = 0, 0, 0
local waiting = {} -- number of the operation -> {process, thread | call}
local requests = {} -- reference -> {process, thread | call, node, timer}
local streams = {} -- number -> {process, state}

local function put(item)
    local count = box.count + 1
    box.count = count
    box.out[count] = item
end

-- What left the VM since the last call.
local function collect()
    local out, count = box.out, box.count
    if count > 0 then
        box.out, box.count = {}, 0
    end
    return out, count
end

local function hold(process, set, number)
    process.holds = process.holds + 1
    local numbers = process[set]
    if not numbers then
        numbers = {}
        process[set] = numbers
    end
    numbers[number] = true
end

local function release(process, set, number)
    local numbers = process[set]
    if numbers then -- else the process ended and gave up all at once
        process.holds = process.holds - 1
        numbers[number] = nil
    end
end

local function begin(process, item, waiter)
    last_operation = last_operation + 1
    item[2] = last_operation
    waiter.process = process
    waiting[last_operation] = waiter
    hold(process, "operations", last_operation)
    put(item)
    return last_operation
end

-- Wait for an operation; returns nil and an error object, or nothing wrong and the values with their number.
local function await(item)
    local thread = turns.current
    begin(thread.process, item, { thread = thread })
    return yield(WAIT)
end

-- Start an operation of the kernel itself: ``call(err, values)`` gets the answer.
local function ask(process, item, call)
    return begin(process, item, { call = call })
end

-- [40]: an operation is answered.
local function answered(number, err, answer)
    local waiter = waiting[number]
    if not waiter then
        return
    end
    waiting[number] = nil
    release(waiter.process, "operations", number)
    if err then
        err = errors.from_map(err)
    end
    if waiter.thread then
        ready(waiter.thread, err, answer)
    else
        waiter.call(err, answer)
    end
end

-- The caller gave an operation up.
local function take_back(number)
    local waiter = waiting[number]
    if waiter then
        waiting[number] = nil
        release(waiter.process, "operations", number)
        put({ 56, number })
    end
end

local function pack_arguments(module, name, ...)
    local list, problem = values.copy_list(select("#", ...), { ... })
    if not list then
        local text = "bad arguments to " .. module .. "." .. name .. ": " .. problem[errors.MESSAGE]
        return nil, errors.new("Invalid", text, false)
    end
    return values.outward_list(list)
end

-- Call the Python half of a module and wait. Returns its values, or nil and an error object.
local function call(module, name, ...)
    check_wait(module .. "." .. name)
    local arguments, problem = pack_arguments(module, name, ...)
    if not arguments then
        return nil, problem
    end
    local process = turns.current.process
    local err, answer = await({ 50, 0, process.pid, process.entry, module, name, arguments })
    if err then
        return nil, err
    end
    return unpack(answer, 1, answer.n)
end

-- Tell the Python half of a module something; returns true, or nil and an error object.
local function cast(module, name, ...)
    local arguments, problem = pack_arguments(module, name, ...)
    if not arguments then
        return nil, problem
    end
    local process = turns.current.process
    put({ 51, process.pid, process.entry, module, name, arguments })
    return true
end

local function stream_closed(state)
    local process, number = state.stream_of, state.stream
    streams[number] = nil
    release(process, "streams", number)
    process.streamed = true
end

-- Call a module that will feed a channel. Its first argument is the number of the stream.
-- Returns the channel and that number, or nil and an error object.
local function stream(module, name, ...)
    local process = turns.current.process
    last_stream = last_stream + 1
    local number = last_stream
    local channel, state = channels.open_fed()
    state.stream, state.stream_of, state.on_close = number, process, stream_closed
    streams[number] = state
    hold(process, "streams", number)
    process.streamed = true
    local first, err = call(module, name, number, ...)
    if err then
        channels.close(state)
        return nil, err
    end
    return channel, number, first
end

-- [41] and [42].
local function pushed(number, value)
    local state = streams[number]
    if state then
        channels.push(state, value)
    end
end

local function stream_ended(number)
    local state = streams[number]
    if state then
        channels.close(state)
    end
end

local function request_done(reference, status, value)
    local request = requests[reference]
    if not request then
        return
    end
    requests[reference] = nil
    if request.timer then
        timers.stop(request.timer)
    end
    release(request.process, "requests", reference)
    if request.call then
        request.call(status, value)
        return
    end
    if status == OK and request.on_ok then
        request.on_ok(value)
    end
    if not request.process.dead then
        ready(request.thread, status, value)
    end
end

local function request_timed_out(timer)
    local request = requests[timer.reference]
    if request then
        local text = "no answer from node " .. request.node .. " within " .. request.seconds .. " s; the outcome is unknown"
        request_done(timer.reference, 1, { kind = "Timeout", message = text, retryable = true })
    end
end

local function send_request(process, node, envelope, seconds, asked)
    last_reference = last_reference + 1
    local reference = last_reference * SLOTS + K.config.slot -- no other VM of the node has it
    envelope[4] = reference
    asked.process, asked.node, asked.seconds = process, node, seconds
    requests[reference] = asked
    hold(process, "requests", reference)
    if seconds then
        asked.timer = timers.after(process, seconds * SECOND, request_timed_out)
        asked.timer.reference = reference
    end
    put(envelope)
end

-- Send an envelope that wants a REPLY and wait; returns its status and value. ``on_ok(value)`` is
-- called as the answer comes in, before any later envelope is looked at, and also when the
-- process has ended meanwhile.
local function request(process, node, envelope, seconds, on_ok)
    send_request(process, node, envelope, seconds, { thread = turns.current, on_ok = on_ok })
    return yield(WAIT)
end

-- The same for the kernel: ``call(status, value)`` gets the answer.
local function request_then(process, node, envelope, seconds, call)
    send_request(process, node, envelope, seconds, { call = call })
end

-- REPLY. Nobody may wait any more: then it is for nobody.
local function replied(reference, status, value)
    request_done(reference, status, value)
end

-- The error object for a REPLY that is not OK.
local function reply_error(status, value, to)
    if type(value) == "table" then
        return errors.from_map(value)
    elseif status == NOPROC then
        return errors.new("NotFound", "no process " .. to .. ": it ended or never was", false)
    end
    return errors.new("Unavailable", "no connection to " .. to .. "; the outcome is unknown", true)
end

-- Answer a request that came in.
local function reply(envelope, status, value)
    if envelope[4] ~= 0 then
        if value == nil then
            value = K.null
        end
        put({ 3, envelope[3], envelope[2], envelope[4], status, value })
    end
end

-- All requests to a node that is gone end with NOCONNECTION.
local function node_gone(node, text)
    local gone = {}
    for reference, asked in next, requests do
        if asked.node == node then
            gone[#gone + 1] = reference
        end
    end
    for i = 1, #gone do
        request_done(gone[i], NOCONNECTION, { kind = "Unavailable", message = text, retryable = true })
    end
end

-- The process ended or starts over: nobody is interested in its answers any more.
local function take_back_all(process)
    for number in next, process.operations or {} do
        waiting[number] = nil
        put({ 56, number })
    end
    for reference in next, process.requests or {} do
        local asked = requests[reference]
        if asked and not asked.call and not asked.on_ok then
            requests[reference] = nil
        end
    end
    for number in next, process.streams or {} do
        streams[number] = nil
    end
    process.operations, process.requests, process.streams = nil, nil, nil
end

K.operations = {
    put = put,
    collect = collect,
    ask = ask,
    await = await,
    answered = answered,
    take_back = take_back,
    call = call,
    cast = cast,
    stream = stream,
    pushed = pushed,
    stream_ended = stream_ended,
    request = request,
    request_then = request_then,
    replied = replied,
    reply_error = reply_error,
    reply = reply,
    node_gone = node_gone,
    take_back_all = take_back_all,
    OK = OK,
    NOPROC = NOPROC,
    NOCONNECTION = NOCONNECTION,
}
