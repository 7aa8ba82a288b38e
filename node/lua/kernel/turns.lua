-- Turns: which process runs next, and for how long.
--
-- A line of processes that have something to do; each process holds the line of its own runnable
-- threads (its coroutines as the scheduler knows them). A process that ``coroutine.spawn``s a
-- thousand loops gets one share all the same. A turn ends when no thread can go on, after
-- RESUMES resumes, or when a thread has used up its quantum. Both lines are linked through the
-- records, so that queueing allocates nothing and can't fail when memory is short.
--
-- The dialect puts yield points into user code; each counts down and calls ``point`` at zero. All code
-- of the VM counts with one local of this file, ``budget``, which it has as an upvalue. So a turn begins
-- with a count of its own; the sentry can end it early, and so can the node from another thread
-- (node/host/prodding.py): both put PRODDED there, and the next yield point looks at the clock.
-- In a stretch that can't yield (the comparator of a sort, a gsub callback) the process goes
-- on until ``stretch`` seconds are over and is killed then, by a raise that ``pcall`` re-raises.
-- Otherwise to kill is to not resume.
--
-- The quantum is in points but meant as SLICE seconds: it shrinks for a process whose points
-- are far apart (long strings, big tables) and grows back. A turn begins with a small portion of it,
-- so that short turns need no clock.
local K = ...
local clock = os.clock
local create, resume, yield = coroutine.create, coroutine.resume, coroutine.yield
local isyieldable = coroutine.isyieldable
local collect, error, next, setmetatable = collectgarbage, error, next, setmetatable
local format, getupvalue, upvalueid, upvaluejoin = string.format, debug.getupvalue, debug.upvalueid, debug.upvaluejoin

local WAIT, PREEMPT, ENDED = {}, {}, {} -- what a thread hands the scheduler: nobody else has these tables
local RESUMES = 64
local SLICE = 0.0001
local LONGEST = 1.0 -- seconds between two looks at the clock, when somebody has asked for one
local SMALLEST_QUANTUM = 16.0
local FIRST_PORTION = 256.0
local PRODDED = -2.0 ^ 40
local CLOCK_EVERY = 32

local KILLED = setmetatable({}, { __tostring = function() return "killed" end, __metatable = false })

local front = { next = false } -- what comes before the first process in line
local tail, length = front, 0
local largest_quantum = K.config.quantum + 0.0
local budget = 0.0 -- points until the next call of ``point``; a float, which Lua counts down faster
local fresh = false -- nothing of the turn was measured yet
local whose = 0.0 -- the number of whose turn it is (processes.lua), for who asks from outside; 0 between turns

-- What other files of the kernel read: the thread that runs, the time of this step in ns.
local turns = {
    current = nil,
    now = 0,
    wall = 0,
    began = 0,
    parallel = 1, -- VMs of the operating-system process that run now: its CPU clock goes so much faster
    latest = 0,
    turn_began = 0,
    weigh = false,
    crowded_at = 0, -- KiB of the VM's memory at which a step breaks off while it weighs
    broken_off = false,
    urgent = false, -- something to look at between this turn and the next
    stretch_began = false,
}

-- The time of the step plus what has been computed since: no clock but the CPU's can be read in a step.
local function elapsed()
    local seconds = (clock() - turns.began) / turns.parallel
    return seconds > 0 and (seconds * 1e9) // 1 | 0 or 0
end

local function monotonic_now()
    return turns.now + elapsed()
end

local function wall_now()
    local now = turns.wall + elapsed()
    if now < turns.latest then -- another thread's CPU time had been counted in
        return turns.latest
    end
    turns.latest = now
    return now
end

local function begin_step(now, wall, parallel)
    turns.now, turns.wall, turns.began, turns.parallel = now, wall, clock(), parallel
end

local function enqueue(process)
    process.queued = true
    tail.next = process
    tail = process
    length = length + 1
end

-- Let a parked thread go on; its wait returns ``a, b``.
local function ready(thread, a, b)
    thread.a, thread.b = a, b
    local process = thread.process
    if process.first then
        process.last.next = thread
    else
        process.first = thread
        if not process.queued then
            process.queued = true
            tail.next = process
            tail = process
            length = length + 1
        end
    end
    process.last = thread
end

-- Whether the running thread may wait: not inside a callback of a C function.
local function can_wait()
    return isyieldable() and not turns.current.pinned
end

local function check_wait(what)
    if not can_wait() then
        error("can't wait in " .. what .. " here: the caller is a C function (a sort comparator or a gsub callback)", 3)
    end
end

-- Park the running thread until ``ready`` is called for it; returns what that was given.
local function park()
    return yield(WAIT)
end

-- The running process has ended meanwhile: never returns.
local function abandon()
    local thread = turns.current
    if can_wait() then
        yield(WAIT)
    end
    thread.process.killed = true
    error(KILLED, 0)
end

local function new_thread(process, body, a, b)
    local thread = {
        co = create(body),
        process = process,
        next = false,
        a = nil,
        b = nil,
        depth = 0,
        pinned = false,
    }
    process.threads = process.threads + 1
    ready(thread, a, b)
    return thread
end

local function adapt(process, used)
    local wanted = process.quantum * (SLICE / used)
    if wanted > process.quantum * 4 then
        wanted = process.quantum * 4
    end
    if wanted > largest_quantum then
        wanted = largest_quantum
    elseif wanted < SMALLEST_QUANTUM then
        wanted = SMALLEST_QUANTUM
    end
    process.quantum = wanted // 1
    process.portion = process.quantum < FIRST_PORTION and process.quantum or FIRST_PORTION
end

local function end_for_budget(process)
    K.limits.hit("stretch")
    process.killed = "budget"
    error(KILLED, 0)
end

local function stretch(process)
    local now = clock()
    if not turns.stretch_began then
        turns.stretch_began = now
    elseif now - turns.stretch_began > K.config.stretch * turns.parallel then
        end_for_budget(process)
    end
    return process.quantum
end

local function begin_slice()
    fresh = false
    turns.stretch_began = false
    turns.slice_began = clock()
end

local function refill(points)
    budget = points
    return points
end

-- A yield point ran out. Returns the points until the next call.
local function point()
    local thread = turns.current
    if not thread then -- a module's function that the kernel itself calls
        return refill(largest_quantum)
    end
    local process = thread.process
    if process.killed then
        error(KILLED, 0)
    end
    if fresh then
        begin_slice()
        return refill(budget == -1 and process.quantum or 0.0)
    elseif thread.pinned or not isyieldable() then
        return refill(stretch(process))
    end
    local used = (clock() - turns.slice_began) / turns.parallel + 1e-9
    if used > LONGEST then
        end_for_budget(process)
    end
    adapt(process, used)
    yield(PREEMPT)
    return budget
end

-- What code counts with, under the names the dialect gives it.
local function counts()
    return budget, point
end
local COUNTED = { __w_b = 1, __w_y = 2 } -- the upvalues of ``counts``

-- Let the code in ``open`` count with the kernel's own.
local function join(open)
    local index, name = 1, getupvalue(open, 1)
    while name do
        if COUNTED[name] then
            upvaluejoin(open, index, counts, COUNTED[name])
        end
        index = index + 1
        name = getupvalue(open, index)
    end
end

-- Where the count is, for who ends turns early from outside; ``mark`` sets it, so that it can be recognized.
local function place()
    return format("%p", upvalueid(counts, COUNTED.__w_b))
end

local function mark(value)
    local before = budget
    budget = value
    return before
end

-- Where ``whose`` is, and how to set it to be recognized.
local function whose_place()
    return format("%p", upvalueid(function() return whose end, 1))
end

local function whose_mark(value)
    local before = whose
    whose = value
    return before
end

-- How long the running slice has lasted, in seconds; of a turn that was not measured yet the time begins now.
local function lasts()
    if fresh then
        begin_slice()
    end
    return (clock() - turns.slice_began) / turns.parallel
end

-- Let the running process look at the clock at its next yield point.
local function prod()
    budget = PRODDED
end

-- Charge the running process for work a C function did for it, in points; preempts like a point.
local function charge(cost)
    if cost >= budget then
        point()
    elseif cost > 0 then -- never NaN, never back
        budget = budget - cost // 1
    end
end

-- A resume that came back with something other than WAIT. Returns whether the turn is over.
local function came_back(process, thread, ok, what, value, err)
    if process.dead then
        return true
    elseif not ok then
        K.processes.failed(process, thread, what)
        return process.dead
    elseif what == PREEMPT then
        ready(thread)
        turns.urgent = true
        return true
    elseif what == ENDED then
        K.processes.thread_ended(process, thread, value, err)
        return process.dead
    end
    K.processes.failed(process, thread, "a thread of the process yielded to nobody")
    return process.dead
end

-- What the turn added to the VM's memory is noted on the process.
local function weigh(process, before)
    local now = collect("count")
    local grown = now - before
    process.grown = (process.grown or 0) + (grown > 0 and grown or 0)
    if now > turns.crowded_at then
        turns.broken_off, turns.urgent = true, true
    end
end

-- What a failed thread raised is never compared: it may have an __eq. The turn of a process goes on after a thread of it came back, with others of it that can run.
local function go_on(process, thread, ok, what, value, err)
    local left = RESUMES
    while ok and what == WAIT or not came_back(process, thread, ok, what, value, err) do
        thread = process.first
        left = left - 1
        if not thread or left == 0 or budget < -1 then
            break
        end
        process.first = thread.next
        thread.next = false
        turns.current = thread
        ok, what, value, err = resume(thread.co, thread.a, thread.b)
    end
    if process.first then
        enqueue(process)
        return
    end
    process.queued, process.last = false, false -- a thread that ended is let go of
    if process.holds == 0 and not process.dead then
        turns.current = nil
        K.processes.deadlocked(process)
    end
end

-- What a turn brought about. Returns whether the step breaks off.
local function attend()
    turns.urgent = false
    turns.current = nil
    whose = 0
    if turns.broken_off then
        turns.broken_off = false
        return true
    elseif K.processes.ending > 0 then
        K.processes.end_all()
    end
    return false
end

-- Run turns for ``seconds`` of CPU time or until nothing can run. Returns whether something still can.
local function run(seconds)
    local turns, front, WAIT, resume = turns, front, WAIT, resume
    local weighs = turns.weigh
    turns.turn_began = clock()
    local deadline = turns.turn_began + seconds
    repeat
        local count = CLOCK_EVERY
        for number = 1, CLOCK_EVERY do
            local process = front.next
            if not process then
                turns.current = nil
                whose = 0
                length = 0
                return false
            end
            local following = process.next
            front.next = following
            if following then
                process.next = false
            else
                tail = front
            end
            local thread = process.first
            if thread and not process.dead then
                local before = weighs and collect("count")
                process.first = thread.next
                thread.next = false
                turns.current = thread
                whose = process.number
                budget, fresh = process.portion, true
                if budget < FIRST_PORTION then -- its points may be far apart
                    begin_slice()
                end
                local ok, what, value, err = resume(thread.co, thread.a, thread.b)
                if ok and what == WAIT and not process.first and process.holds > 0 then
                    process.queued = false
                else
                    go_on(process, thread, ok, what, value, err)
                end
                if before then
                    weigh(process, before)
                end
            end
            if turns.urgent or budget < -1 then
                count = number
                break
            end
        end
        length = length - count
        if turns.urgent and attend() then
            return true
        end
        turns.turn_began = clock()
    until turns.turn_began >= deadline
    turns.current = nil
    whose = 0
    return length > 0
end

-- After a step that broke off: what can run is found anew among ``processes``.
local function rebuild(processes)
    front.next = false
    tail, length = front, 0
    turns.current = nil
    for _, process in next, processes do
        process.queued, process.next = false, false
        if process.first then
            enqueue(process)
        end
    end
end

K.limits.on_change(function()
    largest_quantum = K.config.quantum + 0.0
end)

turns.rebuild = rebuild
turns.WAIT, turns.PREEMPT, turns.ENDED, turns.KILLED = WAIT, PREEMPT, ENDED, KILLED
turns.ready, turns.park, turns.can_wait, turns.check_wait, turns.abandon = ready, park, can_wait, check_wait, abandon
turns.new_thread, turns.point, turns.charge, turns.run = new_thread, point, charge, run
turns.join, turns.place, turns.mark, turns.lasts, turns.prod = join, place, mark, lasts, prod
turns.whose_place, turns.whose_mark = whose_place, whose_mark
turns.slice_began = 0
turns.monotonic_now, turns.wall_now, turns.begin_step = monotonic_now, wall_now, begin_step
turns.length = function() return length end
K.turns = turns
