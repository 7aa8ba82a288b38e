-- Values: what may pass from one process to another, copied once on the way.
--
-- Plain data passes: nil, booleans, numbers, strings and tables of these. Error objects stay
-- error objects, a Payload passes as its value, value types (times, durations) keep their
-- type. Metatables of users are left behind. A function, a coroutine or a channel is refused
-- with the path to it; so is a cycle, and nesting beyond DEEPEST.
--
-- ``copy`` is optimistic: no memory of what it has seen, up to ENTRIES entries. Beyond that it
-- starts over with ``copy_with_care``, which keeps shared tables shared (a small message that
-- refers to one table many times would otherwise unfold without end) and refuses what is
-- larger than one message may be.
--
-- Nothing here may call into user code: metatables are looked up, never asked.
local K = ...
local rawmeta = debug.getmetatable
local format, next, rawget, setmetatable, tostring, type = string.format, next, rawget, setmetatable, tostring, type
local errors = K.errors

local DEEPEST = 64
local ENTRIES = 10000
local KNOWN_KEYS = 4096
local UNLIMITED = math.maxinteger
local LARGEST_STATE = 64 * 1024 * 1024 -- bytes of what a process hands over to itself

local PLAIN = { ["nil"] = true, string = true, number = true, boolean = true }

-- Metatables of the runtime's own objects -> how they pass:
--   {unwrap = function(value)}   as another value
--   {plain = function(value)}    a value type: the fields are copied, outside it becomes plain data
--   {same = true, plain = ...}   unchanged: one that is shared by all and can't be changed
--   {what = "a channel"}         not at all
local special = setmetatable({}, { __mode = "k" })
special[errors.meta] = { plain = errors.to_map }

local known, known_count = {}, 0 -- keys seen before: looking up is cheaper than type()

-- Channels and their like have a metatable each and share what it leads to.
local function rule_for(value)
    local meta = rawmeta(value)
    return meta and (special[meta] or special[rawget(meta, "__index")])
end

-- The known keys with this one among them; nil when it is none that can be passed.
local function check_key(key)
    local kind = type(key)
    if kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
        return nil
    end
    if known_count >= KNOWN_KEYS then
        known, known_count = {}, 0
    end
    known[key] = true
    known_count = known_count + 1
    return known
end

local copy_table

-- As copy_table.
local function copy_special(value, rule, depth, left, room)
    if rule.unwrap then
        local inner = rule.unwrap(value)
        if type(inner) == "table" then
            return copy_table(inner, depth + 1, left, room)
        elseif type(inner) == "string" then
            room = room - #inner
        end
        return PLAIN[type(inner)] and room >= 0 and inner, left, room
    elseif rule.same then
        return value, left, room
    elseif not rule.plain then
        return nil, 0, 0
    end
    local fields = {}
    for key, field in next, value do
        if type(field) == "table" then
            field, left, room = copy_table(field, depth + 1, left, room)
        end
        if field == nil or not PLAIN[type(key)] or type(field) ~= "table" and not PLAIN[type(field)] then
            return nil, 0, 0
        end
        fields[key] = field
    end
    return setmetatable(fields, rawmeta(value)), left, room
end

-- A copy of a table that may have ``left`` entries and ``room`` bytes of texts, and how many more there may be;
-- nil when this is not the way to copy it.
function copy_table(value, depth, left, room)
    if rawmeta(value) then
        local rule = rule_for(value)
        if rule then
            return copy_special(value, rule, depth, left, room)
        end
    end
    if depth > DEEPEST then
        return nil, 0, 0
    end
    local copied = { a = nil, b = nil, c = nil } -- room for four fields: most messages grow no more
    local known = known
    for key, field in next, value do
        local kind = type(field)
        if kind == "string" then
            room = room - #field
        elseif kind == "table" then
            field, left, room = copy_table(field, depth + 1, left, room)
            if field == nil then
                return nil, 0, 0
            end
        elseif kind ~= "number" and kind ~= "boolean" then
            return nil, 0, 0
        end
        if not known[key] then
            known = check_key(key)
            if not known then
                return nil, 0, 0
            end
        end
        copied[key] = field
        left = left - 1
    end
    if left < 0 or room < 0 then
        return nil, 0, 0
    end
    return copied, left, room
end

-- The path of a key as user code would write it.
local function path_of(path, key)
    if type(key) == "string" then
        return path == "" and key or path .. "." .. key
    end
    return path .. "[" .. tostring(key) .. "]"
end

local function refuse(path, what)
    local place = path == "" and "the value" or "field '" .. path .. "'"
    return place .. " " .. what
end

local function too_big(more, size, limit)
    local hint = ""
    if limit ~= LARGEST_STATE then
        K.limits.hit("max_message")
        hint = "; send a reference or split it"
    end
    return format("it has %s%d bytes, over the limit of %d bytes%s", more, size, limit, hint)
end

local careful

local function careful_fields(state, value, copied, path, depth)
    for key, field in next, value do
        local kind = type(key)
        if not PLAIN[kind] then
            return nil, refuse(path, "has a key that is a " .. kind)
        end
        local item, problem = careful(state, field, path, key, depth + 1)
        if problem then
            return nil, problem
        end
        copied[key] = item
        state.size = state.size + (kind == "string" and #key or 8)
        if state.size > state.limit then
            return nil, too_big("more than ", state.size, state.limit)
        end
    end
    return copied
end

local function careful_table(state, value, path, depth)
    local seen = state.seen[value]
    if seen == false then
        return nil, refuse(path, "refers to a table it is part of; what is passed must be a tree")
    elseif seen ~= nil then
        return seen
    elseif depth > DEEPEST then
        return nil, refuse(path, format("is nested deeper than %d tables", DEEPEST))
    end
    state.seen[value] = false
    local rule = rule_for(value)
    if rule and rule.what then
        return nil, refuse(path, "is " .. rule.what .. ", which belongs to one process")
    end
    local copied, problem
    if rule and rule.same then
        return value
    elseif rule and rule.unwrap then
        copied, problem = careful(state, rule.unwrap(value), path, nil, depth + 1)
    else
        copied, problem = careful_fields(state, value, {}, path, depth)
    end
    if problem then
        return nil, problem
    end
    if rule and rule.plain then
        setmetatable(copied, rawmeta(value))
    end
    state.seen[value] = copied
    return copied
end

function careful(state, value, path, key, depth)
    local kind = type(value)
    state.size = state.size + (kind == "string" and #value or 1)
    if kind == "table" then
        return careful_table(state, value, key == nil and path or path_of(path, key), depth)
    elseif not PLAIN[kind] then
        local place = key == nil and path or path_of(path, key)
        return nil, refuse(place, "is a " .. kind .. "; only plain data can be passed")
    end
    return value
end

-- A copy of a table, or nil and what is wrong with it.
local function copy_with_care(value, limit)
    return careful({ seen = {}, size = 0, limit = limit or K.config.max_message }, value, "", nil, 1)
end

-- A copy of ``value``, or nil and what is wrong with it (look at the second result: nil is a value too).
local function copy(value)
    local kind = type(value)
    if kind == "table" then
        local copied = copy_table(value, 1, ENTRIES, UNLIMITED)
        if copied ~= nil then
            return copied
        end
        return copy_with_care(value)
    elseif PLAIN[kind] then
        return value
    end
    return nil, refuse("", "is a " .. kind .. "; only plain data can be passed")
end

-- The same for what one message brings: it has a limit.
local function copy_message(value)
    local kind = type(value)
    if kind == "table" then
        local copied = copy_table(value, 1, ENTRIES, K.config.max_message)
        if copied ~= nil then
            return copied
        end
        return copy_with_care(value)
    elseif kind == "string" and #value > K.config.max_message then
        return nil, too_big("", #value, K.config.max_message)
    end
    return copy(value)
end

-- The same for what a process hands over to itself when it starts over.
local function copy_state(value)
    if type(value) ~= "table" then
        return copy(value)
    end
    local copied = copy_table(value, 1, ENTRIES, UNLIMITED)
    if copied ~= nil then
        return copied
    end
    return copy_with_care(value, LARGEST_STATE)
end

-- Copies the first ``n`` values of a list with ``by``; the copy knows its n. Or nil and an error object.
local function copy_list(n, list, by)
    by = by or copy
    local copied = { n = n }
    for i = 1, n do
        local problem
        copied[i], problem = by(list[i])
        if problem then
            return nil, errors.new("Invalid", "value " .. i .. ": " .. problem, false)
        end
    end
    return copied
end

-- What an outcome shows to others: a value that can't be copied shows as nil.
local function copy_or_nil(value)
    local copied, problem = copy(value)
    if problem then
        return nil
    end
    return copied
end

-- A new table with the fields of both; those of ``second`` win.
local function merged(first, second)
    local all = {}
    for key, value in next, first or {} do
        all[key] = value
    end
    for key, value in next, second do
        all[key] = value
    end
    return all
end

K.values = {
    merged = merged,
    copy = copy,
    copy_table = copy_table,
    ENTRIES = ENTRIES,
    copy_list = copy_list,
    copy_message = copy_message,
    copy_state = copy_state,
    copy_or_nil = copy_or_nil,
    special = special,
    rule_for = rule_for,
    DEEPEST = DEEPEST,
}
