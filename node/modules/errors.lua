-- Module errors: making and asking error objects. Kinds are constants; compare with them.
local K = ...
local kernel = K.errors
local KIND, MESSAGE, RETRYABLE, DETAILS, FRAMES =
    kernel.KIND, kernel.MESSAGE, kernel.RETRYABLE, kernel.DETAILS, kernel.FRAMES
local errors = {}

for name, kind in pairs(kernel.KINDS) do
    errors[name] = kind
end


local function check_fields(spec)
    if type(spec.message) ~= "string" then
        error("bad argument #1 to 'new' (field 'message': string expected, got " .. type(spec.message) .. ")", 3)
    elseif spec.kind ~= nil and type(spec.kind) ~= "string" then
        error("bad argument #1 to 'new' (field 'kind': string expected, got " .. type(spec.kind) .. ")", 3)
    elseif spec.retryable ~= nil and type(spec.retryable) ~= "boolean" then
        error("bad argument #1 to 'new' (field 'retryable': boolean expected, got " .. type(spec.retryable) .. ")", 3)
    elseif spec.details ~= nil and type(spec.details) ~= "table" then
        error("bad argument #1 to 'new' (field 'details': table expected, got " .. type(spec.details) .. ")", 3)
    end
end

-- errors.new("message") or errors.new{message =, kind =, retryable =, details =}.
function errors.new(spec)
    local err
    if type(spec) == "string" then
        err = kernel.new(kernel.KINDS.UNKNOWN, spec)
    elseif type(spec) == "table" then
        check_fields(spec)
        err = kernel.new(spec.kind or kernel.KINDS.UNKNOWN, spec.message, spec.retryable, spec.details)
    else
        error("bad argument #1 to 'new' (string or table expected, got " .. type(spec) .. ")", 2)
    end
    err[FRAMES] = kernel.frames_of(3)
    return err
end

-- The same error with something in front of its message.
function errors.wrap(err, message)
    if type(message) ~= "string" then
        error("bad argument #2 to 'wrap' (string expected, got " .. type(message) .. ")", 2)
    elseif err == nil then
        return nil
    end
    if not kernel.is_error(err) then
        err = kernel.from_returned(err) or kernel.new(kernel.KINDS.UNKNOWN, kernel.from_raised(err)[MESSAGE])
    end
    local wrapped = kernel.new(err[KIND], message .. ": " .. err[MESSAGE], err[RETRYABLE], err[DETAILS])
    wrapped[FRAMES] = err[FRAMES] or kernel.frames_of(3)
    return wrapped
end

function errors.is(err, kind)
    return kernel.is_error(err) and err[KIND] == kind
end

-- {thread, frames = {{source, line, name}}} of where the error was made, or nil.
function errors.call_stack(err)
    local frames = kernel.is_error(err) and err[FRAMES]
    if not frames then
        return nil
    end
    local copied = {}
    for i = 1, #frames do
        copied[i] = { source = frames[i].source, line = frames[i].line, name = frames[i].name or "" }
    end
    return { thread = K.turns.current.process.pid, frames = copied }
end

return errors
