-- Errors: the object a failed call gives beside nil.
--
-- An error is a table whose contents sit at integer keys, so that err:kind() is a method and
-- nothing else can be read by name. Its metatable is shared by all processes and locked.
local K = ...
local rawerror = K.rawerror
local getinfo, getlocal, rawmeta, running = debug.getinfo, debug.getlocal, debug.getmetatable, coroutine.running
local concat, find, setmetatable, sub, tostring, type =
    table.concat, string.find, setmetatable, string.sub, tostring, type

local KIND, MESSAGE, RETRYABLE, DETAILS, FRAMES = 1, 2, 3, 4, 5
local DEEPEST_STACK = 24
local LONGEST_MESSAGE = 65536

local KINDS = {
    NOT_FOUND = "NotFound",
    ALREADY_EXISTS = "AlreadyExists",
    INVALID = "Invalid",
    PERMISSION_DENIED = "PermissionDenied",
    UNAVAILABLE = "Unavailable",
    INTERNAL = "Internal",
    CANCELED = "Canceled",
    CONFLICT = "Conflict",
    TIMEOUT = "Timeout",
    RATE_LIMITED = "RateLimited",
    UNKNOWN = "",
}

local methods = {}
local meta = { __index = methods, __metatable = false, __name = "error" }

local function is_error(value)
    return type(value) == "table" and rawmeta(value) == meta
end

local function check_self(value, name)
    if not is_error(value) then
        error("expected an error object: call it as err:" .. name .. "()", 3)
    end
    return value
end

function methods.kind(self)
    return check_self(self, "kind")[KIND]
end

function methods.message(self)
    return check_self(self, "message")[MESSAGE]
end

function methods.retryable(self)
    return check_self(self, "retryable")[RETRYABLE]
end

function methods.details(self)
    return check_self(self, "details")[DETAILS]
end

function methods.stack(self)
    local frames = check_self(self, "stack")[FRAMES] or {}
    local lines = {}
    for i = 1, #frames do
        local frame = frames[i]
        lines[i] = frame.source .. ":" .. frame.line .. (frame.name and " in " .. frame.name or "")
    end
    return concat(lines, "\n")
end

function meta.__tostring(self)
    local message = self[MESSAGE]
    return type(message) == "string" and message or ""
end

function meta.__concat(left, right)
    return tostring(left) .. tostring(right)
end

-- Whether a frame is code of an entry: not of C, the kernel or a module.
local function is_users(info)
    return info.currentline > 0 and not find(info.source, "^=kernel/") and not find(info.source, "^=module/")
end

-- The frames of user code from ``level`` upwards; of a dead coroutine when one is given.
local function frames_of(level, co)
    local frames, n, last = {}, 0, nil
    for at = level, level + DEEPEST_STACK do
        local info = co and getinfo(co, at, "Sln") or not co and getinfo(at, "Sln")
        if not info then
            break
        end
        if is_users(info) then
            n = n + 1
            frames[n] = { source = info.short_src, line = info.currentline, name = info.name }
            last = at
        elseif last == at - 1 then
            frames[n].name = nil -- what the kernel calls it is of no interest
        end
    end
    return frames
end

-- An error of the runtime itself; no stack is taken.
local function new(kind, message, retryable, details)
    return setmetatable({ kind, message, retryable, details }, meta)
end

-- The first line of user code on the stack of ``co``, from ``level`` upwards; or nil.
local function line_on(co, level)
    local info = getinfo(co, level, "Sl")
    while info do
        if is_users(info) then
            return info.short_src .. ":" .. info.currentline
        end
        level = level + 1
        info = getinfo(co, level, "Sl")
    end
    return nil
end

-- The line of the function the thread began with: what called it holds it in a local named f.
local function first_line(co)
    local level, name, value = 0, nil, nil
    while getinfo(co, level, "l") do
        local at = 1
        name, value = getlocal(co, level, at)
        while name and name ~= "f" do
            at = at + 1
            name, value = getlocal(co, level, at)
        end
        level = level + 1
    end
    if name and type(value) == "function" then
        local info = getinfo(value, "S")
        return info.short_src .. ":" .. info.linedefined
    end
    return nil
end

-- Where user code is at ``level``: "entry:line", or "" outside of any process. A tail call takes a frame away: then
-- it is the nearest line that is left, at last that of the function the thread began with.
local function where(level)
    local line = line_on(running(), level + 1)
    local thread = K.turns.current
    if not line and thread then
        line = line_on(thread.co, 0) or first_line(thread.co)
    end
    return line or ""
end

-- ``error`` as the kernel and the modules use it: its place is always one in user code.
local function raise(message, level)
    if level ~= 0 and type(message) == "string" then
        local place = where((level or 1) + 1)
        message = place ~= "" and place .. ": " .. message or message
    end
    rawerror(message, 0)
end

-- ``err`` as it can be shown to others, whatever a program has made of it: its fields are of their types, and what
-- can't be passed on is left out and named. Else the failure itself would be lost with it.
local function passable(err)
    local kind, message, retryable, details, frames = err[KIND], err[MESSAGE], err[RETRYABLE], err[DETAILS], err[FRAMES]
    local has_types = type(kind) == "string" and type(message) == "string" and (details == nil or type(details) == "table")
        and (retryable == nil or type(retryable) == "boolean")
    local _, problem = K.values.copy(err)
    if has_types and not problem then
        return err
    end
    _, problem = K.values.copy(details)
    message = type(message) == "string" and sub(message, 1, LONGEST_MESSAGE) or "(error object without a message)"
    local fresh = new(type(kind) == "string" and kind or KINDS.INTERNAL, message)
    if type(retryable) == "boolean" then
        fresh[RETRYABLE] = retryable
    end
    if problem then
        fresh[DETAILS] = { lost = problem }
    elseif type(details) == "table" then
        fresh[DETAILS] = details
    end
    _, problem = K.values.copy(frames)
    fresh[FRAMES] = not problem and frames or nil
    return fresh
end

-- The error object for whatever a process raised. Never calls into user code (a __tostring may not return).
local function from_raised(raised, co)
    if is_error(raised) then
        raised[FRAMES] = raised[FRAMES] or co and frames_of(0, co)
        return passable(raised)
    end
    local message
    if type(raised) == "string" then
        message = raised
    elseif type(raised) == "number" or type(raised) == "boolean" then
        message = tostring(raised)
    elseif type(raised) == "table" and type(rawget(raised, "message")) == "string" then
        message = rawget(raised, "message")
    else
        message = "(error object is a " .. type(raised) .. " value)"
    end
    local err = new(KINDS.INTERNAL, message)
    err[FRAMES] = co and frames_of(0, co)
    return passable(err)
end

-- The error object for what a process returned as its second value: an error is an error object or a text.
local function from_returned(value)
    if is_error(value) then
        return passable(value)
    elseif type(value) == "string" then
        return passable(new(KINDS.UNKNOWN, value))
    end
    return nil
end

-- As a map of plain values, as it crosses the boundary of the VM.
local function to_map(err)
    return { kind = err[KIND], message = err[MESSAGE], retryable = err[RETRYABLE], details = err[DETAILS] }
end

local function from_map(map)
    if type(map) ~= "table" then
        return new(KINDS.INTERNAL, tostring(map))
    end
    return new(tostring(map.kind or ""), tostring(map.message or ""), map.retryable, map.details)
end

K.errors = {
    KINDS = KINDS,
    meta = meta,
    is_error = is_error,
    new = new,
    where = where,
    raise = raise,
    frames_of = frames_of,
    from_raised = from_raised,
    from_returned = from_returned,
    to_map = to_map,
    from_map = from_map,
    KIND = KIND,
    MESSAGE = MESSAGE,
    RETRYABLE = RETRYABLE,
    DETAILS = DETAILS,
    FRAMES = FRAMES,
}
