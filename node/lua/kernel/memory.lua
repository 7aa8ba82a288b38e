-- Memory: what happens when the VM runs out of it.
--
-- At SOFT of the limit, if a full collection doesn't help, what each process holds is measured
-- (weights.lua) and the one that holds most is killed, again and again until there is room. The
-- walks are deepened in turns: the small ones end early, and as soon as one is left and known
-- to be big enough, it is the one. All this runs between steps, without a limit, and takes at
-- most LONGEST seconds and as much memory as WORK steps need (about 40 bytes each).
--
-- When nobody holds as much as SMALLEST of the limit, many small ones fill the VM and nobody
-- is at fault: it is short of memory. Nothing new starts, and mailboxes take no more than ROOM
-- messages or what they hold; senders and spawners get an error. That ends below EASY.
-- Whoever allocates past the limit itself dies at once, small or big (guards.lua).
local K = ...
local config, errors, processes, turns, weights = K.config, K.errors, K.processes, K.turns, K.weights
local clock, collect, next = os.clock, collectgarbage, next

local WATCH, EASY, SOFT, LAST = 0.5, 0.7, 0.8, 0.95
local AGAIN = 0.05 -- of the limit: what must come in before it is worth collecting again
local SMALLEST = 0.05
local ROUNDS = 8
local LONGEST = 1.0
local FIRST, MOST, WORK = 2000, 100000, 4000000 -- of a walk in one go, and of all
local ROOM = 16
local SECOND = 1000000000
local LOOK = SECOND -- between collections while the VM is short of memory
local PAUSE = 20 -- times what measuring took, until it is done again meanwhile

local memory = { short = false }
local next_at, next_look, next_walk = 0, 0, 0
local base = 0 -- bytes of the kernel itself

local function used()
    return collect("count") * 1024
end

local function forget(walk)
    walk.seen, walk.places, walk.stack = nil, nil, nil
end

-- The processes, those first that were seen growing.
local function in_order()
    local growing, others = {}, {}
    for _, process in next, processes.by_pid do
        local list = process.grown and growing or others
        list[#list + 1] = process
    end
    for i = 1, #others do
        growing[#growing + 1] = others[i]
    end
    return growing
end

-- Walk a little through every process. Returns the walks that are not complete, those of processes of at
-- least ``least`` bytes that are, the bytes of the rest, and whether there was time for every one.
local function first_round(least, deadline)
    local held, holders = weights.held(), {}
    local open, complete, sum = {}, {}, 0
    local list = in_order()
    for i = 1, #list do
        local walk = weights.begin(list[i], held, holders)
        walk.process = list[i]
        if not weights.go_on(walk, FIRST) then
            open[#open + 1] = walk
        else
            forget(walk)
            local bytes = weights.bytes_of(walk)
            if bytes >= least then
                complete[#complete + 1] = walk
            else
                sum = sum + bytes
            end
        end
        if i % 64 == 0 and clock() > deadline then
            return open, complete, sum, i == #list
        end
    end
    return open, complete, sum, true
end

local function largest(walks)
    local found, most = nil, 0
    for i = 1, #walks do
        local bytes = weights.bytes_of(walks[i])
        if bytes > most then
            found, most = walks[i].process, bytes
        end
    end
    return found, most
end

local function deepen(open, complete, budget, deadline)
    local still, spent = {}, 0
    for i = 1, #open do
        local is_complete, work = false, 0
        if clock() < deadline then
            is_complete, work = weights.go_on(open[i], budget)
        end
        spent = spent + work
        if is_complete then
            forget(open[i])
            complete[#complete + 1] = open[i]
        else
            still[#still + 1] = open[i]
        end
    end
    return still, spent
end

-- Who was seen growing most, by at least ``least``.
local function fastest(least)
    local found, most = nil, least / 1024
    for _, process in next, processes.by_pid do
        if (process.grown or 0) >= most then
            found, most = process, process.grown
        end
    end
    return found
end

-- The process that holds most, nil when none holds ``least`` bytes. What no walk can see of the ``held`` bytes in
-- use, when it is much, is charged to the one that was seen growing; what there was no time to look at, to nobody.
local function heaviest(least, held)
    local deadline = clock() + LONGEST
    weights.separate()
    local open, complete, sum, is_all = first_round(least, deadline)
    local budget, spent = FIRST, 0
    while #open > 0 and spent < WORK and clock() < deadline do
        if #open == 1 then
            local _, most = largest(complete)
            local bytes = weights.bytes_of(open[1])
            if bytes >= least and bytes > most then
                break
            end
        end
        budget = budget < MOST and budget * 2 or budget
        local work
        open, work = deepen(open, complete, budget, deadline)
        spent = spent + work
    end
    weights.separate(true)
    is_all = is_all and #open == 0
    for i = 1, #open do
        complete[#complete + 1] = open[i]
    end
    for i = 1, #complete do
        sum = sum + weights.bytes_of(complete[i])
    end
    local found, most = largest(complete)
    if found and most >= least then
        return found
    elseif is_all and held - base - sum > 4 * least then
        return fastest(least)
    end
    return nil
end

local function kill(process)
    processes.kill(process, "memory", errors.new("Unavailable", "killed: memory"))
end

-- While the VM is short of memory its mailboxes take no more than they hold.
local function set_short(short)
    memory.short = short
    for _, process in next, processes.by_pid do
        local limit = config.mailbox_limit
        if short then
            local held = process.mail > ROOM and process.mail or ROOM
            limit = held < limit and held or limit
        end
        process.limit = limit
    end
end

local function clean()
    processes.end_all()
    collect()
    return used()
end

-- Kill those who hold most until there is room; ``held`` are the bytes in use. Returns what is in use then.
local function make_room(limit, held)
    local rounds = 0
    while held >= limit * SOFT and rounds < ROUNDS do
        local process = heaviest(limit * SMALLEST, held)
        rounds = process and rounds + 1 or ROUNDS
        if process then
            kill(process)
            process = nil -- or the collector would find it
        end
        held = clean()
    end
    for _, process in next, processes.by_pid do
        process.grown = nil
    end
    return held
end

local function is_time(now, limit, before)
    if memory.short then
        return now >= next_look
    end
    return before >= next_at or before >= limit * LAST
end

-- Called before a step, without a memory limit, when more than SOFT is used or the VM is short. Returns whether
-- it is short of memory.
local function relieve(now)
    local limit, before = config.max_memory, used()
    if not is_time(now, limit, before) and processes.ending == 0 then
        return memory.short
    end
    local began = clock()
    local held = clean()
    if held >= limit * SOFT and (not memory.short or now >= next_walk) then
        held = make_room(limit, held)
        next_walk = now + (clock() - began) * PAUSE * SECOND
    end
    next_at = held + limit * AGAIN
    if next_at < limit * SOFT then
        next_at = limit * SOFT
    end
    turns.crowded_at = next_at / 1024
    next_look = now + LOOK
    if held >= limit * SOFT then
        set_short(true)
    elseif memory.short and held < limit * EASY then
        set_short(false)
    end
    return memory.short
end

-- When to look again though nothing happens, or nil.
local function look_due()
    return memory.short and next_look or nil
end

-- Called at every step.
local function watch()
    turns.weigh = used() >= config.max_memory * WATCH
    if next_at == 0 then
        next_at = config.max_memory * SOFT
        turns.crowded_at = next_at / 1024
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

-- Called once, when all of the kernel is there: it belongs to nobody.
local function start()
    weights.share(K)
    base = used()
end

K.limits.on_change(function()
    next_at = 0
    set_short(memory.short)
end)

memory.look_due = look_due
memory.start, memory.watch, memory.relieve, memory.recover = start, watch, relieve, recover
K.memory = memory
