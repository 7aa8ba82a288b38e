-- Processes: what lives in this VM, from spawn to end.
--
-- A process is a record: its PID, its threads that can run (as a queue, turns.lua), what can
-- still wake it (``holds``), what waits for it (mailbox.lua) and who watches it (signals.lua).
-- The first thread runs the entry's function; when that returns, the process ends with its
-- values and its other threads are dropped. An uncaught error in any thread ends it too.
--
-- Ending has two halves. ``finish`` takes effect at once: nothing of the process runs again and
-- its PID is unknown. Watchers are told, and everything it held is given up, by ``end_all``
-- between turns, outside of any process.
local K = ...
local errors, operations, sandbox, timers, turns = K.errors, K.operations, K.sandbox, K.timers, K.turns
local config = K.config
local ENDED = turns.ENDED
local OUT_OF_MEMORY = K.guards.OUT_OF_MEMORY
local next, tonumber, tostring, type, unpack = next, tonumber, tostring, type, table.unpack
local sub = string.sub

local SLOTS = 64
local PLAIN = { ["nil"] = true, boolean = true, number = true, string = true }
local DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

local processes = { ending = 0, live = 0 }
local by_pid = {}
local ended = {} -- processes whose watchers have not been told yet
local counters = {} -- entry -> counts
local last_counter = config.counter -- of the PIDs this slot has seen
local first_quantum = config.quantum < 256 and config.quantum + 0.0 or 256.0 -- grows as its points prove to be close

local function base36(number)
    local text = ""
    repeat
        local digit = number % 36
        text = DIGITS:sub(digit + 1, digit + 1) .. text
        number = number // 36
    until number == 0
    return text
end

local pid_prefix = "{" .. config.node .. "@"
local pid_incarnation = "|" .. base36(config.incarnation) .. "-"

local function uniq(counter)
    return base36(config.incarnation) .. "-" .. base36(counter)
end

local function next_pid(host)
    last_counter = last_counter + SLOTS
    return pid_prefix .. host .. pid_incarnation .. base36(last_counter) .. "}"
end

local keeper_prefix = pid_prefix .. "node:supervisor" .. pid_incarnation

-- Whose work a new process does, as a number for who asks from outside whose turn it is (turns.lua): what its parent's
-- is; for one the node itself keeps, the counter of the port that keeps it; else its own.
local function number_for(parent)
    local above = by_pid[parent]
    if above then
        return above.number
    elseif sub(parent, 1, #keeper_prefix) == keeper_prefix then
        return tonumber(sub(parent, #keeper_prefix + 1, -2), 36) or last_counter
    end
    return last_counter
end

local function counts_of(entry)
    local counts = counters[entry]
    if not counts then
        counts = { live = 0, spawned = 0, sent = 0, received = 0, refused = 0, exits = {} }
        counters[entry] = counts
    end
    return counts
end

local function new_record(pid, entry, parent, context)
    return {
        pid = pid,
        number = number_for(parent),
        code = entry,
        entry = entry.id,
        counts = counts_of(entry.id),
        first = false,
        last = false,
        next = false,
        queued = false,
        holds = 0,
        threads = 0,
        sent = 0,
        received = 0,
        armed = 0,
        asked = 0,
        topics = 0,
        mail = 0,
        arrived = 0,
        limit = config.mailbox_limit,
        quantum = first_quantum,
        portion = first_quantum,
        parent = parent,
        context = context,
        dead = false,
        killed = false,
        trap_links = false,
        order = false, -- of what it sends, once it has sent by name (sendorder.lua)
    }
end

-- The kernel's own threads (answering spawns and calls from outside) belong to this one.
processes.system = new_record("", { id = "kernel" }, "", nil)
processes.system.holds = 1
counters.kernel = nil

-- What main returned; a value that can't leave the process is a failure, else who waits for it would get nothing.
local function checked(value, err)
    if err == nil and not PLAIN[type(value)] then
        local _, problem = K.values.copy(value)
        if problem then
            return nil, errors.new("Invalid", "what main returned can't be passed on: " .. problem, false)
        end
    end
    return value, err
end

local function run_main(process, arguments)
    local f = sandbox.open(process, process.code, process.method)
    process.started = true
    return ENDED, checked(f(unpack(arguments, 1, arguments.n)))
end

-- A record is the process behind its PID from now on.
local function enter(process)
    by_pid[process.pid] = process
    processes.live = processes.live + 1
    local counts = process.counts
    counts.live = counts.live + 1
end

-- It is no more, or it is elsewhere, or another record has taken its place.
local function leave(process)
    processes.live = processes.live - 1
    local counts = process.counts
    counts.live = counts.live - 1
end

local function begin(process, arguments)
    process.main = turns.new_thread(process, run_main, process, arguments)
    process.began = turns.wall
end

-- Both for a new process.
local function start(process, arguments)
    by_pid[process.pid] = process
    processes.live = processes.live + 1
    local counts = process.counts
    counts.live = counts.live + 1
    counts.spawned = counts.spawned + 1
    process.main = turns.new_thread(process, run_main, process, arguments)
    process.began = turns.wall
end

function processes.stopping_error()
    return errors.new("Unavailable", "host " .. config.host .. " is stopping: " .. processes.stopping, true)
end

-- Why nothing can be started now, or nil.
local function refusal()
    if processes.stopping then
        return processes.stopping_error()
    elseif processes.live >= config.max_processes then
        K.limits.hit("max_processes")
        local text = "host " .. config.host .. " is at its limit of " .. config.max_processes .. " processes in one worker"
        return errors.new("RateLimited", text, true)
    elseif K.memory.short then
        K.limits.hit("memory")
        local text = "host " .. config.host .. " is short of memory; it starts nothing new until processes end"
        return errors.new("RateLimited", text, true)
    end
    return nil
end

-- Start a process of ``entry`` under ``pid`` with copied ``arguments`` ({n = ...}).
-- Returns its record, or nil and an error object.
local function spawn(entry, arguments, parent, context, pid)
    local err = refusal()
    if not err and config.single and processes.live > 0 then
        err = errors.new("Unavailable", "host " .. config.host .. " runs one process at a time", true)
    end
    if err then
        return nil, err
    end
    local process = new_record(pid, entry, parent, context)
    start(process, arguments)
    return process
end

-- Start a function as a process of its own. ``on_end(process)`` is called when it ended.
local function spawn_function(entry, arguments, parent, context, on_end)
    local err = refusal()
    if err then
        return nil, err
    end
    local process = new_record(next_pid(entry.id), entry, parent, context)
    process.on_end = on_end
    process.is_call = true
    local caller = by_pid[parent]
    if caller and (caller.tracked or caller.owner or caller.owns or caller.caller) then
        process.caller = caller
    end
    start(process, arguments)
    return process
end

-- The process ends. ``reason`` is for the counters; ``err`` an error object, or nil with ``value`` after a good end.
local function finish(process, reason, value, err)
    if process.dead then
        return
    end
    process.dead = true
    process.value, process.err = value, err
    process.first, process.last = false, false -- it may still be in line itself
    by_pid[process.pid] = nil
    if process.order then
        K.sendorder.retire(process.pid, process.order)
    end
    processes.live = processes.live - 1
    local counts = process.counts
    counts.live = counts.live - 1
    counts.sent = counts.sent + process.sent
    counts.received = counts.received + process.received
    counts.exits[reason] = (counts.exits[reason] or 0) + 1
    local count = processes.ending + 1
    ended[count] = process
    processes.ending = count
    turns.urgent = true
    if reason == "memory" then
        K.limits.hit("memory") -- what follows of its end needs room: the next step begins with making some
        turns.broken_off = true
    end
end

-- A failure that nobody watches is told to the log: else it would leave no trace.
local function tell_log(process)
    local err = process.err
    local is_seen = process.is_call or process.tracked or process.killed or next(process.watchers or {}) ~= nil
    if err and not is_seen then
        local arguments = { "process failed", { error = tostring(err) }, n = 2 }
        operations.put({ 51, process.pid, process.entry, "logger", "warn", arguments }, 6, 6)
    end
end

-- What a process has asked for, and the functions it called, are nobody's from now on.
local function let_go(process, why)
    operations.take_back_all(process)
    if process.claiming then
        K.names.give_up(process)
    end
    for called in next, process.calls or {} do
        finish(called, "killed", nil, errors.new("Canceled", why, false))
    end
end

local function give_up(process)
    timers.gone_stale(process.armed)
    if process.named or process.streamed or process.tracked then
        operations.put({ 53, process.pid, process.entry, process.err }, 4)
    end
    let_go(process, "the caller ended")
    if process.former then
        let_go(process.former, "the caller ended")
    end
    process.modules, process.libraries, process.main = nil, nil, nil
    process.inbox, process.listeners, process.events, process.unclaimed = nil, nil, nil, nil
end

-- Tell everybody about the processes that ended, and about those that end because of it.
function processes.end_all()
    local at = 1
    while at <= processes.ending do
        local process = ended[at]
        ended[at] = false
        at = at + 1
        if process then
            if process.on_end then
                process.on_end(process)
            end
            tell_log(process)
            K.signals.tell_watchers(process)
            give_up(process)
        end
    end
    processes.ending = 0
    if at > 1024 then
        ended = {}
    end
    K.stopping.check()
end

local KILLS = {
    memory = { "Unavailable", "killed: memory" },
    budget = { "Canceled", "killed: a stretch that can't be interrupted took too long" },
}

-- End a process from outside: "terminated" and the like.
local function kill(process, reason, err)
    process.killed = process.killed or reason
    finish(process, reason, nil, err)
end

-- A thread of the process died of ``raised``.
function processes.failed(process, thread, raised)
    if process == processes.system then
        K.complain("kernel thread failed: " .. tostring(raised))
        return
    end
    local killed = process.killed or raised == OUT_OF_MEMORY and "memory"
    if killed then
        local known = KILLS[killed] or { "Canceled", "killed" }
        finish(process, killed, nil, errors.new(known[1], known[2]))
        return
    end
    finish(process, "error", nil, errors.from_raised(raised, thread.co))
end

-- A thread of the process returned.
function processes.thread_ended(process, thread, value, err)
    process.threads = process.threads - 1
    if thread ~= process.main then
        return
    end
    err = err ~= nil and errors.from_returned(err) or nil
    if err then
        finish(process, "error", nil, err)
    else
        finish(process, "normal", value, nil)
    end
end

function processes.deadlocked(process)
    local text = "all coroutines blocked with no pending operations"
    finish(process, "deadlock", nil, errors.new("Internal", text))
end

local INHERITED = {
    "arrived", "sent", "received", "watchers", "watching", "links", "named", "tracked", "trap_links", "owner", "upgradable",
    "migratable", "moving", "away", "on_end", "is_call", "awaited", "order", "owns", "caller", "number",
}

-- A record that takes the place of ``process``: same PID, watchers, names and mail, for a new run of ``entry``. Nothing
-- of ``process`` runs any more.
local function succeed(process, entry)
    local fresh = new_record(process.pid, entry, process.parent, process.context)
    for _, name in next, INHERITED do
        fresh[name] = process[name]
    end
    K.mailbox.pass_on(process, fresh)
    timers.gone_stale(process.armed)
    process.dead = true
    process.first, process.last = false, false
    leave(process)
    enter(fresh)
    return fresh
end

-- ``process`` took the place of ``former``, and what that one asked for is nobody's.
local function forget_former(process, former)
    let_go(former, "the caller was upgraded")
    K.signals.await_nobody(process)
    if former.streamed then
        operations.put({ 58, process.pid }, 2)
    end
end

-- Let a new run of ``entry`` take the place of ``process``.
local function replace(process, entry, arguments)
    local fresh = succeed(process, entry)
    forget_former(fresh, process)
    begin(fresh, arguments)
end

-- The process behind a PID if others here may reach it directly. One that came from elsewhere, or that was about to
-- leave, is reached through the node alone: else what is sent here could overtake what is on its way.
local function near(pid)
    local process = by_pid[pid]
    return process and not process.away and process or nil
end

-- A thread of the kernel: ``body`` may wait.
local function run_in_kernel(body)
    local function run()
        body()
        return ENDED
    end
    turns.new_thread(processes.system, run)
end

processes.by_pid = by_pid
processes.counters = counters
processes.spawn = spawn
processes.spawn_function = spawn_function
processes.finish = finish
processes.kill = kill
processes.replace = replace
processes.new_record = new_record
processes.enter, processes.leave, processes.begin = enter, leave, begin
processes.succeed, processes.forget_former = succeed, forget_former
processes.near = near
processes.run_in_kernel = run_in_kernel
processes.next_pid = next_pid
processes.uniq = uniq
processes.last_counter = function() return last_counter end
K.processes = processes
