-- Timers: a heap of what is due when, in nanoseconds of the monotonic clock.
--
-- A timer wakes a thread, feeds a channel, or calls the kernel back. Every armed timer of a
-- process counts as something that can still wake it (``holds``). Timers of ended processes
-- and stopped ones stay in the heap until due, or until they are the majority.
local K = ...
local turns, channels = K.turns, K.channels
local ready = turns.ready
local NEVER = math.maxinteger

local heap, size = {}, 0
local order = 0
local stale = 0
local value_at -- what a channel gets when its timer fires

local function before(a, b)
    return a.at < b.at or a.at == b.at and a.order < b.order
end

local function sift_up(timer, position)
    while position > 1 do
        local parent = position // 2
        if not before(timer, heap[parent]) then
            break
        end
        heap[position] = heap[parent]
        position = parent
    end
    heap[position] = timer
end

local function sift_down(timer, position)
    while true do
        local child = position * 2
        if child > size then
            break
        end
        if child < size and before(heap[child + 1], heap[child]) then
            child = child + 1
        end
        if not before(heap[child], timer) then
            break
        end
        heap[position] = heap[child]
        position = child
    end
    heap[position] = timer
end

local function insert(timer)
    heap[size + 1] = timer -- first: when there is no memory for it, nothing else has changed
    order = order + 1
    timer.order = order
    size = size + 1
    sift_up(timer, size)
end

local function remove_first()
    local last = heap[size]
    heap[size] = nil
    size = size - 1
    if size > 0 then
        sift_down(last, 1)
    end
end

local function is_stale(timer)
    return not timer.armed or timer.process.dead
end

-- Rebuild the heap without what will never fire.
local function sweep()
    local kept, count = {}, 0
    for i = 1, size do
        if not is_stale(heap[i]) then
            count = count + 1
            kept[count] = heap[i]
        end
    end
    heap, size, stale = kept, count, 0
    for i = size // 2, 1, -1 do
        sift_down(heap[i], i)
    end
end

local function gone_stale(count)
    stale = stale + count
    if stale > 1024 and stale > size / 2 then
        sweep()
    end
end

-- The moment ``nanoseconds`` after ``from``. What no clock can reach is never, and not in the past.
local function after_that(from, nanoseconds)
    local at = from + nanoseconds
    if nanoseconds > 0 and at < from then
        return NEVER
    end
    return at
end

-- Why a program may not have one timer more now, or nil. Asked before it makes one; the kernel's own deadlines and the
-- next tick of a ticker are never refused.
local function refusal(process)
    if process.armed < K.config.max_timers then
        return nil
    end
    K.limits.hit("max_timers")
    local text = "the process has " .. process.armed .. " timers already; stop some, or raise max_timers of its host"
    return K.errors.new("RateLimited", text, true)
end

local function arm_at(timer, at)
    local process = timer.process
    timer.at = at
    insert(timer)
    timer.armed = true
    process.holds = process.holds + 1
    process.armed = process.armed + 1
    return timer
end

-- Arm ``timer`` for in ``nanoseconds``; its process has one more reason to live.
local function arm(timer, nanoseconds)
    return arm_at(timer, after_that(turns.monotonic_now(), nanoseconds))
end

local function disarm(timer)
    timer.armed = false
    local process = timer.process
    process.holds = process.holds - 1
    process.armed = process.armed - 1
end

-- Stop a timer. Returns whether it was armed.
local function stop(timer)
    if not timer.armed then
        return false
    end
    disarm(timer)
    gone_stale(1)
    return true
end

local function fire(timer)
    disarm(timer)
    if timer.thread then
        ready(timer.thread)
    elseif timer.state then
        if timer.interval then -- the next tick is counted from the last one due, not from now; missed ones are left out
            local at = after_that(timer.at, timer.interval)
            if at <= turns.now then
                at = turns.now + timer.interval - (turns.now - timer.at) % timer.interval
            end
            arm_at(timer, at)
        end
        if timer.state.last == 0 then -- a tick nobody took yet is not doubled
            channels.push(timer.state, value_at(turns.wall_now()))
        end
    else
        timer.call(timer)
    end
end

-- Fire all that is due.
local function run()
    local now = turns.now
    while size > 0 do
        local timer = heap[1]
        if is_stale(timer) then
            remove_first()
            stale = stale > 0 and stale - 1 or 0
        elseif timer.at > now then
            return
        else
            remove_first()
            fire(timer)
        end
    end
end

-- When the next timer is due, or nil.
local function next_due()
    while size > 0 and is_stale(heap[1]) do
        remove_first()
        stale = stale > 0 and stale - 1 or 0
    end
    return size > 0 and heap[1].at or nil
end

-- Call ``call`` in the kernel after ``nanoseconds``, on behalf of ``process``.
local function after(process, nanoseconds, call)
    return arm({ process = process, call = call }, nanoseconds)
end

-- Show ``look`` every timer that is in the heap.
local function each(look)
    for i = 1, size do
        look(heap[i])
    end
end

local function set_value(make)
    value_at = make
end

K.timers = {
    set_value = set_value,
    refusal = refusal,
    arm = arm,
    stop = stop,
    after = after,
    run = run,
    next_due = next_due,
    gone_stale = gone_stale,
    count = function() return size end,
    each = each,
}
