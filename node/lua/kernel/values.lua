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

local PLAIN = { ["nil"] = true, string = true, number = true, boolean = true }

-- Metatables of the runtime's own objects -> how they pass:
--   {unwrap = function(value)}   as another value
--   {plain = function(value)}    a value type: the fields are copied, outside it becomes plain data
--   {same = true, plain = ...}   unchanged: one that is shared by all and can't be changed
--   {what = "a channel"}         not at all
local special = setmetatable({}, { __mode = "k" })
special[errors.meta] = { plain = errors.to_map }

local known, known_count = {}, 0 -- keys seen before: looking up is cheaper than type()
local budget = 0
local failed = false

-- Channels and their like have a metatable each and share what it leads to.
local function rule_for(value)
    local meta = rawmeta(value)
    return meta and (special[meta] or special[rawget(meta, "__index")])
end

local function check_key(key)
    local kind = type(key)
    if kind == "string" or kind == "number" or kind == "boolean" then
        if known_count >= KNOWN_KEYS then
            known, known_count = {}, 0
        end
        known[key] = true
        known_count = known_count + 1
    else
        failed = true
    end
end

local copy_table

local function copy_special(value, rule, depth)
    if rule.unwrap then
        local inner = rule.unwrap(value)
        if type(inner) == "table" then
            return copy_table(inner, depth + 1)
        end
        failed = failed or not PLAIN[type(inner)]
        return inner
    elseif rule.same then
        return value
    elseif rule.plain then
        local fields = {}
        for key, field in next, value do
            if type(field) == "table" then
                field = copy_table(field, depth + 1)
            end
            failed = failed or not PLAIN[type(key)] or type(field) ~= "table" and not PLAIN[type(field)]
            fields[key] = field
        end
        return setmetatable(fields, rawmeta(value))
    end
    failed = true
    return nil
end

function copy_table(value, depth)
    if rawmeta(value) then
        local rule = rule_for(value)
        if rule then
            return copy_special(value, rule, depth)
        end
    end
    if depth > DEEPEST then
        failed = true
        return nil
    end
    local copied = { a = nil, b = nil, c = nil, d = nil } -- room for four fields: most messages grow no more
    local entries = 0
    for key, field in next, value do
        local kind = type(field)
        if kind == "table" then
            field = copy_table(field, depth + 1)
            if failed then
                return nil
            end
        elseif not PLAIN[kind] then
            failed = true
            return nil
        end
        if not known[key] then
            check_key(key)
            if failed then
                return nil
            end
        end
        copied[key] = field
        entries = entries + 1
    end
    budget = budget - entries
    failed = budget < 0
    return copied
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
            return nil, format("is larger than the limit of %d bytes; send a reference or split it", state.limit)
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
local function copy_with_care(value)
    return careful({ seen = {}, size = 0, limit = K.config.max_message }, value, "", nil, 1)
end

-- A copy of ``value``, or nil and what is wrong with it (look at the second result: nil is a value too).
local function copy(value)
    local kind = type(value)
    if kind == "table" then
        budget, failed = ENTRIES, false
        local copied = copy_table(value, 1)
        if not failed then
            return copied
        end
        return copy_with_care(value)
    elseif PLAIN[kind] then
        return value
    end
    return nil, refuse("", "is a " .. kind .. "; only plain data can be passed")
end

-- Copies the first ``n`` values of a list; the copy knows its n. Or nil and an error object.
local function copy_list(n, list)
    local copied = { n = n }
    for i = 1, n do
        local problem
        copied[i], problem = copy(list[i])
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
    copy_list = copy_list,
    copy_or_nil = copy_or_nil,
    special = special,
    rule_for = rule_for,
    DEEPEST = DEEPEST,
}
