-- Module system: the node, the cluster, its locks, and what the node is made of.
local K = ...
local turns = K.turns

return function(env)
    local call, errors = env.call, env.errors
    local error, math_type, type = error, math.type, type
    local system = {}

    local function check_text(value, position, name)
        if type(value) ~= "string" then
            error("bad argument #" .. position .. " to '" .. name .. "' (string expected, got " .. type(value) .. ")", 3)
        end
    end

    local function check_integer(value, position, name)
        if math_type(value) ~= "integer" then
            error("bad argument #" .. position .. " to '" .. name .. "' (integer expected, got " .. type(value) .. ")", 3)
        end
    end

    -- A table of functions that ask the node for what is named ``group.function``.
    local function asking(group, names)
        local functions = {}
        for i = 1, #names do
            local fn = group .. "." .. names[i]
            functions[names[i]] = function()
                return call("system", fn)
            end
        end
        return functions
    end

    -- What this runtime has no counterpart of: nil, and why.
    local function missing(what, why)
        return function()
            local message = "system." .. what .. ": " .. why
            return nil, errors.new({ message = message, kind = errors.UNAVAILABLE, retryable = false })
        end
    end

    local function no_raft(name)
        return function()
            local message = "system.raft." .. name .. ": raft not available; the cluster agrees through etcd"
            return nil, errors.new({ message = message, kind = errors.INTERNAL, retryable = false })
        end
    end

    system.node = asking("node", { "id", "addr", "role" })
    system.cluster = asking("cluster", { "members", "leader", "size" })
    system.process = asking("process", { "pid", "hostname", "cwd" })
    system.hosts = asking("hosts", { "list" })
    system.supervisor = asking("supervisor", { "states" })
    system.memory = asking("memory", { "stats", "allocated", "get_limit" })
    system.runtime = asking("runtime", { "goroutines", "cpu_count" })
    system.gc = {}
    system.raft = {}
    system.lock = {}

    for _, name in ipairs({ "is_leader", "is_member", "role", "term", "commit_index", "stats" }) do
        system.raft[name] = no_raft(name)
    end

    local OWN_GARBAGE = "every Lua VM collects its own garbage, step by step; it can't be told when"
    for _, name in ipairs({ "collect", "set_percent", "get_percent" }) do
        system.gc[name] = missing("gc." .. name, OWN_GARBAGE)
    end
    system.memory.heap_objects = missing("memory.heap_objects", "objects are not counted")
    system.memory.set_limit = missing("memory.set_limit", "a host's memory is limited in its entry")

    function system.runtime.max_procs(number)
        if number ~= nil then
            check_integer(number, 1, "max_procs")
            return missing("runtime.max_procs", "the workers of a host stand in its entry")()
        end
        return call("system", "runtime.max_procs")
    end

    function system.modules()
        return call("system", "modules")
    end

    function system.hosts.processes(host)
        check_text(host, 1, "processes")
        return call("system", "hosts.processes", host)
    end

    function system.supervisor.state(id)
        check_text(id, 1, "state")
        return call("system", "supervisor.state", id)
    end

    function system.exit(code)
        if code == nil then
            code = 0
        end
        check_integer(code, 1, "exit")
        return call("system", "exit", code)
    end

    function system.lock.acquire(name)
        check_text(name, 1, "acquire")
        local process = turns.current.process
        process.named = true -- the node is told of its end, and gives the lock back
        process.owns = true
        local held, err = call("locks", "acquire", name)
        if err and err:kind() == errors.ALREADY_EXISTS then
            return false, err
        elseif err then
            return nil, err
        end
        return held
    end

    function system.lock.release(name)
        check_text(name, 1, "release")
        return call("locks", "release", name)
    end

    -- The fencing token: what the holder writes elsewhere carries it, and is refused there once a higher one was seen.
    function system.lock.fence(name)
        check_text(name, 1, "fence")
        return call("locks", "fence", name)
    end

    return system
end
