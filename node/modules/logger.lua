-- Module logger: structured records, sent to the node with where they come from.
--
-- What is below the level the node shows ends here. The module is the same for all processes; ``with`` and
-- ``named`` give loggers that have more to say, which is in their metatables.
local K = ...
local config, errors, operations = K.config, K.errors, K.operations
local rawmeta = K.rawmeta
local error, pairs, setmetatable, tostring, type = error, pairs, setmetatable, tostring, type

local LEVELS = { debug = -1, info = 0, warn = 1, error = 2 }

local methods = {}
local NOTHING = {}

K.values.special[methods] = { what = "a logger" }

local function state_of(logger)
    return rawmeta(logger) or NOTHING
end

local function new_logger(name, bound)
    return setmetatable({}, { __index = methods, __metatable = false, name = name, bound = bound })
end

-- A table with the fields of both; those of ``second`` win.
local function joined(first, second)
    local all = {}
    for key, value in pairs(first or NOTHING) do
        all[key] = value
    end
    for key, value in pairs(second) do
        all[key] = value
    end
    return all
end

local function log(logger, level, message, fields)
    if fields ~= nil and type(fields) ~= "table" then
        error("bad argument #2 to '" .. level .. "' (table expected, got " .. type(fields) .. ")", 3)
    elseif LEVELS[level] < config.log_level then
        return
    elseif type(message) ~= "string" then
        message = tostring(message)
    end
    local state = state_of(logger)
    local name, all = state.name, fields or state.bound
    if fields and state.bound then
        all = joined(state.bound, fields)
    end
    local where = errors.where(3)
    local ok, err = operations.cast("logger", level, message, all, name, where)
    if not ok then -- what can't be logged must not stop the process: log that instead
        operations.cast("logger", level, message, { fields_left_out = err[errors.MESSAGE] }, name, where)
    end
end

function methods.debug(logger, message, fields)
    log(logger, "debug", message, fields)
end

function methods.info(logger, message, fields)
    log(logger, "info", message, fields)
end

function methods.warn(logger, message, fields)
    log(logger, "warn", message, fields)
end

function methods.error(logger, message, fields)
    log(logger, "error", message, fields)
end

function methods.with(logger, fields)
    if type(fields) ~= "table" then
        error("bad argument #1 to 'with' (table expected, got " .. type(fields) .. ")", 2)
    end
    local state = state_of(logger)
    return new_logger(state.name, joined(state.bound, fields))
end

function methods.named(logger, part)
    if type(part) ~= "string" or part == "" then
        return nil, errors.new("Invalid", "name of a logger must be a string that is not empty", false)
    end
    local state = state_of(logger)
    return new_logger(state.name and state.name .. "." .. part or part, state.bound)
end

return methods
