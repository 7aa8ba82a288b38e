-- Operations: what a process asks of the world outside its VM, and the way the answers come back.
--
-- Everything that leaves the VM in a step is in the box, encoded, in order. An operation is answered by
-- its number, a request to another process by its reference; whoever waits is a thread, or the
-- kernel itself by a callback. When a process ends, its operations are taken back.
local K = ...
local codec, errors, turns, values, timers, channels = K.codec, K.errors, K.turns, K.values, K.timers, K.channels
local ready, check_wait = turns.ready, turns.check_wait
local yield, WAIT = coroutine.yield, turns.WAIT
local concat, next, select, type, unpack = table.concat, next, select, type, table.unpack

local OK, NOPROC, NOCONNECTION = 0, 2, 3
local MESSAGES = 13
local LONGEST_RUN, LARGEST_RUN = 32, 16 * 1024 -- messages and bytes of one envelope with several
local SLOTS = 64
local SECOND = 1000000000

local box = { out = {}, count = 0 }
local last_operation, last_reference, last_stream = 0, 0, 0
local waiting = {} -- number of the operation -> {process, thread | call}
local requests = {} -- reference -> {process, thread, node, timer, on_ok}
local streams = {} -- number -> {process, state}

local run = { to = false, from = false, count = 0, size = 0, pieces = {} }

local function add(text)
    local count = box.count + 1
    box.out[count] = text
    box.count = count
end

-- Messages of one process to another that leave one right after the other leave as one envelope.
local function end_run()
    local count = run.count
    if count == 1 then
        add(codec.message(run.to, run.from, run.pieces[1]))
    elseif count > 1 then
        add(codec.encode({ MESSAGES, run.to, run.from, 0, count, concat(run.pieces, "", 1, count) }, 6))
    end
    run.count = 0 -- not before: where memory is short this is tried again
end

-- A message leaves the VM; ``piece`` is its topic and its payloads, encoded.
local function put_message(to, from, piece)
    if run.count == LONGEST_RUN or run.size + #piece > LARGEST_RUN or run.to ~= to or run.from ~= from then
        end_run()
        run.to, run.from = to, from
    end
    local count = run.count + 1
    run.size = count > 1 and run.size + #piece or #piece
    run.count = count
    run.pieces[count] = piece
end

local function put_text(text)
    if run.count > 0 then
        end_run()
    end
    add(text)
end

local function count()
    if run.count > 0 then
        end_run()
    end
    return box.count
end

-- Make nil what has no form outside.
local function leave_out(list, count, but)
    for position = 1, count do
        if position ~= but and not codec.encode({ list[position] }, 1) then
            list[position] = nil
        end
    end
end

-- An item of the kernel leaves the VM. ``item[list]`` is a list that knows its length. What has
-- no form outside shows as nil.
local function put(item, count, list)
    local text = codec.encode(item, count, list)
    if not text then
        if list then
            leave_out(item[list], item[list].n)
        end
        leave_out(item, count, list)
        text = codec.encode(item, count, list)
    end
    put_text(text)
end

-- All that left the VM since the last call, as one text.
local function collect()
    local out, count = box.out, box.count
    box.out, box.count = {}, 0
    return codec.join(out, count)
end

-- A function that runs for a process that may own something is about to act: the node is told for whom.
local function announce(process)
    local caller = process.caller
    if caller and not process.announced then
        process.announced = true
        process.named = true -- the node is told of its end too
        announce(caller)
        put({ 60, process.pid, caller.pid }, 3)
    end
end

local function hold(process, set, number)
    process.holds = process.holds + 1
    process.asked = process.asked + 1
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
        process.asked = process.asked - 1
        numbers[number] = nil
        if process.successor then
            K.moving.settle(process.successor)
        end
    end
end

-- Why a process may not ask for more now, or nil.
local function too_many(process)
    if process.asked < K.config.max_waiting then
        return nil
    end
    K.limits.hit("max_waiting")
    local text = "the process waits for " .. process.asked .. " answers already; wait for some, or raise max_waiting of its host"
    return errors.new("RateLimited", text, true)
end

-- Start an operation of the kernel itself: ``call(err, values)`` gets the answer.
local function ask(process, code, argument, call)
    last_operation = last_operation + 1
    waiting[last_operation] = { process = process, call = call }
    hold(process, "operations", last_operation)
    put({ code, last_operation, argument }, 3)
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
        put({ 56, number }, 2)
    end
end

-- Send ``item``, whose last value is a list of a user's arguments; or nil and an error object.
local function put_arguments(item, module, name)
    local position = #item
    local text = codec.encode(item, position, position)
    if text then
        put_text(text)
        return true
    end
    local list = item[position]
    local _, problem = values.copy_list(list.n, list)
    local what = problem and problem[errors.MESSAGE] or "not plain data"
    return nil, errors.new("Invalid", "bad arguments to " .. module .. "." .. name .. ": " .. what, false)
end

-- Call the Python half of a module and wait. Returns its values, or nil and an error object.
local function call(module, name, ...)
    check_wait(module .. "." .. name)
    local thread = turns.current
    local process, number = thread.process, last_operation + 1
    local problem = too_many(process)
    if problem then
        return nil, problem
    end
    announce(process)
    local arguments = { n = select("#", ...), ... }
    local ok
    ok, problem = put_arguments({ 50, number, process.pid, process.entry, module, name, arguments }, module, name)
    if not ok then
        return nil, problem
    end
    last_operation = number
    waiting[number] = { process = process, thread = thread, module = module, name = name }
    hold(process, "operations", number)
    local err, answer = yield(WAIT)
    if err then
        return nil, err
    end
    return unpack(answer, 1, answer.n)
end

-- Tell the Python half of a module something; returns true, or nil and an error object.
local function cast(module, name, ...)
    local process = turns.current.process
    announce(process)
    local arguments = { n = select("#", ...), ... }
    return put_arguments({ 51, process.pid, process.entry, module, name, arguments }, module, name)
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
    local problem = too_many(process)
    if problem then
        return nil, problem
    end
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

-- What the kernel asked for a process is no request of it any more.
local function forget_call(process, reference)
    if process.requests then
        process.requests[reference] = nil
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
    if status == OK and request.on_ok then
        request.on_ok(value)
    end
    if request.call then
        forget_call(request.process, reference)
        request.call(status, value)
        return
    end
    release(request.process, "requests", reference)
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

local function send_request(process, node, envelope, list, seconds, asked)
    announce(process)
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
    put(envelope, #envelope, list)
end

-- Send an envelope that wants a REPLY and wait; returns its status and value. ``on_ok(value)`` is
-- called as the answer comes in, before any later envelope is looked at, and also when the
-- process has ended meanwhile. ``envelope[list]``: see ``put``.
local function request(process, node, envelope, list, seconds, on_ok)
    local problem = too_many(process)
    if problem then
        return 1, errors.to_map(problem)
    end
    send_request(process, node, envelope, list, seconds, { thread = turns.current, on_ok = on_ok })
    return yield(WAIT)
end

-- The kernel asks for a process; ``call(status, value)`` gets the answer, also when the process has ended meanwhile.
-- Nothing of the process waits for it.
local function request_by_kernel(process, node, envelope, call)
    send_request(process, node, envelope, nil, nil, { call = call })
    process.holds, process.asked = process.holds - 1, process.asked - 1
end

-- REPLY. Nobody may wait any more: then it is for nobody.
local function replied(to, reference, status, value)
    local asked = requests[reference]
    if asked and asked.process.pid == to then -- a former VM of this slot may have asked with the same number
        request_done(reference, status, value)
    end
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
        put({ 3, envelope[3], envelope[2], envelope[4], status, value }, 6)
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

-- Nothing feeds the channels of the process any more.
local function end_streams(process)
    for number in next, process.streams or {} do
        streams[number] = nil
    end
    process.streams = nil
end

-- The process ended or starts over: nobody is interested in its answers any more.
local function take_back_all(process)
    for number in next, process.operations or {} do
        waiting[number] = nil
        put({ 56, number }, 2)
    end
    for reference in next, process.requests or {} do
        local asked = requests[reference]
        if asked and not asked.on_ok and not asked.call then
            requests[reference] = nil
        end
    end
    process.operations, process.requests = nil, nil
    end_streams(process)
end

-- The process is about to leave: what the kernel asked for it, it will ask again elsewhere.
local function take_back_calls(process)
    for reference in next, process.requests or {} do
        if requests[reference].call then
            requests[reference] = nil
            forget_call(process, reference)
        end
    end
end

-- Show ``look`` what waits for an answer or is fed: its process, and all that belongs to it.
local function each(look)
    for _, waiter in next, waiting do
        look(waiter.process, waiter)
    end
    for _, asked in next, requests do
        look(asked.process, asked)
    end
    for _, state in next, streams do
        look(state.stream_of, state)
    end
end

K.operations = {
    put = put,
    announce = announce,
    put_text = put_text,
    put_message = put_message,
    collect = collect,
    count = count,
    ask = ask,
    answered = answered,
    take_back = take_back,
    call = call,
    cast = cast,
    stream = stream,
    pushed = pushed,
    stream_ended = stream_ended,
    request = request,
    request_by_kernel = request_by_kernel,
    end_streams = end_streams,
    take_back_calls = take_back_calls,
    replied = replied,
    reply_error = reply_error,
    reply = reply,
    node_gone = node_gone,
    take_back_all = take_back_all,
    each = each,
    OK = OK,
    NOPROC = NOPROC,
    NOCONNECTION = NOCONNECTION,
}
