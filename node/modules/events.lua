-- Module events: publish and subscribe. A subscription is a stream of {system, kind, path, data}.

return function(env)
    local call, stream, errors = env.call, env.stream, env.errors
    local type, setmetatable = type, setmetatable
    local events = {}

    local function check_text(value, position, name)
        if type(value) ~= "string" then
            error("bad argument #" .. position .. " to '" .. name .. "' (string expected, got " .. type(value) .. ")", 3)
        end
    end

    local function check_filled(value, what)
        if value == "" then
            return errors.new({ message = what .. " is empty", kind = errors.INVALID, retryable = false })
        end
        return nil
    end

    local Subscription = {}
    Subscription.__index = Subscription
    Subscription.__metatable = false

    function Subscription:channel()
        return self._channel
    end

    function Subscription:close()
        if not self._closed then
            self._closed = true
            call("events", "unsubscribe", self._stream)
        end
        return true
    end

    function events.subscribe(system, kind)
        check_text(system, 1, "subscribe")
        if kind ~= nil then
            check_text(kind, 2, "subscribe")
        end
        local err = check_filled(system, "system")
        if err then
            return nil, err
        end
        local channel, id = stream("events", "subscribe", system, kind or "")
        if not channel then
            return nil, id
        end
        return setmetatable({ _channel = channel, _stream = id, _closed = false }, Subscription)
    end

    function events.send(system, kind, path, data)
        check_text(system, 1, "send")
        check_text(kind, 2, "send")
        check_text(path, 3, "send")
        local err = check_filled(system, "system") or check_filled(kind, "kind") or check_filled(path, "path")
        if err then
            return false, err
        end
        local ok
        ok, err = call("events", "send", system, kind, path, data)
        if err then
            return false, err
        end
        return ok
    end

    return events
end
