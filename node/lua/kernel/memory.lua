-- Memory: what happens when the VM runs out of it.
--
-- Lua can't say how much a process holds, only how much the VM does. Beyond WATCH of the limit
-- each turn's growth is charged to its process; beyond ENOUGH, if a full collection doesn't
-- help, the process that grew most since the watch began is killed. A process whose own
-- allocation fails is killed at once (guards.lua). Both are guesses at the one at fault.
local K = ...
local errors, processes, turns = K.errors, K.processes, K.turns
local collect = collectgarbage
local next = next

local WATCH, ENOUGH = 0.5, 0.85

local function kill(process)
    processes.kill(process, "memory", errors.new("Unavailable", "killed: memory", false))
end

local function largest()
    local found, most = nil, 0
    for _, process in next, processes.by_pid do
        local grown = process.grown or 0
        if grown > most then
            found, most = process, grown
        end
    end
    return found
end

local function forget_growth()
    for _, process in next, processes.by_pid do
        process.grown = nil
    end
end

-- Called at every step; ``limit`` in KiB.
local function check()
    local limit = K.config.max_memory / 1024
    local used = collect("count")
    if used < limit * WATCH then
        if turns.weigh then
            turns.weigh = false
            forget_growth()
        end
        return
    end
    turns.weigh = true
    if used < limit * ENOUGH then
        return
    end
    collect()
    if collect("count") < limit * ENOUGH then
        return
    end
    local process = largest()
    if process then
        kill(process)
        forget_growth()
        processes.end_all()
        collect()
    end
end

-- After a step that ended for want of memory: called without a limit. The process that ran is at fault.
local function recover()
    local thread = turns.current
    turns.current = nil
    if thread and not thread.process.dead then
        kill(thread.process)
    end
    collect()
end

K.memory = { check = check, recover = recover }
