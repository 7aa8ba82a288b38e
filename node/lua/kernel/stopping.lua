-- Stopping: [48]. Every process is asked to end, and killed when the grace is over; then [55].
--
-- A process that never asked for its events can't know that it is to end. It gets UNAWARE
-- seconds to come to its end by itself, unless it is a function call or waits for one.
local K = ...
local errors, operations, processes, signals, timers = K.errors, K.operations, K.processes, K.signals, K.timers

local SECOND = 1000000000
local UNAWARE = 3
local stopping = { asked = false, told = false, over = false }

local function all()
    local list = {}
    for _, process in next, processes.by_pid do
        list[#list + 1] = process
    end
    return list
end

-- Tell the node once nothing lives any more.
function stopping.check()
    if stopping.asked and not stopping.told and processes.live == 0 then
        stopping.told = true
        operations.put({ 55 }, 1)
    end
end

local function kill(process)
    processes.kill(process, "killed", errors.new("Canceled", "terminated: " .. processes.stopping))
end

local function kill_all()
    stopping.over = true
    for _, process in next, all() do
        kill(process)
    end
end

local function kill_unaware()
    for _, process in next, all() do
        local is_called = process.is_call or process.calls and next(process.calls) ~= nil
        if not process.events and not is_called and not K.moving.has_handed_over(process) then
            kill(process)
        end
    end
end

-- A process that was out of reach is here again: it ends like the others.
function stopping.joined(process)
    if stopping.over then
        kill(process)
    elseif stopping.asked then
        signals.cancel_event(process, "", processes.stopping)
    end
end

-- ``deadline``: when the grace is over, in ms since 1970; nil when nobody has said.
function stopping.begin(reason, grace, deadline)
    processes.stopping = reason
    stopping.asked = true
    for _, process in next, all() do
        signals.cancel_event(process, "", reason, deadline)
    end
    if grace <= 0 then
        kill_all()
    else
        if grace > UNAWARE then
            timers.after(processes.system, UNAWARE * SECOND, kill_unaware)
        end
        timers.after(processes.system, (grace * SECOND) // 1 | 0, kill_all)
    end
    stopping.check()
end

K.stopping = stopping
