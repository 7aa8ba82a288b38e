-- Queries: what the node shows of this VM. [46] asks, [54] answers.
local K = ...
local delivery, operations, processes, timers, turns = K.delivery, K.operations, K.processes, K.timers, K.turns
local next = next

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

local answers = {}

function answers.list()
    local list = {}
    for _, process in next, processes.by_pid do
        list[#list + 1] = summary(process)
    end
    return list
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
    detail.version = process.code.version
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
    local letters = delivery.dead_letters
    return {
        live = processes.live,
        run_queue = turns.length(),
        timers = timers.count(),
        entries = entries,
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

K.queries = { answer = answer }
