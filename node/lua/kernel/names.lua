-- Names: process.registry, on top of the table of names that the node keeps up to date here.
--
-- Looking up never waits; registering and unregistering is done by the node (module "names"). What changes in the
-- table comes from the node as well, before its answer: by then the name may have changed hands again.
local K = ...
local delivery, errors, operations, processes = K.delivery, K.errors, K.operations, K.processes
local names, by_pid = delivery.names, processes.by_pid
local type = type

local LOCAL, EVENTUAL, CONSISTENT, STRONG = 0, 1, 2, 3

local function check_text(value, position, name)
    if type(value) ~= "string" then
        error("bad argument #" .. position .. " to '" .. name .. "' (string expected, got " .. type(value) .. ")", 3)
    end
end

local function check_name(name)
    if name == "" or name:sub(1, 1) == "{" then
        return errors.new("Invalid", "a name can't be empty or begin with a brace", false)
    end
    return nil
end

local function scope_problem(scope)
    if scope ~= nil and scope ~= LOCAL and scope ~= EVENTUAL and scope ~= CONSISTENT and scope ~= STRONG then
        return errors.new("Invalid", "unknown scope; use a constant of process.registry", false)
    end
    return nil
end

-- The PID that has ``name`` now, or nil.
local function holder(name)
    local held = names[name]
    return held and held.pid
end

local function reserve(name, pid, scope)
    local err = check_name(name) or scope_problem(scope)
    if err then
        return nil, err
    end
    local ok
    ok, err = operations.call("names", "register", name, pid, scope)
    if err then
        return nil, err
    end
    local process = by_pid[pid]
    if process then
        process.named = true
    end
    return ok
end

-- Reserve ``name`` for a process that the current one is about to start, under ``pid``.
local function claim(name, pid)
    local by = K.turns.current.process
    by.claiming = by.claiming or {}
    by.claiming[pid] = true
    delivery.starting[pid] = by
    local ok, err = reserve(name, pid)
    delivery.starting[pid] = nil
    by.claiming[pid] = nil
    return ok, err
end

-- A process ended while it was about to start others: what they have got by now is given up.
local function give_up(process)
    for pid in next, process.claiming do
        delivery.starting[pid] = nil
        operations.put({ 53, pid, "", nil }, 4)
    end
end

local function release(name, pid, scope)
    local freed, err = operations.call("names", "unregister", name, pid, scope)
    if err then
        return false, err
    end
    return freed
end

local api = { LOCAL = LOCAL, EVENTUAL = EVENTUAL, CONSISTENT = CONSISTENT, STRONG = STRONG }

function api.register(name, pid, scope)
    check_text(name, 1, "register")
    local own = K.turns.current.process.pid
    if pid == nil then
        pid = own
    end
    check_text(pid, 2, "register")
    if scope == nil then
        scope = K.config.default_scope
    end
    return reserve(name, pid, scope)
end

function api.lookup(name)
    check_text(name, 1, "lookup")
    local pid = holder(name)
    if pid then
        return pid
    end
    return nil, errors.new("NotFound", "no process is registered as '" .. name .. "'", false)
end

function api.unregister(name, scope)
    check_text(name, 1, "unregister")
    local err = scope_problem(scope)
    if err then
        return false, err
    end
    return release(name, K.turns.current.process.pid, scope)
end

K.names = { api = api, holder = holder, claim = claim, give_up = give_up, release = release }
