-- Memory: what happens when the VM runs out of it.
--
-- Lua can't say how much a process holds, only how much the VM does. Beyond WATCH of the limit
-- each turn's growth is charged to its process. Beyond ENOUGH, if a full collection doesn't
-- help, the process that grew most since the watch began is killed; if that doesn't help
-- either, what it started goes too, and then the next. A process whose own allocation fails is
-- killed at once (guards.lua). All of these are guesses at the one at fault.
local K = ...
local errors, processes, turns = K.errors, K.processes, K.turns
local collect = collectgarbage
local next = next

local WATCH, ENOUGH = 0.5, 0.85
local ROUNDS = 8 -- of killing and collecting in one step

local function kill(process)
    processes.kill(process, "memory", errors.new("Unavailable", "killed: memory"))
end

-- The process that grew most; when nobody was seen growing, the one that started the youngest.
local function suspect()
    local found, most, youngest = nil, 0, nil
    for _, process in next, processes.by_pid do
        local grown = process.grown or 0
        if grown > most then
            found, most = process, grown
        end
        if not youngest or process.number > youngest.number then
            youngest = process
        end
    end
    if found or not youngest then
        return found
    end
    return processes.by_pid[youngest.parent] or youngest
end

local function kill_descendants(pid)
    local gone, more = { [pid] = true }, true
    while more do
        more = false
        for _, process in next, processes.by_pid do
            if gone[process.parent] and not gone[process.pid] then
                gone[process.pid], more = true, true
            end
        end
    end
    for descendant in next, gone do
        local process = processes.by_pid[descendant]
        if process then
            kill(process)
        end
    end
end

local function is_enough(limit)
    processes.end_all()
    collect()
    return collect("count") < limit * ENOUGH
end

local function make_room(limit)
    for _ = 1, ROUNDS do
        if is_enough(limit) then
            break
        end
        local process = suspect()
        if not process then
            break
        end
        local pid = process.pid
        kill(process)
        process = nil -- or the collector would find it
        if not is_enough(limit) then
            kill_descendants(pid)
        end
    end
    for _, process in next, processes.by_pid do
        process.grown = nil
    end
end

-- Called at every step.
local function check()
    local limit = K.config.max_memory / 1024
    local used = collect("count")
    turns.weigh = used >= limit * WATCH
    if used >= limit * ENOUGH then
        make_room(limit)
    end
end

-- After a step that ended for want of memory: called without a limit. The process that ran is at fault.
local function recover()
    local thread = turns.current
    if thread and not thread.process.dead then
        kill(thread.process)
    end
    local living = { processes.system }
    for _, process in next, processes.by_pid do
        living[#living + 1] = process
    end
    turns.rebuild(living)
    collect()
end

K.memory = { check = check, recover = recover }
