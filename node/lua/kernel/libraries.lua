-- Libraries: the standard library as processes see it.
--
-- What can't be interrupted is bounded: C functions that run long charge the process that calls
-- them, sorts of many values are done here in Lua, where the comparator may be pre-empted, and
-- ranges are limited. What would reach another process or the host is left out.
--
-- These tables are the originals; each environment copies the ones it uses (sandbox.lua).
local K = ...
local turns, guards = K.turns, K.guards
local charge = turns.charge
local rawmeta, dbgsetmeta = debug.getmetatable, debug.setmetatable
local error, next, pairs, rawget, rawset, select = error, next, pairs, rawget, rawset, select
local setmetatable, tonumber, tostring, type = setmetatable, tonumber, tostring, type
local rawlen, rawpcall, find, gsub = rawlen, pcall, string.find, string.gsub
local mtype, floor, random, randomseed = math.type, math.floor, math.random, math.randomseed
local concat, insert, move, pack, remove, sort, unpack =
    table.concat, table.insert, table.move, table.pack, table.remove, table.sort, table.unpack

local LONGEST_RANGE = 10000000
local LARGEST_ORDERED = 1000 -- keys of a map that is walked in order
local SORT_PLAIN, SORT_COMPARED = 100000, 2000 -- up to here C sorts
local POINTS_PER_BYTE = 1 / 256

local function bad(position, name, expected, value, level)
    local got = value == nil and "no value" or type(value)
    error("bad argument #" .. position .. " to '" .. name .. "' (" .. expected .. " expected, got " .. got .. ")", (level or 2) + 1)
end

local function check_table(value, name)
    if type(value) ~= "table" then
        bad(1, name, "table", value, 3)
    end
    local meta = rawmeta(value)
    if meta and rawget(meta, "__len") ~= nil then
        error("bad argument #1 to '" .. name .. "' (a table with __len can't be used here)", 3)
    end
end

-- Lua takes whole floats and numerals for integers: whatever is a number counts.
local function check_range(first, last, name)
    first, last = tonumber(first), tonumber(last)
    if not first or not last then
        return
    elseif last - first > LONGEST_RANGE then
        error("range of '" .. name .. "' is longer than " .. LONGEST_RANGE, 3)
    end
    if last > first then
        charge(last - first)
    end
end

-- Errors of C functions are to name the line of the user, not the one here that called them.
local function or_raise(ok, ...)
    if ok then
        return ...
    end
    local raised = ...
    if type(raised) == "string" then
        raised = gsub(raised, "^kernel/%w+:%d+: ", "")
    end
    if type(raised) == "string" and raised ~= guards.OUT_OF_MEMORY and not find(raised, "^[^%s:]+:[^%s:]+:%d+: ") then
        error(raised, 2) -- called last by the function that is called by the user: that one's frame is gone
    end
    error(raised, 0)
end

local tables = { pack = pack }

function tables.insert(list, ...)
    check_table(list, "insert")
    if select("#", ...) == 1 then
        return insert(list, ...)
    end
    charge(#list - (tonumber((...)) or 0))
    return or_raise(rawpcall(insert, list, ...))
end

function tables.remove(list, ...)
    check_table(list, "remove")
    local position = tonumber((...))
    if position then
        charge(#list - position)
        return or_raise(rawpcall(remove, list, ...))
    end
    return remove(list, ...)
end

function tables.concat(list, separator, first, last)
    check_table(list, "concat")
    first, last = first or 1, last or #list
    check_range(first, last, "concat")
    return or_raise(rawpcall(concat, list, separator, first, last))
end

function tables.unpack(list, first, last)
    first = first or 1
    if last == nil then
        check_table(list, "unpack")
        last = #list
    end
    check_range(first, last, "unpack")
    return or_raise(rawpcall(unpack, list, first, last))
end

function tables.move(source, first, last, to, target)
    check_range(first, last, "move")
    return or_raise(rawpcall(move, source, first, last, to, target or source))
end

local function less(a, b)
    return a < b
end

-- One pass of a merge sort: runs of ``width`` from one list into the other.
local function merge(from, into, count, width, before)
    for start = 1, count, 2 * width do
        local left, right = start, start + width
        local left_end = right <= count and right or count + 1
        local right_end = right + width <= count and right + width or count + 1
        for at = start, right_end - 1 do
            if left < left_end and (right >= right_end or not before(from[right], from[left])) then
                into[at] = from[left]
                left = left + 1
            else
                into[at] = from[right]
                right = right + 1
            end
        end
        charge(2 * width)
    end
end

local function sort_in_lua(list, count, before)
    local from, into = {}, {}
    for i = 1, count do
        from[i] = list[i]
    end
    local width = 1
    while width < count do
        merge(from, into, count, width, before)
        from, into = into, from
        width = width * 2
    end
    for i = 1, count do
        list[i] = from[i]
    end
end

function tables.sort(list, before)
    check_table(list, "sort")
    if before ~= nil and type(before) ~= "function" then
        bad(2, "sort", "function", before)
    end
    local count = #list
    charge(count)
    if count > (before and SORT_COMPARED or SORT_PLAIN) and turns.can_wait() then
        return sort_in_lua(list, count, before or less)
    end
    if before then
        return or_raise(rawpcall(sort, list, before))
    end
    return or_raise(rawpcall(sort, list))
end

-- Sizes are a hint; Lua grows tables by itself.
function tables.create(array, fields)
    if type(array or 0) ~= "number" or type(fields or 0) ~= "number" then
        bad(1, "create", "number", array)
    end
    return {}
end

local function refuse_change()
    error("attempt to change a frozen table", 2)
end

-- The table itself becomes read-only; what it held is behind its metatable.
function tables.freeze(list)
    check_table(list, "freeze")
    if rawmeta(list) then
        error("bad argument #1 to 'freeze' (the table has a metatable)", 2)
    end
    local held = {}
    for key, value in next, list do
        held[key] = value
    end
    for key in next, held do
        list[key] = nil
    end
    local meta = {
        __index = held,
        __newindex = refuse_change,
        __metatable = false,
        __len = function() return #held end,
        __pairs = function() return next, held, nil end,
    }
    K.values.special[meta] = { unwrap = function() return held end }
    return setmetatable(list, meta)
end

-- A generator of its own for a process that seeds one: nobody else's numbers change.
local function generator(seed)
    local state = floor(seed) % 2147483647
    if state <= 0 then
        state = state + 2147483646
    end
    return function()
        state = state * 48271 % 2147483647
        return (state - 1) / 2147483646
    end
end

local maths = {}
for name, value in pairs(math) do
    maths[name] = value
end

function maths.randomseed(seed)
    if type(seed or 0) ~= "number" then
        bad(1, "randomseed", "number", seed)
    end
    turns.current.process.random = generator(seed or random(1, 2147483646))
end

function maths.random(low, high)
    local draw = turns.current.process.random
    if not draw then
        if high ~= nil then
            return or_raise(rawpcall(random, low, high))
        elseif low ~= nil then
            return or_raise(rawpcall(random, low))
        end
        return random()
    elseif low == nil then
        return draw()
    end
    if high == nil then
        low, high = 1, low
    end
    if mtype(low) ~= "integer" or mtype(high) ~= "integer" or low > high then
        error("bad argument to 'random' (interval is empty)", 2)
    end
    return low + floor(draw() * (high - low + 1))
end

maths.pow = maths.pow or function(x, y) return x ^ y end
maths.log10 = maths.log10 or function(x) return math.log(x, 10) end
maths.atan2 = maths.atan2 or function(y, x) return math.atan(y, x) end
maths.sinh = maths.sinh or function(x) return (math.exp(x) - math.exp(-x)) / 2 end
maths.cosh = maths.cosh or function(x) return (math.exp(x) + math.exp(-x)) / 2 end
maths.tanh = maths.tanh or function(x)
    if x > 20 then
        return 1.0
    elseif x < -20 then
        return -1.0
    end
    local a, b = math.exp(x), math.exp(-x)
    return (a - b) / (a + b)
end

local strings = {}
for name, value in pairs(string) do
    strings[name] = value
end
strings.dump = nil
for _, name in pairs({ "upper", "lower", "reverse" }) do
    local original = string[name]
    strings[name] = function(text)
        if type(text) == "string" and #text > 4096 then
            charge(#text * POINTS_PER_BYTE)
        end
        return original(text)
    end
end

for name, guarded in pairs(K.parts.patterns(string)) do
    strings[name] = guarded
end

local rep = strings.rep
function strings.rep(text, count, separator)
    if type(text) == "string" and type(count) == "number" and count > 4096 then
        charge(#text * count * POINTS_PER_BYTE)
    end
    return or_raise(rawpcall(rep, text, count, separator))
end

-- Methods of strings are these, for everybody, and nobody can change them.
local function lock_strings()
    local methods = {}
    for name, value in pairs(strings) do
        methods[name] = value
    end
    dbgsetmeta("", { __index = methods, __metatable = false })
end

-- Maps are walked in the order of their keys, numbers before texts, so that a program does the same in every
-- run and on every node: the order of Lua's own hash changes from one start to the next. Large maps keep it.
local function collect(map)
    local numbers, texts, others = {}, {}, {}
    local number_count, text_count, other_count = 0, 0, 0
    for key in next, map do
        local kind = type(key)
        if kind == "string" then
            text_count = text_count + 1
            texts[text_count] = key
        elseif kind == "number" then
            number_count = number_count + 1
            numbers[number_count] = key
        else
            other_count = other_count + 1
            others[other_count] = key
        end
        if number_count + text_count + other_count > LARGEST_ORDERED then
            return nil
        end
    end
    sort(texts)
    if number_count + other_count == 0 then
        return texts, text_count
    end
    sort(numbers)
    move(texts, 1, text_count, number_count + 1, numbers)
    move(others, 1, other_count, number_count + text_count + 1, numbers)
    return numbers, number_count + text_count + other_count
end

local function ordered_pairs(map)
    if type(map) ~= "table" then
        error("bad argument #1 to 'for iterator' (table expected, got " .. type(map) .. ")", 2)
    end
    local meta = rawmeta(map)
    if meta and rawget(meta, "__pairs") ~= nil then
        return pairs(map)
    end
    local length = rawlen(map)
    if length > 0 and next(map, length) == nil then
        return next, map, nil
    end
    local keys, count = collect(map)
    if not keys or count < 2 then
        return next, map, nil
    end
    charge(count)
    local at = 0
    return function()
        local key, item
        repeat
            at = at + 1
            key = keys[at]
            if key == nil then
                return nil
            end
            item = rawget(map, key)
        until item ~= nil
        return key, item
    end, map, nil
end

local basics = {
    assert = assert,
    error = error,
    ipairs = ipairs,
    next = next,
    pairs = ordered_pairs,
    rawequal = rawequal,
    rawget = rawget,
    select = select,
    tonumber = tonumber,
    tostring = tostring,
    type = type,
    getmetatable = getmetatable,
    pcall = guards.pcall,
    xpcall = guards.xpcall,
    unpack = tables.unpack,
    _VERSION = _VERSION,
}

function basics.setmetatable(value, meta)
    if type(meta) == "table" and rawget(meta, "__gc") ~= nil then
        error("a metatable with __gc is not allowed", 2)
    end
    return or_raise(rawpcall(setmetatable, value, meta))
end

-- What the runtime locked stays as it is: some of it is shared by all processes.
function basics.rawset(value, key, item)
    local meta = rawmeta(value)
    if meta and rawget(meta, "__metatable") == false then
        error("can't rawset into an object of the runtime", 2)
    end
    return rawset(value, key, item)
end

local times = K.parts.ostime(os)
local date = times.date
function times.date(...)
    return or_raise(rawpcall(date, ...))
end

K.libraries = {
    basics = basics,
    lock_strings = lock_strings,
    string = strings,
    table = tables,
    math = maths,
    coroutine = guards.coroutines,
    os = times,
}
