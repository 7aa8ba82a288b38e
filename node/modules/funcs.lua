-- Module funcs: calling functions. A call is a process of its own in this VM, for as long as it takes.
local K = ...
local channels, errors, mailbox, processes, spawning, timers, turns, values =
    K.channels, K.errors, K.mailbox, K.processes, K.spawning, K.timers, K.turns, K.values
local ready, park = turns.ready, turns.park
local rawmeta = K.rawmeta

local NO_SETTINGS = {}

local function invalid(message)
    return nil, errors.new("Invalid", message, false)
end

local function check_target(id)
    if type(id) ~= "string" then
        error("bad argument #1 (string expected, got " .. type(id) .. ")", 4)
    elseif id == "" then
        return errors.new("Invalid", "target of the call is empty; expected namespace:name", false)
    end
    local namespace, name = id:match("^([^:]*):(.*)$")
    if not namespace or namespace == "" then
        return errors.new("Invalid", "target '" .. id .. "' has no namespace; expected namespace:name", false)
    elseif name == "" then
        return errors.new("Invalid", "target '" .. id .. "' has no name; expected namespace:name", false)
    end
    return nil
end

local MILLISECOND = 1000000
local LONGEST_PAUSE = 1e18 -- nanoseconds: 31 years, whatever the options multiply to
local NEVER_AGAIN = { Invalid = true, PermissionDenied = true, Internal = true, Canceled = true }

local function may_retry(failure)
    return failure[errors.RETRYABLE] ~= false and not NEVER_AGAIN[failure[errors.KIND]]
end

local function pause_after(retry, attempt)
    local pause = retry.initial_delay * retry.backoff_factor ^ (attempt - 1)
    return math.min(pause, retry.max_delay, LONGEST_PAUSE) // 1 | 0
end

local attempt_call

-- One attempt ended. ``call`` holds its process while it lasts: attempts and what is between them.
local function attempt_ended(call, value, failure)
    local process, retry = call.process, call.settings.retry
    if failure and retry and not process.dead and call.attempts < retry.max_attempts and may_retry(failure) then
        call.timer = timers.after(process, pause_after(retry, call.attempts), function()
            local err = attempt_call(call)
            if err then
                attempt_ended(call, nil, err)
            end
        end)
        return
    end
    process.holds = process.holds - 1
    if process.successor then
        K.moving.settle(process.successor)
    elseif not process.dead then
        call.on_end(values.copy_or_nil(value), values.copy_or_nil(failure))
    end
end

-- Returns an error object when the function could not be started.
function attempt_call(call)
    local process, settings, called, err = call.process, call.settings, nil, nil
    call.attempts = call.attempts + 1
    local arguments = settings.retry and values.copy_list(call.arguments.n, call.arguments) or call.arguments
    local context = settings.context or process.context
    local function on_end(value, failure)
        if process.calls then
            process.calls[called] = nil
        end
        attempt_ended(call, value, failure)
    end
    called, err = spawning.start_call(call.entry, arguments, process.pid, context, settings.timeout, on_end)
    if not called then
        return err
    end
    call.called = called
    process.calls = process.calls or {}
    process.calls[called] = true
    return nil
end

-- Start the call; ``on_end(value, err)``. Returns it, or nil and an error object.
local function start(id, settings, count, list, on_end)
    local err = check_target(id)
    if err then
        return nil, err
    end
    local process = turns.current.process
    local arguments, entry
    arguments, err = values.copy_list(count, list)
    if not arguments then
        return nil, err
    end
    turns.check_wait("funcs")
    entry, err = spawning.code_for(id, "function")
    if not entry then
        return nil, err
    end
    local call = { process = process, entry = entry, arguments = arguments, settings = settings, attempts = 0, on_end = on_end }
    err = attempt_call(call)
    if err then
        return nil, err
    end
    process.holds = process.holds + 1
    return call
end

-- Give a call up: the attempt that runs ends, none follows.
local function give_up(call, err)
    call.on_end = function() end
    call.settings = NO_SETTINGS
    if call.timer and timers.stop(call.timer) then
        attempt_ended(call, nil, err)
    else
        processes.kill(call.called, "killed", err)
    end
end

local function call(settings, id, count, list)
    local thread = turns.current
    local started, err = start(id, settings, count, list, function(value, failure)
        ready(thread, value, failure)
    end)
    if not started then
        return nil, err
    end
    local value, failure = park()
    if failure then
        return nil, failure
    end
    return value
end

-- Futures: the channel of a call that runs, and what became of it. Their contents are their metatable.
local future_methods = {}
values.special[future_methods] = { what = "a future" }

local function future_state(future, name)
    local state = rawmeta(future)
    if not state or state.__index ~= future_methods then
        error("expected a future: call it as future:" .. name .. "()", 3)
    end
    return state
end

function future_methods.response(future)
    return future_state(future, "response").channel
end

function future_methods.channel(future)
    return future_state(future, "channel").channel
end

function future_methods.is_complete(future)
    return future_state(future, "is_complete").complete
end

function future_methods.is_canceled(future)
    return future_state(future, "is_canceled").canceled
end

function future_methods.result(future)
    local state = future_state(future, "result")
    if not state.complete then
        return nil, nil
    elseif state.failure then
        return nil, state.failure
    end
    return mailbox.new_payload(state.value)
end

function future_methods.error(future)
    local failure = future_state(future, "error").failure
    return failure, failure ~= nil
end

local function settle(state, value, failure)
    if state.complete then
        return
    end
    state.complete, state.value, state.failure = true, value, failure
    channels.push(state.feed, mailbox.new_payload(failure or value))
end

function future_methods.cancel(future)
    local state = future_state(future, "cancel")
    if state.complete then
        return false, errors.new("Conflict", "the call has ended already", false)
    end
    state.canceled = true
    local err = errors.new("Canceled", "the call was canceled", false)
    settle(state, nil, err)
    give_up(state.call, err)
    return true
end

local function async(settings, id, count, list)
    local channel, feed = channels.open_fed()
    local state = {
        __index = future_methods,
        __metatable = false,
        channel = channel,
        feed = feed,
        complete = false,
        canceled = false,
    }
    local started, err = start(id, settings, count, list, function(value, failure)
        settle(state, value, failure)
    end)
    if not started then
        return nil, err
    end
    state.call = started
    return setmetatable({}, state)
end

-- Executors: the settings of calls, never changed but copied. Their contents are their metatable.
local executor_methods = {}
values.special[executor_methods] = { what = "an executor" }
local new_executor

local function settings_of(executor, name)
    local state = rawmeta(executor)
    if not state or state.__index ~= executor_methods then
        error("expected an executor: call it as executor:" .. name .. "()", 3)
    end
    return state.settings
end

function executor_methods.with_context(executor, context)
    local settings = settings_of(executor, "with_context")
    local copied, problem = values.copy(context)
    if type(context) ~= "table" or problem then
        return invalid("context: expected a table of plain data" .. (problem and "; " .. problem or ""))
    end
    local inherited = settings.context or turns.current.process.context
    return new_executor({ context = values.merged(inherited, copied), timeout = settings.timeout, retry = settings.retry })
end

-- Milliseconds or a duration, in nanoseconds.
local function nanoseconds_of(value)
    if type(value) == "number" then
        return value * MILLISECOND
    end
    local duration = K.sandbox.module_for(turns.current.process, "time").parse_duration(value)
    return duration and duration:nanoseconds()
end

-- The option ``retry`` as it is used, or nil and what is wrong with it.
local function retry_of(option)
    if type(option) ~= "table" then
        return nil, "option 'retry': expected a table with max_attempts"
    end
    local most, factor = rawget(option, "max_attempts"), rawget(option, "backoff_factor") or 2
    if math.type(most) ~= "integer" or most < 1 then
        return nil, "option 'retry.max_attempts': expected a whole number >= 1"
    elseif type(factor) ~= "number" or not (factor >= 1) then
        return nil, "option 'retry.backoff_factor': expected a number >= 1"
    end
    local first = nanoseconds_of(rawget(option, "initial_delay") or 100)
    local longest = first and nanoseconds_of(rawget(option, "max_delay") or math.max(10000, first / MILLISECOND))
    if not first or not longest or not (first > 0 and longest >= first) then
        return nil, "option 'retry': expected initial_delay > 0 and max_delay >= initial_delay, each milliseconds or a duration"
    end
    return { max_attempts = most, backoff_factor = factor, initial_delay = first, max_delay = longest }
end

function executor_methods.with_options(executor, options)
    local settings = settings_of(executor, "with_options")
    if type(options) ~= "table" then
        return invalid("options: expected a table, got " .. type(options))
    end
    local err = spawning.missing_option(options)
    if err then
        return nil, err
    end
    local timeout, retry, problem = rawget(options, "timeout"), rawget(options, "retry"), nil
    if timeout ~= nil and not (type(timeout) == "number" and timeout > 0) then
        return invalid("option 'timeout': expected milliseconds > 0")
    elseif retry ~= nil then
        retry, problem = retry_of(retry)
        if problem then
            return invalid(problem)
        end
    end
    return new_executor({
        context = settings.context,
        timeout = timeout or settings.timeout,
        retry = retry or settings.retry,
    })
end

local function no_security()
    return nil, errors.new("Unavailable", "actors and scopes need the module 'security', which is not in this version", false)
end

executor_methods.with_actor, executor_methods.with_scope = no_security, no_security

function executor_methods.call(executor, id, ...)
    return call(settings_of(executor, "call"), id, select("#", ...), { ... })
end

function executor_methods.async(executor, id, ...)
    return async(settings_of(executor, "async"), id, select("#", ...), { ... })
end

function new_executor(settings)
    return setmetatable({}, { __index = executor_methods, __metatable = false, settings = settings })
end

return {
    call = function(id, ...)
        return call(NO_SETTINGS, id, select("#", ...), { ... })
    end,
    async = function(id, ...)
        return async(NO_SETTINGS, id, select("#", ...), { ... })
    end,
    new = function()
        return new_executor({})
    end,
}
