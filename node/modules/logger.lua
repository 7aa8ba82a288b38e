-- Module logger: structured records, sent to the node with where they come from.
local K = ...
local errors, operations = K.errors, K.operations
local error, pairs, tostring, type = error, pairs, tostring, type

-- A logger is a table of methods for one process; ``with`` and ``named`` give others with more to say.
local function new_logger(name, bound)
    local logger = {}

    local function log(level, message, fields)
        if type(message) ~= "string" then
            message = tostring(message)
        end
        if fields ~= nil and type(fields) ~= "table" then
            error("bad argument #2 to '" .. level .. "' (table expected, got " .. type(fields) .. ")", 3)
        end
        local all = fields
        if bound and fields then
            all = {}
            for key, value in pairs(bound) do
                all[key] = value
            end
            for key, value in pairs(fields) do
                all[key] = value
            end
        elseif bound then
            all = bound
        end
        local where = errors.where(3)
        local ok, err = operations.cast("logger", level, message, all, name, where)
        if not ok then -- what can't be logged must not stop the process: log that instead
            operations.cast("logger", level, message, { fields_left_out = err[errors.MESSAGE] }, name, where)
        end
    end

    function logger.debug(_, message, fields)
        log("debug", message, fields)
    end

    function logger.info(_, message, fields)
        log("info", message, fields)
    end

    function logger.warn(_, message, fields)
        log("warn", message, fields)
    end

    function logger.error(_, message, fields)
        log("error", message, fields)
    end

    function logger.with(_, fields)
        if type(fields) ~= "table" then
            error("bad argument #1 to 'with' (table expected, got " .. type(fields) .. ")", 2)
        end
        local all = {}
        for key, value in pairs(bound or {}) do
            all[key] = value
        end
        for key, value in pairs(fields) do
            all[key] = value
        end
        return new_logger(name, all)
    end

    function logger.named(_, part)
        if type(part) ~= "string" or part == "" then
            return nil, errors.new("Invalid", "name of a logger must be a string that is not empty", false)
        end
        return new_logger(name and name .. "." .. part or part, bound)
    end

    return logger
end

return function()
    return new_logger(nil, nil)
end
