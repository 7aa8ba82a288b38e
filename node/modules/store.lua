-- Module store: handles to key-value stores. A handle holds no resource: release only forbids further use.

return function(env)
    local call, errors = env.call, env.errors
    local error, setmetatable, type = error, setmetatable, type
    local store = {
        backend = { MEMORY = "memory", SQL = "sql", KV_RAFT = "kv.raft", KV_CRDT = "kv.crdt", UNKNOWN = "" },
        consistency = { LINEARIZABLE = "linearizable", EVENTUAL = "eventual", LOCAL = "local", UNKNOWN = "" },
    }
    local Store = {}
    Store.__index = Store
    Store.__metatable = false

    local function invalid(message)
        return errors.new({ message = message, kind = errors.INVALID, retryable = false })
    end

    local function check(value, position, name, expected)
        if type(value) ~= expected then
            error("bad argument #" .. position .. " to '" .. name .. "' (" .. expected .. " expected, got " .. type(value) .. ")", 3)
        end
    end

    function store.get(id)
        check(id, 1, "get", "string")
        if id == "" then
            return nil, invalid("store id is empty; expected ns:name")
        end
        local _, err = call("store", "info", id)
        if err then
            return nil, err
        end
        return setmetatable({ _id = id, _released = false }, Store)
    end

    local function run(self, fn, ...)
        if self._released then
            return nil, invalid("store " .. self._id .. " was released; get it again")
        end
        return call("store", fn, self._id, ...)
    end

    -- For functions that answer false, not nil, beside an error.
    local function flag(value, err)
        if err then
            return false, err
        end
        return value
    end

    function Store:get(key)
        check(key, 1, "get", "string")
        return run(self, "get", key)
    end

    function Store:entry(key)
        check(key, 1, "entry", "string")
        return run(self, "entry", key)
    end

    function Store:has(key)
        check(key, 1, "has", "string")
        return flag(run(self, "has", key))
    end

    function Store:set(key, value, ttl)
        check(key, 1, "set", "string")
        return flag(run(self, "set", key, value, ttl))
    end

    function Store:put(key, value, options)
        check(key, 1, "put", "string")
        return run(self, "put", key, value, options)
    end

    function Store:delete(key)
        check(key, 1, "delete", "string")
        return flag(run(self, "delete", key))
    end

    function Store:list(options)
        return run(self, "list", options)
    end

    function Store:info()
        return run(self, "info")
    end

    function Store:release()
        self._released = true
        return true
    end

    return store
end
