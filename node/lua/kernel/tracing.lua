-- Tracing: what arrives at a process, and what it sends, for somebody who looks on.
--
-- While nobody does, nothing of this is in the way of a message: the functions that deliver are replaced when the first
-- process is traced, and put back when none is any more. Whoever looks on asks again and again; when nobody has asked
-- for a while, tracing ends.
local K = ...
local codec, delivery, mailbox, operations, processes, queries, turns =
    K.codec, K.delivery, K.mailbox, K.operations, K.processes, K.queries, K.turns
local getupvalue, setupvalue = debug.getupvalue, debug.setupvalue
local error, type = error, type

local MOST = 1000 -- records that wait for who looks on
local LARGEST = 1000 -- bytes of a message that is shown
local PATIENCE = 3e9 -- ns

local traced = {} -- PID -> {records, left_out}
local replaced = {} -- {function, index, what was there}
local latest = 0 -- when somebody asked last
local tell, put_message = mailbox.tell, operations.put_message

local end_all

-- Whether nobody looks on any more; then nothing is traced from now on.
local function is_over()
    if turns.monotonic_now() - latest <= PATIENCE then
        return false
    end
    end_all()
    return true
end

local function note(trace, way, other, topic, list)
    local records = trace.records
    if #records >= MOST then
        trace.left_out = trace.left_out + 1
        return
    end
    local data = codec.encode({ list }, 1, 1)
    local size = data and #data or 0
    records[#records + 1] = {
        at = turns.wall_now(),
        way = way,
        other = other,
        topic = topic,
        size = size,
        data = size <= LARGEST and data or nil,
    }
end

local function note_message(to, from, topic, list)
    local receiver, sender = traced[to], traced[from]
    if is_over() then
        return
    end
    if receiver then
        note(receiver, "in", from, topic, list)
    end
    if sender then
        note(sender, "out", to, topic, list)
    end
end

-- Where ``f`` has the local ``name`` of its file, and what it is.
local function find(f, name)
    local index, found, value = 1, getupvalue(f, 1)
    while found and found ~= name do
        index = index + 1
        found, value = getupvalue(f, index)
    end
    if not found then
        error("tracing knows no " .. name, 0)
    end
    return index, value
end

-- Replace the local ``name`` that ``f`` and its whole file share.
local function replace(f, name, make)
    local index, value = find(f, name)
    replaced[#replaced + 1] = { f = f, index = index, value = value }
    setupvalue(f, index, make(value))
end

local function begin()
    replace(delivery.send, "deliver_one", function(deliver_one)
        return function(process, topic, from, value)
            note_message(process.pid, from, topic, { value, n = 1 })
            return deliver_one(process, topic, from, value)
        end
    end)
    replace(delivery.send_startup, "deliver", function(deliver)
        return function(process, topic, from, count, value)
            local list = { n = count }
            for i = 1, count do
                list[i] = count == 1 and value or value[i]
            end
            note_message(process.pid, from, topic, list)
            return deliver(process, topic, from, count, value)
        end
    end)
    local _, send_other = find(delivery.send, "send_other")
    local _, send_out = find(send_other, "send_out")
    replace(send_out, "encode_named", function(encode_named)
        return function(to, from, topic, list, ...)
            local text = encode_named(to, from, topic, list, ...)
            note_message(to, from, topic, list)
            return text
        end
    end)
    function operations.put_message(to, from, text)
        if traced[from] then
            local topic, at = codec.decode_next(text, 1)
            local list = codec.decode_next(text, at)
            list.n = codec.length_of(list)
            note_message(to, from, topic, list)
        end
        return put_message(to, from, text)
    end
    function mailbox.tell(process, event)
        local trace = traced[process.pid]
        if trace and not is_over() then
            note(trace, "event", event.from or "", event.kind, { event.reason, n = event.reason and 1 or 0 })
        end
        return tell(process, event)
    end
end

function end_all()
    traced = {}
    for i = #replaced, 1, -1 do
        local one = replaced[i]
        setupvalue(one.f, one.index, one.value)
        replaced[i] = nil
    end
    operations.put_message, mailbox.tell = put_message, tell
end

-- What was seen of ``pid`` since the last time it was asked, from when on it is seen; nil when it is not here.
function queries.answers.trace(pid)
    if type(pid) ~= "string" or not processes.by_pid[pid] then
        return nil
    end
    local trace = #replaced > 0 and not is_over() and traced[pid]
    local told = trace or { records = {}, left_out = 0, is_new = true }
    if #replaced == 0 then
        begin()
    end
    latest = turns.monotonic_now()
    traced[pid] = { records = {}, left_out = 0, is_new = false }
    return told
end
