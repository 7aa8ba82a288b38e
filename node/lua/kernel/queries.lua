-- Queries: what the node shows of this VM. [46] asks, [54] answers.
local K = ...
local delivery, operations, processes, timers, turns = K.delivery, K.operations, K.processes, K.timers, K.turns
local weights = K.weights
local collect, format, next, sort = collectgarbage, string.format, next, table.sort

local WORK, LITTLE = 400000, 4000 -- of estimating what one process holds: as a rule, and when memory is scarce

local function state_of(process)
    if process.queued then
        return "ready"
    elseif process.inbox and process.inbox.receiver then
        return "idle"
    end
    return "blocked"
end

local function summary(process)
    return {
        pid = process.pid,
        entry = process.entry,
        host = K.config.host,
        kind = process.is_call and "function" or "process",
        state = state_of(process),
        started = process.began,
        mailbox = process.mail,
        parent = process.parent,
        version = process.code.version,
        outdated = process.code.stale,
        migratable = process.migratable or false,
        supervised = process.owner ~= nil and process.owner ~= false,
        moving = K.moving.state_of(process),
    }
end

local function keys(set)
    local list = {}
    for key in next, set or {} do
        list[#list + 1] = key
    end
    return list
end

local function count(set)
    local n = 0
    for _ in next, set or {} do
        n = n + 1
    end
    return n
end

-- Whether somebody receives from a channel, or selects it.
local function is_received(state)
    return state ~= nil and state.receiver ~= false
end

-- What the threads of a process wait for, in words.
local function waits_of(process)
    local waits = {}
    local function wait(text)
        waits[#waits + 1] = text
    end
    if is_received(process.inbox) then
        wait("a message")
    end
    for topic, state in next, process.listeners or {} do
        if is_received(state) then
            wait(format("a message on topic %q", topic))
        end
    end
    if is_received(process.events) then
        wait("an event")
    end
    timers.each(function(timer)
        if timer.process == process and timer.armed then
            if timer.thread then
                wait("a sleep to end")
            elseif is_received(timer.state) then
                wait("a timer")
            end
        end
    end)
    operations.each(function(owner, what)
        if owner ~= process then
            return
        elseif what.node then
            wait("an answer of node " .. what.node)
        elseif what.module then
            wait(what.module .. "." .. what.name)
        elseif is_received(what) then
            wait("a stream")
        end
    end)
    for pid in next, process.awaited or {} do
        wait("the end of " .. pid)
    end
    for _, child in next, processes.by_pid do
        if child.is_call and child.parent == process.pid then
            wait("the end of " .. child.entry)
        end
    end
    sort(waits)
    return waits
end

local function names_of(process)
    local names = {}
    for name, held in next, delivery.names do
        if held.pid == process.pid then
            names[#names + 1] = name
        end
    end
    sort(names)
    return names
end

local function memory_of(process)
    local scarce = collect("count") * 1024 > K.config.max_memory / 2
    return weights.of_process(process, scarce and LITTLE or WORK)
end

local answers = {}

function answers.list()
    local list = {}
    for _, process in next, processes.by_pid do
        list[#list + 1] = summary(process)
    end
    return list
end

-- One process, at the cost of a row of the list.
function answers.look(pid)
    local process = processes.by_pid[pid]
    return process and summary(process)
end

function answers.inspect(pid)
    local process = processes.by_pid[pid]
    if not process then
        return nil
    end
    local detail = summary(process)
    detail.topics = keys(process.listeners)
    detail.watchers = keys(process.watchers)
    detail.watching = keys(process.watching)
    detail.links = keys(process.links)
    detail.timers = process.armed
    detail.operations = count(process.operations) + count(process.requests)
    detail.streams = count(process.streams)
    detail.calls = count(process.calls)
    detail.trap_links = process.trap_links
    detail.upgradable = process.upgradable or false
    detail.mailbox_limit = process.limit
    detail.sent, detail.received = process.sent, process.received
    detail.threads = process.threads
    detail.names = names_of(process)
    detail.waits = process.queued and {} or waits_of(process)
    detail.memory, detail.memory_complete = memory_of(process)
    return detail
end

function answers.counters()
    local entries = {}
    for entry, counts in next, processes.counters do
        local exits = {}
        for reason, number in next, counts.exits do
            exits[reason] = number
        end
        entries[entry] = {
            live = counts.live,
            spawned = counts.spawned,
            sent = counts.sent,
            received = counts.received,
            refused = counts.refused,
            exits = exits,
        }
    end
    for _, process in next, processes.by_pid do
        local counts = entries[process.entry]
        counts.sent = counts.sent + process.sent
        counts.received = counts.received + process.received
    end
    local letters = delivery.dead_letters
    return {
        live = processes.live,
        run_queue = turns.length(),
        timers = timers.count(),
        entries = entries,
        limits = K.limits.hits,
        short_of_memory = K.memory.short,
        dead_letters = { full = letters.full, noproc = letters.noproc, invalid = letters.invalid },
    }
end

-- Messages that wait in all mailboxes together; walks over every process.
function answers.mail()
    local sum = 0
    for _, process in next, processes.by_pid do
        sum = sum + process.mail
    end
    return sum
end

local function answer(number, what, argument)
    local make = answers[what]
    operations.put({ 54, number, make and make(argument) }, 3)
end

-- Whether nothing lives here and nothing is about to.
function answers.idle()
    local system = processes.system
    return processes.live == 0 and not system.first and system.holds == 1
end

K.queries = { answer = answer, answers = answers }
