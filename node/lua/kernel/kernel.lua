-- The kernel's one entry: a step. What came in is taken, what is due fires, processes run.
local K = ...
local garbage, intake, memory, operations = K.garbage, K.intake, K.memory, K.operations
local processes, timers, turns = K.processes, K.timers, K.turns

-- Something is wrong in the kernel or with what it was given: the node logs it.
function K.complain(text)
    operations.put({ 57, text }, 2)
end

-- When to step again though nothing comes in, in ns, or nil.
local function next_due()
    local due, look = timers.next_due(), memory.look_due()
    return look and (not due or look < due) and look or due
end

-- Returns how many items leave the VM, when to call again (0 = at once, a time in ns, or nil = not
-- before something comes in), how many processes
-- live and can run, and the last counter of a PID.
local function step(now, wall, seconds, parallel)
    turns.begin_step(now, wall, parallel)
    memory.watch()
    garbage.choose()
    intake.take()
    timers.run()
    if processes.ending > 0 then
        processes.end_all()
    end
    local more = turns.run(seconds)
    return operations.count(), more and 0 or next_due(), processes.live, turns.length(), processes.last_counter()
end

K.step = step
