-- Libraries: the standard library as processes see it, but for strings and tables (files of their own).
--
-- What can't be interrupted is bounded: C functions that run long charge the process that calls
-- them. What would reach another process or the host is left out; docs/modules.md lists what
-- there is.
--
-- These tables are the originals; each environment copies the ones it uses (sandbox.lua).
local K = ...
local arguments, guards, strings, tables, turns = K.arguments, K.guards, K.strings, K.tables, K.turns
local bad, charge, charge_bytes, checked = arguments.bad, turns.charge, arguments.charge_bytes, arguments.checked
local rawmeta = debug.getmetatable
local error, next, pairs, rawget, rawset = error, next, pairs, rawget, rawset
local setmetatable, tonumber, type = setmetatable, tonumber, type
local rawlen = rawlen
local mtype, floor, random = math.type, math.floor, math.random
local move, sort = table.move, table.sort

local LARGEST_ORDERED = 1000 -- keys of a map that is walked in order
local LONG = 4096 -- bytes

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
            return checked(random, low, high)
        elseif low ~= nil then
            return checked(random, low)
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

-- Maps are walked in the order of their keys, numbers before texts, so that a program does the same in every
-- run and on every node: the order of Lua's own hash changes from one start to the next. Large maps keep it.
local function collect(map)
    local numbers, texts, others = {}, {}, {}
    local number_count, text_count, other_count = 0, 0, 0
    local are_short = true
    for key in next, map do
        local kind = type(key)
        if kind == "string" then
            text_count = text_count + 1
            texts[text_count] = key
            are_short = are_short and #key <= tables.SHORT
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
    if are_short then
        sort(texts)
    else
        tables.sort_texts(texts, text_count)
    end
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
    error = K.rawerror, -- C's own: a tail call of it leaves the frame it names
    ipairs = ipairs,
    next = next,
    pairs = ordered_pairs,
    rawequal = rawequal,
    rawget = rawget,
    select = select,
    tostring = tostring,
    type = type,
    getmetatable = getmetatable,
    pcall = guards.pcall,
    xpcall = guards.xpcall,
    unpack = tables.library.unpack,
    _VERSION = _VERSION,
}

function basics.tonumber(value, base, ...)
    if type(value) == "string" and #value > LONG then
        charge_bytes(#value)
    end
    if base ~= nil then
        return checked(tonumber, value, base)
    elseif value == nil then
        return checked(tonumber, value, ...)
    end
    return tonumber(value)
end

function basics.setmetatable(value, meta)
    if type(meta) == "table" and rawget(meta, "__gc") ~= nil then
        error("a metatable with __gc is not allowed", 2)
    end
    return checked(setmetatable, value, meta)
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
    return checked(date, ...)
end

K.libraries = {
    basics = basics,
    lock_strings = strings.lock,
    string = strings.library,
    table = tables.library,
    math = maths,
    coroutine = guards.coroutines,
    os = times,
}
