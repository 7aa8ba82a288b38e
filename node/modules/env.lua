-- Module env: declared environment variables.

return function(env)
    local call, errors = env.call, env.errors
    local error, type = error, type
    local module = {}

    local function check_key(key, name)
        if type(key) ~= "string" then
            error("bad argument #1 to '" .. name .. "' (string expected, got " .. type(key) .. ")", 3)
        end
        if key == "" then
            return errors.new({ message = "name of the variable is empty", kind = errors.INVALID, retryable = false })
        end
        return nil
    end

    function module.get(key)
        local err = check_key(key, "get")
        if err then
            return nil, err
        end
        return call("env", "get", key)
    end

    function module.set(key, value)
        local err = check_key(key, "set")
        if err then
            return false, err
        end
        local ok
        ok, err = call("env", "set", key, value)
        if err then
            return false, err
        end
        return ok
    end

    function module.get_all()
        return call("env", "get_all")
    end

    return module
end
