-- Arguments: checks that the guarded libraries share, and errors as Lua's own functions raise them.
--
-- What one call may take is charged to the process before or after (turns.charge), in points; what
-- can't be interrupted is bounded.
local K = ...
local charge = K.turns.charge
local rawmeta = debug.getmetatable
local error, rawget, rawpcall, tonumber, type = error, rawget, pcall, tonumber, type
local find, format, gsub = string.find, string.format, string.gsub

local LARGEST = 16 * 1024 * 1024 -- bytes of a text that a library function makes
local LONGEST_RANGE = 10000000
local POINTS_PER_BYTE = 1 / 256
local OUT_OF_MEMORY = K.guards.OUT_OF_MEMORY

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

-- The size of what is to be made, or has been made.
local function check_size(size, name)
    if size > LARGEST then
        error(format("resulting string too large: %.0f bytes, the limit of '%s' is %d", size, name, LARGEST), 3)
    end
end

local function charge_bytes(size)
    charge(size * POINTS_PER_BYTE)
end

-- Errors of C functions are to name the line of the user, not the one here that called them.
local function or_raise(ok, ...)
    if ok then
        return ...
    end
    local raised = ...
    if type(raised) == "string" then
        raised = gsub(raised, "^kernel/[%w_]+:%d+: ", "")
    end
    if type(raised) == "string" and raised ~= OUT_OF_MEMORY and not find(raised, "^[^%s:]+:[^%s:]+:%d+: ") then
        error(raised, 2) -- called last by the function that is called by the user: that one's frame is gone
    end
    error(raised, 0)
end

-- Call a function of C with what may be wrong arguments.
local function checked(f, ...)
    return or_raise(rawpcall(f, ...))
end

K.arguments = {
    checked = checked,
    LARGEST = LARGEST,
    bad = bad,
    check_table = check_table,
    check_range = check_range,
    check_size = check_size,
    charge_bytes = charge_bytes,
    or_raise = or_raise,
}
