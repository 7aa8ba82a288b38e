-- Tables: the table library as processes see it.
--
-- Ranges are bounded and gone over a piece at a time, so that others get their chance; texts put
-- together are bounded. Lua's own sort takes what is short and quickly compared; the rest is sorted
-- here, where the comparator may be pre-empted and may wait.
local K = ...
local arguments, charge = K.arguments, K.turns.charge
local bad, charge_bytes, check_range, check_size, check_table, checked =
    arguments.bad, arguments.charge_bytes, arguments.check_range, arguments.check_size, arguments.check_table,
    arguments.checked
local rawmeta = debug.getmetatable
local error, next, rawpcall, select, setmetatable, tonumber, type = error, next, pcall, select, setmetatable, tonumber, type
local concat, insert, move, pack, remove, sort, unpack =
    table.concat, table.insert, table.move, table.pack, table.remove, table.sort, table.unpack
local mtype = math.type

local PIECE = 4096 -- values gone over without a chance for others
local SORT_PLAIN, SORT_COMPARED = 20000, 100 -- up to here Lua sorts
local SHORT = 256 -- bytes of texts that are quickly compared

local tables = { pack = pack }

-- Like table.move, a piece at a time, from the end that nothing is lost at.
local function move_pieces(source, first, last, to, target)
    if source == target and to > first and to <= last then
        for upto = last, first, -PIECE do
            local from = upto - PIECE + 1 > first and upto - PIECE + 1 or first
            move(source, from, upto, to + from - first)
            charge(upto - from)
        end
    else
        for from = first, last, PIECE do
            local upto = from + PIECE - 1 < last and from + PIECE - 1 or last
            move(source, from, upto, to + from - first, target)
            charge(upto - from)
        end
    end
    return target
end

function tables.move(source, first, last, to, target)
    check_range(first, last, "move")
    if type(source) == "table" and mtype(first) == "integer" and mtype(last) == "integer" and mtype(to) == "integer"
        and type(target or source) == "table" and last - first >= PIECE and to < math.maxinteger - (last - first) then
        return checked(move_pieces, source, first, last, to, target or source)
    end
    return checked(move, source, first, last, to, target or source)
end

function tables.insert(list, ...)
    check_table(list, "insert")
    local given = select("#", ...)
    if given == 1 then
        return insert(list, (...))
    elseif given ~= 2 then
        return checked(insert, list, ...)
    end
    local position, value = ...
    local count = #list
    if mtype(position) == "integer" and position >= 1 and count - position > PIECE then
        checked(move_pieces, list, position, count, position + 1, list)
        list[position] = value
        return
    end
    charge(count - (tonumber(position) or 0))
    return checked(insert, list, position, value)
end

function tables.remove(list, ...)
    check_table(list, "remove")
    local position = ...
    if position == nil then
        return remove(list)
    end
    local count = #list
    if mtype(position) == "integer" and position >= 1 and count - position > PIECE then
        local removed = list[position]
        checked(move_pieces, list, position + 1, count, position, list)
        list[count] = nil
        return removed
    end
    charge(count - (tonumber(position) or 0))
    return checked(remove, list, position)
end

-- The values themselves, so that what is measured is what is put together; and their size.
local function measured(list, from, upto)
    local values, size = {}, 0
    for i = from, upto do
        local value = list[i]
        values[i - from + 1] = value
        size = size + (type(value) == "string" and #value or 8)
    end
    return values, size
end

local function refuse_value(values, from)
    for i = 1, #values + 1 do
        local kind = type(values[i])
        if kind ~= "string" and kind ~= "number" then
            error("invalid value (at index " .. from + i - 1 .. ") in table for 'concat'", 3)
        end
    end
end

local function concat_pieces(list, separator, first, last)
    local parts, total = {}, 0
    for from = first, last, PIECE do
        local upto = from + PIECE - 1 < last and from + PIECE - 1 or last
        local values, size = measured(list, from, upto)
        total = total + size + #separator * (upto - from + 1)
        check_size(total, "concat")
        charge_bytes(size)
        charge(upto - from)
        local ok, part = rawpcall(concat, values, separator, 1, upto - from + 1)
        if not ok then
            refuse_value(values, from)
            error(part, 0)
        end
        parts[#parts + 1] = part
    end
    return concat(parts, separator)
end

function tables.concat(list, separator, first, last)
    check_table(list, "concat")
    separator, first = separator or "", first or 1
    if last == nil then
        last = #list
    end
    check_range(first, last, "concat")
    separator = type(separator) == "number" and "" .. separator or separator
    if type(separator) == "string" and mtype(first) == "integer" and mtype(last) == "integer" and first <= last
        and last < math.maxinteger - PIECE then
        return checked(concat_pieces, list, separator, first, last)
    end
    return checked(concat, list, separator, first, last)
end

function tables.unpack(list, first, last)
    first = first or 1
    if last == nil then
        check_table(list, "unpack")
        last = #list
    end
    check_range(first, last, "unpack")
    return checked(unpack, list, first, last)
end

-- Comparing long texts takes its time.
local function less(a, b)
    if type(a) == "string" and type(b) == "string" and #a > SHORT and #b > SHORT then
        charge_bytes(16 * (#a < #b and #a or #b))
    end
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
            charge(1)
        end
    end
end

local function sort_here(list, count, before)
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

-- Whether Lua's own sort is through with it soon: comparing runs no code of the user and no long texts.
local function is_quick(list, count)
    for i = 1, count do
        local value = list[i]
        if type(value) ~= "number" and (type(value) ~= "string" or #value > SHORT) then
            return false
        end
    end
    return true
end

function tables.sort(list, before)
    check_table(list, "sort")
    if before ~= nil and type(before) ~= "function" then
        bad(2, "sort", "function", before)
    end
    local count = #list
    charge(count)
    if before and count <= SORT_COMPARED then
        return checked(sort, list, before)
    elseif not before and count <= SORT_PLAIN and is_quick(list, count) then
        return checked(sort, list)
    end
    return checked(sort_here, list, count, before or less)
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
        charge(1)
    end
    for key in next, held do
        list[key] = nil
        charge(1)
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

K.tables = { library = tables, sort_texts = function(texts, count) return sort_here(texts, count, less) end, SHORT = SHORT }
