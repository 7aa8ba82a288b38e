-- Clocks: the part of the module "time" that waits: sleep, after, timer, ticker.
--
-- What a duration or an instant is belongs to the module (node/modules/time.lua); here they are
-- whole nanoseconds. A ticker counts from the last tick that was due, so it doesn't drift;
-- ticks nobody takes are dropped, never queued.
local K = ...
local channels, codec, errors, timers, turns, values = K.channels, K.codec, K.errors, K.timers, K.turns, K.values
local rawmeta, yield, WAIT = debug.getmetatable, coroutine.yield, turns.WAIT
local error, setmetatable = error, setmetatable

local methods = {}
values.special[methods] = { what = "a timer" }

-- What a timer's channel gets; the module's instants once it is loaded.
local instant_of = function(nanoseconds)
    return nanoseconds
end

local function sleep(nanoseconds)
    turns.check_wait("time.sleep")
    local thread = turns.current
    if nanoseconds <= 0 then
        turns.ready(thread)
    else
        local err = timers.refusal(thread.process)
        if err then
            return nil, err
        end
        timers.arm({ process = thread.process, thread = thread }, nanoseconds)
    end
    yield(WAIT)
end

-- A timer and its channel; or nil and an error object.
local function fed_timer(nanoseconds, interval)
    local process = turns.current.process
    local err = timers.refusal(process)
    if err then
        return nil, err
    end
    local channel, state = channels.open_fed()
    local timer = { process = process, state = state, interval = interval }
    timers.arm(timer, nanoseconds)
    return timer, channel
end

local function state_of(object, name)
    local state = rawmeta(object)
    if not state or state.__index ~= methods then
        error("expected a timer: call it as timer:" .. name .. "()", 3)
    end
    return state
end

function methods.response(object)
    return state_of(object, "response").channel
end

function methods.channel(object)
    return state_of(object, "channel").channel
end

function methods.stop(object)
    return timers.stop(state_of(object, "stop").timer)
end

-- Returns whether it was still running.
function methods.reset(object, duration)
    local state = state_of(object, "reset")
    local nanoseconds, err = state.to_ns(duration)
    if not nanoseconds then
        return false, err
    end
    local old = state.timer
    local was_armed = timers.stop(old)
    local timer = { process = old.process, state = old.state, interval = old.interval and nanoseconds }
    timers.arm(timer, nanoseconds)
    state.timer = timer
    return was_armed
end

local function not_positive(name)
    return nil, errors.new("Invalid", "time." .. name .. ": expected a duration longer than 0", false)
end

-- Instants, durations and zones are values: they pass between processes, and leave the VM as text or number.
local function register_values(time)
    local instant = time.unix(0, 0)
    local meta = rawmeta(instant)
    if values.special[meta] then
        return
    end
    local duration_meta, zone_meta = rawmeta(time.parse_duration("1s")), rawmeta(time.utc)
    local function instant_text(value)
        return tostring(value:format(time.RFC3339NANO))
    end
    local function nanoseconds_of(value)
        return value:nanoseconds()
    end
    values.special[meta] = codec.typed("time", meta, { plain = instant_text })
    values.special[duration_meta] = codec.typed("duration", duration_meta, { plain = nanoseconds_of })
    values.special[zone_meta] = codec.register("zone", { same = true, plain = tostring }, time.pack_zone, time.unpack_zone)
    instant_of = function(nanoseconds)
        return time.unix(0, nanoseconds)
    end
end

-- Add what waits to the module's table of one process.
local function complete(time)
    local to_ns = time.to_ns
    register_values(time)
    time.to_ns, time.pack_zone, time.unpack_zone = nil, nil, nil

    function time.sleep(duration)
        local nanoseconds, err = to_ns(duration)
        if not nanoseconds then
            return nil, err
        end
        local _
        _, err = sleep(nanoseconds)
        if err then
            return nil, err
        end
    end

    function time.after(duration)
        local nanoseconds, err = to_ns(duration)
        if not nanoseconds then
            return nil, err
        end
        local timer, channel = fed_timer(nanoseconds)
        if not timer then
            return nil, channel
        end
        return channel
    end

    local function define(name, repeating)
        time[name] = function(duration)
            local nanoseconds, err = to_ns(duration)
            if not nanoseconds then
                return nil, err
            elseif nanoseconds <= 0 then
                return not_positive(name)
            end
            local timer, channel = fed_timer(nanoseconds, repeating and nanoseconds or nil)
            if not timer then
                return nil, channel
            end
            local state = { __index = methods, __metatable = false, timer = timer, channel = channel, to_ns = to_ns }
            return setmetatable({}, state)
        end
    end

    define("timer", false)
    define("ticker", true)
    return time
end

timers.set_value(function(nanoseconds)
    return instant_of(nanoseconds)
end)

K.clocks = { complete = complete }
