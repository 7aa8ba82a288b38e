-- Delivery: from a process to another, by PID or by name.
--
-- A process of this VM gets the message at once, unless it came from elsewhere or was about to leave (``away``); for
-- any other an envelope leaves the VM. Names
-- are looked up in the table the node keeps up to date here, so sending never waits. A message by
-- name that comes too late for its holder comes back, see ``returned``.
local K = ...
local codec, errors, mailbox, operations, places, processes, sendorder, signals, values =
    K.codec, K.errors, K.mailbox, K.operations, K.places, K.processes, K.sendorder, K.signals, K.values
local turns = K.turns
local by_pid, near, config = processes.by_pid, processes.near, K.config
local congestion = K.congestion
local copy_message, copy_table, ENTRIES = values.copy_message, values.copy_table, values.ENTRIES
local decode_next = codec.decode_next
local deliver_one = mailbox.deliver_one
local deliver, put = mailbox.deliver, operations.put
local encode_named, note, new_order = codec.encode_named, sendorder.note, sendorder.new
local byte, error, format, select, type = string.byte, error, string.format, select, type

local BRACE, AT = byte("{"), byte("@")
local KNOWN = 8192
local AROUND = 9 -- bytes of an envelope around its PIDs, topic and payloads

local names = {} -- name -> {pid, revision}
local topics, topic_count = {}, 0 -- topics found good before
local outside, outside_count = {}, 0 -- PIDs of other VMs found good before
local dead_letters = { full = 0, noproc = 0, invalid = 0 }
local starting = {} -- PID of a process to be, that takes a name -> who starts it
local in_doubt = false -- whether the lease of this node, under which its processes hold names, may be over

-- A process that is about to start has its name before it is there; see ``names.claim``.
local function is_starting(pid)
    local by = starting[pid]
    return by and not by.dead
end

-- [43]: a name changed hands; an empty PID means it is free.
local function name_changed(name, pid, revision)
    if pid == "" then
        names[name] = nil
        return
    end
    names[name] = { pid = pid, revision = revision }
    local process = by_pid[pid]
    if process then
        process.named = true
    elseif places.is_own(pid) and not is_starting(pid) then
        put({ 53, pid, "", nil }, 4) -- it ended before its registration was there, and could not know of it
    end
end

local function check_topic(topic)
    if type(topic) ~= "string" then
        error("bad argument #2 to 'send' (string expected, got " .. type(topic) .. ")", 3)
    elseif topic == "" or byte(topic) == AT then
        return errors.new("Invalid", format("topic %q: expected a name that doesn't begin with '@'", topic), false)
    end
    if topic_count >= KNOWN then
        topics, topic_count = {}, 0
    end
    topics[topic] = true
    topic_count = topic_count + 1
    return nil
end

-- [39]: the lease of this node may be over, or is sure again.
local function names_in_doubt(is_in_doubt)
    in_doubt = is_in_doubt
end

-- The error of a send to a cluster name that a process of this node can't be sure to hold, or nil.
local function check_held(pid, name, revision)
    if revision == 0 or places.place_of(pid) ~= config.node then
        return nil
    end
    return errors.new("Unavailable", "name '" .. name .. "': the lease of this node, which holds it, may be over", true)
end

local function no_name(name)
    return errors.new("NotFound", "no process is registered as '" .. name .. "'", false)
end

-- PID, name and revision of a destination; nil and an error object when there is none.
local function resolve(destination)
    if byte(destination) == BRACE then
        return destination, "", 0
    end
    local held = names[destination]
    if held then
        return held.pid, destination, held.revision
    end
    return nil, no_name(destination)
end

-- The PID of a destination, for signals.
local function pid_of(destination, name)
    if type(destination) ~= "string" then
        error("bad argument #1 to '" .. name .. "' (string expected, got " .. type(destination) .. ")", 3)
    end
    local pid, problem = resolve(destination)
    if not pid then
        return nil, problem
    end
    return pid
end

local function is_pid(text)
    return text:find("^{[^@|]+@[^|]+|%w+%-%w+}$") ~= nil
end

-- A message found no room in the mailbox of ``process``. Its host says whether that ends the process.
local function full(process)
    process.counts.refused = process.counts.refused + 1
    dead_letters.full = dead_letters.full + 1
    K.limits.hit("mailbox_size")
    local details = { reason = "mailbox_full", pid = process.pid, limit = process.limit }
    local text = format("mailbox of %s is full (%d messages)", process.pid, process.limit)
    if config.mailbox_policy == "kill" and not K.memory.short then
        text = text .. ", so it was killed"
        processes.kill(process, "mailbox", errors.new("RateLimited", "killed: mailbox"))
        local thread = turns.current
        if thread and thread.process == process then
            turns.abandon()
        end
    elseif K.memory.short then
        text = text .. ": its host is short of memory"
    end
    return nil, errors.new("RateLimited", text, true, details)
end


local function invalid_payload(problem)
    return nil, errors.new("Invalid", "message can't be sent: " .. problem, false)
end

-- [47]: these are the nodes of the cluster.
local function nodes_changed(nodes)
    signals.nodes_are(nodes)
    outside, outside_count = {}, 0
end

-- [70]: processes are somewhere else than before.
local function processes_moved(list)
    signals.moved(list)
    outside, outside_count = {}, 0
end

-- Whether a PID is one of another VM. Returns an error object when not.
local function check_outside(pid)
    if outside[pid] then
        return nil
    elseif places.is_own(pid) then
        dead_letters.noproc = dead_letters.noproc + 1
        return signals.no_process(pid)
    elseif not is_pid(pid) then
        return errors.new("Invalid", format("expected a PID like {node@ns:host|1-2a} or a name, got %q", pid), false)
    end
    local err = signals.no_node(pid)
    if err then
        return err
    end
    if outside_count >= KNOWN then
        outside, outside_count = {}, 0
    end
    outside[pid] = true
    outside_count = outside_count + 1
    return nil
end

-- The number of what a process sends to ``pid`` now; from the first one on all it sends has a number.
local function number_next(sender, pid)
    local order = sender.order or new_order()
    sender.order = order
    return note(order, pid)
end

-- An envelope for a process of another VM. The payloads are encoded as they are, never copied.
local function send_out(sender, pid, topic, name, revision, list)
    local err = check_outside(pid)
    if err then
        return nil, err
    end
    local own = sender.pid
    local is_plain = name == ""
    local text, length
    if is_plain then
        if sender.order then
            note(sender.order, pid)
        end
        text = codec.encode_pair(topic, list)
        length = text and #text + #pid + #own + AROUND
    else
        text = encode_named(pid, own, topic, list, name, revision, number_next(sender, pid))
        length = text and #text
    end
    if not text then
        local _, problem = values.copy_list(list.n, list)
        return invalid_payload(problem and problem[errors.MESSAGE] or "not plain data")
    elseif length > config.max_message then
        K.limits.hit("max_message")
        text = format("message of %d bytes is over the limit of %d bytes", length, config.max_message)
        return nil, errors.new("Invalid", text .. "; send a reference or split it", false)
    end
    sender.sent = sender.sent + 1
    if sender.caller then
        operations.announce(sender)
    end
    if is_plain then
        operations.put_message(pid, own, text)
    else
        operations.put_text(text)
    end
    return true
end

-- What a message of ``count`` payloads brings: the payload, the list of several, or nothing.
local function brought(count, list)
    if count == 1 then
        return list[1]
    end
    list.n = nil
    return count > 1 and list or nil
end

-- Several payloads, or none, or a process elsewhere, or a name.
local send_other
function send_other(destination, topic, count, ...)
    if type(destination) ~= "string" then
        error("bad argument #1 to 'send' (string expected, got " .. type(destination) .. ")", 2)
    elseif not topics[topic] then
        local err = check_topic(topic)
        if err then
            return nil, err
        end
    end
    local sender = turns.current.process
    local pid, name, revision = resolve(destination)
    if not pid then
        dead_letters.noproc = dead_letters.noproc + 1
        return nil, name
    elseif in_doubt and name ~= "" then
        local err = check_held(pid, name, revision)
        if err then
            return nil, err
        end
    end
    local process = near(pid)
    if not process then
        if congestion.any then
            local waited, err = congestion.wait(pid)
            if err then
                return nil, err
            elseif waited then -- the name may have changed hands meanwhile
                return send_other(destination, topic, count, ...)
            end
        end
        return send_out(sender, pid, topic, name, revision, { n = count, ... })
    end
    local list, problem = values.copy_list(count, { ... }, copy_message)
    if not list then
        return invalid_payload(problem[errors.MESSAGE])
    end
    sender.sent = sender.sent + 1
    if sender.order then
        note(sender.order, pid)
    end
    process.received = process.received + 1
    if not deliver(process, topic, sender.pid, count, brought(count, list)) then
        return full(process)
    end
    return true
end

-- The startup messages of a spawn, each {topic, list of payloads}, as if ``from`` had sent them; to a process just
-- spawned, or to the holder of ``name``.
local function send_startup(from, pid, messages, name)
    local process, parent = near(pid), by_pid[from]
    local revision = name and names[name].revision or 0
    if in_doubt and name then
        local err = check_held(pid, name, revision)
        if err then
            return nil, err
        end
    end
    for i = 1, messages and #messages or 0 do
        local topic, list = messages[i][1], messages[i][2]
        local count = list.n or codec.length_of(list)
        list.n = count
        local number
        if parent and (parent.order or name and not process) then
            number = number_next(parent, pid)
        end
        if not process then
            if parent then
                operations.announce(parent)
            end
            local items = name and number and 9 or 8
            put({ 1, pid, from, 0, topic, list, name or "", revision, number }, items, 6)
        elseif not deliver(process, topic, from, count, brought(count, list)) then
            return full(process)
        end
    end
    return true
end

-- process.send. This is the way of nearly every message: one payload to a PID in this VM.
local function send(destination, topic, ...)
    local process = by_pid[destination]
    if not process or process.away or select("#", ...) ~= 1 then
        return send_other(destination, topic, select("#", ...), ...)
    elseif not topics[topic] then
        local err = check_topic(topic)
        if err then
            return nil, err
        end
    end
    local value = ...
    local copied = type(value) == "table" and copy_table(value, 1, ENTRIES, config.max_message)
    if not copied then
        local problem
        copied, problem = copy_message(value)
        if problem then
            return invalid_payload(problem)
        end
    end
    local sender = turns.current.process
    sender.sent = sender.sent + 1
    if sender.order then
        note(sender.order, destination)
    end
    process.received = process.received + 1
    if deliver_one(process, topic, sender.pid, copied) then
        return true
    end
    return full(process)
end

-- Give what came from outside to a process of this VM; returns true, or nil and an error object.
local function take(process, topic, from, payloads)
    local value
    local count = codec.length_of(payloads)
    if count == 1 then
        value = payloads[1]
    elseif count > 1 then
        value = payloads
    end
    process.received = process.received + 1
    if deliver(process, topic, from, count, value) then
        return true
    end
    return full(process)
end

local function is_sound(topic, payloads)
    return type(topic) == "string" and byte(topic) ~= AT and type(payloads) == "table"
end

-- MESSAGE from outside.
local function received(envelope)
    local to, from, topic, payloads = envelope[2], envelope[3], envelope[5], envelope[6]
    local process = by_pid[to]
    if not process then
        dead_letters.noproc = dead_letters.noproc + 1
        return operations.reply(envelope, operations.NOPROC, nil)
    end
    if not is_sound(topic, payloads) then
        dead_letters.invalid = dead_letters.invalid + 1
        return operations.reply(envelope, 1, { kind = "Invalid", message = "not a message a process can take" })
    end
    local ok, err = take(process, topic, from, payloads)
    if ok then
        return operations.reply(envelope, operations.OK, true)
    end
    return operations.reply(envelope, 1, errors.to_map(err))
end

-- [13]: several messages of one process to another, one after the other in a text.
local function received_many(envelope)
    local to, from, count, text = envelope[2], envelope[3], envelope[5], envelope[6]
    local at = 1
    for _ = 1, count do
        local topic, payloads
        topic, at = decode_next(text, at)
        payloads, at = decode_next(text, at)
        local process = by_pid[to]
        if not process then
            dead_letters.noproc = dead_letters.noproc + 1
        elseif not is_sound(topic, payloads) then
            dead_letters.invalid = dead_letters.invalid + 1
        else
            take(process, topic, from, payloads)
        end
    end
end

-- Why a returned message can't go to the holder of its name, if there is one; nil when it can.
local function why_not(sender, name, held, number)
    if not held then
        return "stale_name_free"
    elseif in_doubt and check_held(held.pid, name, held.revision) then
        return "stale_name_in_doubt"
    end
    local process = by_pid[sender]
    local order = process and process.order or sendorder.of_ended(sender)
    if not order then
        return "stale_name_forgotten"
    elseif not sendorder.follow(order, held.pid, number) then
        return "stale_name_overtaken"
    end
    return nil
end

-- RETURN: a message by name that did not find its name where it was sent, back at the VM of its sender; the names
-- here are as new as those it was refused by. It goes to the holder now, but never twice, and never behind what the
-- same process sent there later.
local function returned(envelope)
    local sender, topic, payloads, name, number = envelope[2], envelope[5], envelope[6], envelope[7], envelope[9]
    if not is_sound(topic, payloads) or type(number) ~= "number" then
        dead_letters.invalid = dead_letters.invalid + 1
        return
    end
    local held = names[name]
    local reason = why_not(sender, name, held, number)
    if reason then
        return put({ 59, envelope[3], sender, topic, name, reason }, 6)
    end
    local process = near(held.pid)
    if process then
        take(process, topic, sender, payloads)
        return
    end
    payloads.n = codec.length_of(payloads)
    put({ 1, held.pid, sender, 0, topic, payloads, name, held.revision }, 8, 6)
end

K.delivery = {
    send = send,
    send_startup = send_startup,
    received = received,
    received_many = received_many,
    returned = returned,
    names_in_doubt = names_in_doubt,
    resolve = resolve,
    pid_of = pid_of,
    name_changed = name_changed,
    nodes_changed = nodes_changed,
    processes_moved = processes_moved,
    names = names,
    starting = starting,
    dead_letters = dead_letters,
}
