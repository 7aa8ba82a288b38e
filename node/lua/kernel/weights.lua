-- Weights: about how many bytes of the VM a process holds.
--
-- Lua can't tell, so all that the process reaches is walked: its record (mailbox, channels, modules,
-- subscriptions), the stacks and locals of its coroutines, the upvalues of its functions. The
-- walk asks no metamethod and stops at what is not the process's own: the kernel and the shared
-- libraries (all there was when the kernel had started), code, and other processes.
--
-- Estimates: a string its length and 25 bytes, one that several hold is divided among them from
-- LONG on; a table 56 bytes, 16 for each array slot and 24 for each hash slot, slots rounded up to
-- a power of two; a function 32 and 8 per upvalue; a coroutine 1000 and 200 per frame. Not seen: slots
-- of a table that was emptied, what a coroutine that never ran has captured, and locals between
-- the outer and inner frames of a deep recursion, of which only some are looked at.
--
-- A walk can be broken off after any amount of work and go on later, as long as nothing ran.
local K = ...
local rawmeta = debug.getmetatable
local getinfo, getlocal, getupvalue = debug.getinfo, debug.getlocal, debug.getupvalue
local find, format, math_type, next = string.find, string.format, math.type, next
local rawget, setmetatable, type = rawget, setmetatable, type

local STRING, TABLE, ARRAY_SLOT, HASH_SLOT = 25, 56, 16, 24
local FUNCTION, UPVALUE = 32, 8
local COROUTINE, FRAME = 1000, 200
local SHORT = 40 -- longer strings are not unique in Lua: equal ones can be there many times
local LONG = 4096
local NEAR, SAMPLES = 100, 100 -- frames that are looked at in a deep stack
local FAR = 1000000 -- frames that may be gone over to come to them

local WALKED = { table = true, ["function"] = true, thread = true }
local OF_THE_KERNEL = { code = true, counts = true, on_end = true, next = true, former = true }

local shared = setmetatable({}, { __mode = "k" }) -- what belongs to no process; it keeps nothing that the kernel lets go of

local function rounded(slots)
    local power = 1
    while power < slots do
        power = power * 2
    end
    return slots == 0 and 0 or power
end

local function weigh_string(walk, text)
    local size = #text
    if size <= SHORT then
        if not walk.seen[text] then
            walk.seen[text] = true
            walk.bytes = walk.bytes + size + STRING
        end
        return
    end
    local place = format("%p", text)
    if walk.places[place] then
        return
    end
    walk.places[place] = size
    if size < LONG or not walk.holders then
        walk.bytes = walk.bytes + size + STRING
    else
        walk.holders[place] = (walk.holders[place] or 0) + 1
        walk.long[place] = size
    end
end

-- Something the process reaches: strings are weighed at once, the rest later.
local function reach(walk, value)
    local kind = type(value)
    if kind == "string" then
        weigh_string(walk, value)
    elseif WALKED[kind] and not walk.seen[value] and not shared[value] then
        walk.seen[value] = true
        local top = walk.top + 1
        walk.top = top
        walk.stack[top] = value
    end
end

local function walk_function(walk, f)
    local count = 0
    while true do
        local name, value = getupvalue(f, count + 1)
        if not name then
            break
        end
        count = count + 1
        reach(walk, value)
    end
    walk.bytes = walk.bytes + FUNCTION + UPVALUE * count
    return count + 2
end

local function walk_frame(walk, co, level, info)
    reach(walk, info.func)
    local work = 4
    for direction = 1, -1, -2 do -- locals and temporaries, then varargs
        local index = direction
        while true do
            local name, value = getlocal(co, level, index)
            if not name then
                break
            end
            reach(walk, value)
            index = index + direction
            work = work + 1
        end
    end
    return work
end

-- How many frames a coroutine has, at least ``known``. Looking at a deep one takes time in proportion to its depth.
local function depth_of(co, known)
    local low, high = known, known * 2
    while getinfo(co, high - 1, "") do
        low, high = high, high * 2
    end
    while low < high - 1 do
        local middle = (low + high) // 2
        if getinfo(co, middle - 1, "") then
            low = middle
        else
            high = middle
        end
    end
    return low
end

local function walk_coroutine(walk, co)
    local work, level, depth, step = 4, 0, nil, 1
    while true do
        local info = getinfo(co, level, "f")
        if not info then
            break
        end
        work = work + walk_frame(walk, co, level, info)
        level = level + step
        if level == NEAR then
            depth = depth_of(co, NEAR)
            step = (depth - NEAR) // (depth > FAR // SAMPLES and FAR // depth + 1 or SAMPLES) + 1
        elseif depth and level >= depth and step > 1 then -- the outermost: there a program keeps what it works on
            level, step = depth - 1, 1
        end
    end
    walk.bytes = walk.bytes + COROUTINE + FRAME * (depth or level)
    return work + (depth or 0) // 4
end

-- The entries of a table behind ``key``, for at most ``left``. Returns the work done; what is left of the table
-- stays in the walk.
local function walk_entries(walk, content, key, left)
    local seen, stack, top = walk.seen, walk.stack, walk.top
    local weak_keys, weak_values = walk.weak_keys, walk.weak_values
    local array, hash, work = walk.array, walk.hash, 1
    local value
    key, value = next(content, key)
    while key ~= nil do
        if key == array + 1 and math_type(key) == "integer" then
            array = key
        else
            hash = hash + 1
            local kind = type(key)
            if kind == "string" then
                if not seen[key] then
                    weigh_string(walk, key)
                end
            elseif WALKED[kind] and not weak_keys and not seen[key] and not shared[key] then
                seen[key] = true
                top = top + 1
                stack[top] = key
            end
        end
        local kind = type(value)
        if kind == "string" then
            if not seen[value] then
                weigh_string(walk, value)
            end
        elseif WALKED[kind] and not weak_values and not seen[value] and not shared[value] then
            seen[value] = true
            top = top + 1
            stack[top] = value
        end
        work = work + 1
        if work > left then
            walk.open, walk.key, walk.array, walk.hash, walk.top = content, key, array, hash, top
            return work
        end
        key, value = next(content, key)
    end
    walk.open, walk.top = nil, top
    walk.bytes = walk.bytes + TABLE + ARRAY_SLOT * rounded(array) + HASH_SLOT * rounded(hash)
    return work
end

local function walk_table(walk, content, left)
    local meta = rawmeta(content)
    walk.weak_keys, walk.weak_values = false, false
    if meta then
        local mode = rawget(meta, "__mode")
        if type(mode) == "string" then
            walk.weak_keys, walk.weak_values = find(mode, "k", 1, true) ~= nil, find(mode, "v", 1, true) ~= nil
        end
        reach(walk, meta)
    end
    walk.array, walk.hash = 0, 0
    return walk_entries(walk, content, nil, left)
end

-- Go on with a walk for about ``left`` steps. Returns whether it is complete, and how many were made.
local function go_on(walk, left)
    local work = 0
    if walk.open then
        work = walk_entries(walk, walk.open, walk.key, left)
    end
    local stack = walk.stack
    while walk.top > 0 and work < left and not walk.open do
        local top = walk.top
        local value = stack[top]
        stack[top] = nil
        walk.top = top - 1
        local kind = type(value)
        if kind == "table" then
            work = work + walk_table(walk, value, left - work)
        elseif kind == "function" then
            work = work + walk_function(walk, value)
        else
            work = work + walk_coroutine(walk, value)
        end
    end
    return walk.top == 0 and not walk.open, work
end

local function new_walk(holders)
    return { bytes = 0, top = 0, stack = {}, seen = {}, places = {}, long = {}, holders = holders }
end

local function skip_code(walk, code)
    if not walk.seen[code] then
        walk.seen[code] = true
        for _, imported in next, code.linked or {} do
            skip_code(walk, imported)
        end
    end
end

-- What the kernel holds for processes: timers, operations and streams with the threads that wait for them,
-- and threads that wait for a child. Returns process -> list; without ``only`` of all processes.
local function held(only)
    local lists = {}
    local function hold(process, value)
        if only == nil or process == only then
            local list = lists[process]
            if not list then
                list = {}
                lists[process] = list
            end
            list[#list + 1] = value
        end
    end
    K.timers.each(function(timer)
        hold(timer.process, timer)
    end)
    K.operations.each(hold)
    for _, process in next, K.processes.by_pid do
        local index = 1
        while process.on_end do
            local name, value = getupvalue(process.on_end, index)
            if not name then
                break
            elseif type(value) == "table" and rawget(value, "co") then
                hold(rawget(value, "process"), value)
            end
            index = index + 1
        end
    end
    return lists
end

-- A walk stops at the records of other processes, as at all that is shared; until ``done``.
local function separate(done)
    local mark = not done or nil
    for _, process in next, K.processes.by_pid do
        shared[process] = mark
    end
end

-- A walk through ``process``. ``kept`` comes from ``held``; strings that several walks with the same ``holders``
-- meet are divided among them.
local function begin(process, kept, holders)
    local walk = new_walk(holders)
    skip_code(walk, process.code)
    walk.bytes = TABLE + HASH_SLOT * 32
    for name, value in next, process do
        if not OF_THE_KERNEL[name] then
            reach(walk, value)
        end
    end
    for _, value in next, kept[process] or {} do
        reach(walk, value)
    end
    return walk
end

-- What a walk has found so far.
local function bytes_of(walk)
    local bytes = walk.bytes
    for place, size in next, walk.long do
        bytes = bytes + size / walk.holders[place]
    end
    return bytes // 1 | 0
end

-- What is reached from ``value`` now belongs to all processes and is charged to none.
local function share(value)
    local walk = new_walk(nil)
    walk.seen = shared
    shared[value] = true
    walk.top, walk.stack[1] = 1, value
    go_on(walk, 1 << 40)
end

-- One process alone, for ``work`` steps at most. Returns the bytes, and whether that is all.
local function of_process(process, work)
    separate()
    local walk = begin(process, held(process), nil)
    local complete = go_on(walk, work)
    separate(true)
    return bytes_of(walk), complete
end

K.weights = {
    separate = separate,
    held = held,
    begin = begin,
    go_on = go_on,
    bytes_of = bytes_of,
    share = share,
    of_process = of_process,
}
