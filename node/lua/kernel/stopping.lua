-- Stopping: [48]. Every process is asked to end, and killed when the grace is over; then [55].
local K = ...
local errors, operations, processes, signals, timers = K.errors, K.operations, K.processes, K.signals, K.timers

local SECOND = 1000000000
local stopping = { asked = false, told = false }

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

local function kill_all()
    for _, process in next, all() do
        processes.kill(process, "killed", errors.new("Canceled", "terminated: " .. processes.stopping))
    end
end

function stopping.begin(reason, grace)
    processes.stopping = reason
    stopping.asked = true
    for _, process in next, all() do
        signals.cancel_event(process, "", reason)
    end
    if grace <= 0 then
        kill_all()
    else
        timers.after(processes.system, (grace * SECOND) // 1 | 0, kill_all)
    end
    stopping.check()
end

K.stopping = stopping
