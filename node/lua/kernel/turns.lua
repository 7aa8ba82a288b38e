-- Turns: which process runs next, and for how long.
--
-- A ring of processes that have something to do; each process is the queue of its own runnable
-- threads (its coroutines as the scheduler knows them). A process that ``coroutine.spawn``s a
-- thousand loops gets one share all the same. A turn ends when no thread can go on, after
-- RESUMES resumes, or when a thread has used up its quantum.
--
-- The dialect puts yield points into user code; each counts down and calls ``point`` at zero.
-- In a stretch that can't yield (the comparator of a sort, a gsub callback) the process goes
-- on until STRETCH seconds are over and is killed then, by a raise that ``pcall`` re-raises.
-- Otherwise to kill is to not resume.
--
-- The quantum is in points but meant as SLICE seconds: it shrinks for a process whose points
-- are far apart (long strings, big tables) and grows back.
local K = ...
local clock = os.clock
local create, resume, yield = coroutine.create, coroutine.resume, coroutine.yield
local isyieldable = coroutine.isyieldable
local collect, error, move, next, setmetatable = collectgarbage, error, table.move, next, setmetatable

local WAIT, PREEMPT, ENDED = {}, {}, {} -- what a thread hands the scheduler: nobody else has these tables
local RESUMES = 64
local SLICE = 0.0001
local STRETCH = 0.25
local SMALLEST_QUANTUM = 16
local CLOCK_EVERY = 32

local KILLED = setmetatable({}, { __tostring = function() return "killed" end, __metatable = false })

local ring, head, tail = {}, 1, 0
local largest_quantum = K.config.quantum

-- What other files of the kernel read: the thread that runs, the time of this step in ns.
local turns = {
    current = nil,
    now = 0,
    wall = 0,
    began = 0,
    latest = 0,
    turn_began = 0,
    weigh = false,
    preempted = false,
    fresh = false,
    stretch_began = false,
}

-- The time of the step plus what has been computed since: no clock but the CPU's can be read in a step.
local function elapsed()
    local seconds = clock() - turns.began
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

local function begin_step(now, wall)
    turns.now, turns.wall, turns.began = now, wall, clock()
end

local function enqueue(process)
    process.queued = true
    tail = tail + 1
    ring[tail] = process
end

-- Let a parked thread go on; its wait returns ``a, b``.
local function ready(thread, a, b)
    thread.a, thread.b = a, b
    local process = thread.process
    local last = process.last + 1
    process[last] = thread
    process.last = last
    if not process.queued then
        process.queued = true
        tail = tail + 1
        ring[tail] = process
    end
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
        a = nil,
        b = nil,
        depth = 0,
        pinned = false,
    }
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
    process.quantum = wanted - wanted % 1
end

local function stretch(process)
    local now = clock()
    if not turns.stretch_began then
        turns.stretch_began = now
    elseif now - turns.stretch_began > STRETCH then
        process.killed = "budget"
        error(KILLED, 0)
    end
    return process.quantum
end

-- A yield point ran out. Returns the points until the next call.
local function point()
    local thread = turns.current
    if not thread then -- a module's function that the kernel itself calls
        return largest_quantum
    end
    local process = thread.process
    if process.killed then
        error(KILLED, 0)
    end
    if turns.fresh then -- what ran out had been counted down in earlier turns
        turns.fresh = false
        turns.slice_began = clock()
        return process.quantum
    end
    if thread.pinned or not isyieldable() then
        return stretch(process)
    end
    adapt(process, clock() - turns.slice_began + 1e-9)
    yield(PREEMPT)
    turns.fresh = false
    turns.slice_began = clock()
    return process.quantum
end

-- Charge the running process for work a C function did for it, in points; preempts like a point.
local charged = 0
local function charge(cost)
    if cost > 0 then -- never NaN, never back
        charged = charged + cost
    end
    if charged >= largest_quantum then
        charged = 0
        point()
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
        turns.preempted = true
        return true
    elseif what == ENDED then
        K.processes.thread_ended(process, thread, value, err)
        return process.dead
    end
    K.processes.failed(process, thread, "a thread of the process yielded to nobody")
    return process.dead
end

local function run_turn(process)
    local left = RESUMES
    local before = turns.weigh and collect("count")
    turns.fresh = true
    turns.stretch_began = false
    repeat
        local first = process.first
        local thread = process[first]
        process[first] = nil
        if first == process.last then
            process.first, process.last = 1, 0
        else
            process.first = first + 1
        end
        turns.current = thread
        local ok, what, value, err = resume(thread.co, thread.a, thread.b)
        if what ~= WAIT and came_back(process, thread, ok, what, value, err) then
            break
        end
        left = left - 1
    until process.last == 0 or left == 0
    turns.current = nil
    if before then
        local grown = collect("count") - before
        process.grown = (process.grown or 0) + (grown > 0 and grown or 0)
    end
    if process.last ~= 0 then
        enqueue(process)
    else
        process.queued = false
        if process.holds == 0 and not process.dead then
            K.processes.deadlocked(process)
        end
    end
end

local function compact()
    if head > 1024 and head > tail / 2 then
        local count = tail - head + 1
        move(ring, head, tail, 1)
        for i = count + 1, tail do
            ring[i] = nil
        end
        head, tail = 1, count
    end
end

-- Run turns for ``seconds`` of CPU time or until nothing can run. Returns whether something still can.
local function run(seconds)
    turns.turn_began = clock()
    local deadline = turns.turn_began + seconds
    local count = 0
    while head <= tail do
        local process = ring[head]
        ring[head] = false
        head = head + 1
        if process.last ~= 0 and not process.dead then
            run_turn(process)
        end
        if K.processes.ending > 0 then
            K.processes.end_all()
        end
        count = count + 1
        if turns.preempted or count >= CLOCK_EVERY then
            turns.preempted = false
            count = 0
            turns.turn_began = clock()
            if turns.turn_began >= deadline then
                break
            end
        end
    end
    if head > tail then
        if tail > 4096 then
            ring = {}
        end
        head, tail = 1, 0
        return false
    end
    compact()
    return true
end

-- After a step that broke off: what can run is found anew among ``processes``.
local function rebuild(processes)
    ring, head, tail = {}, 1, 0
    turns.current = nil
    for _, process in next, processes do
        process.queued = false
        if process.last ~= 0 then
            enqueue(process)
        end
    end
end

turns.rebuild = rebuild
turns.WAIT, turns.PREEMPT, turns.ENDED, turns.KILLED = WAIT, PREEMPT, ENDED, KILLED
turns.ready, turns.park, turns.can_wait, turns.check_wait, turns.abandon = ready, park, can_wait, check_wait, abandon
turns.new_thread, turns.point, turns.charge, turns.run = new_thread, point, charge, run
turns.slice_began = 0
turns.monotonic_now, turns.wall_now, turns.begin_step = monotonic_now, wall_now, begin_step
turns.length = function() return tail - head + 1 end
K.turns = turns
