-- Spawning: how processes and function calls come to be, from Lua and from other nodes.
--
-- On this host it is all Lua: copy the arguments, start. Only code that was never used waits for
-- the registry. On another host a SPAWN envelope goes out and the caller waits for its REPLY.
local K = ...
local code, errors, operations, processes, sendorder, signals, timers, turns, values =
    K.code, K.errors, K.operations, K.processes, K.sendorder, K.signals, K.timers, K.turns, K.values
local config = K.config
local ready, yield, WAIT = turns.ready, coroutine.yield, turns.WAIT
local find, format, match, next, tostring, type = string.find, string.format, string.match, next, tostring, type

local OK, ERROR = operations.OK, 1
local SPAWN_DEADLINE = 10 -- seconds
local MILLISECOND = 1e6 -- a float, which does not wrap around

local own_host = config.node .. "@" .. config.host

-- Options of the original that need a part which is not there. Any other option has no effect.
local MISSING = {
    { "^network$", "overlay networks (entries of the kinds network.*)" },
    { "^temporal%.", "workflow hosts" },
    { "^activity%.", "workflows" },
}

local function missing_option(options)
    for name in next, options do
        for _, missing in next, MISSING do
            if type(name) == "string" and name:find(missing[1]) then
                local text = "option '" .. name .. "' needs " .. missing[2] .. ", which are not in this version"
                return errors.new("Unavailable", text, false)
            end
        end
    end
    return nil
end
local function is_own_host(host)
    return host == config.host or host == own_host
end

-- "node@ns:host" or "ns:host" (of the own node) as the address of an envelope, and the node.
local function address_of(host)
    local node, name = match(host, "^([^@]+)@(.+)$")
    if not node then
        node, name = config.node, host
    end
    return "{" .. node .. "@" .. name .. "|}", node
end

local function check_kind(entry, wanted)
    if find(entry.kind, "^" .. wanted .. "%.") then
        return nil
    end
    local text = format("%s is a %s; expected a %s entry", entry.id, entry.kind, wanted)
    return errors.new("Invalid", text, false)
end

local function code_for(id, wanted)
    local entry, err = code.at_hand(id)
    if not entry then
        entry, err = code.get(id)
        if not entry then
            return nil, err
        end
    end
    err = check_kind(entry, wanted)
    if err then
        return nil, err
    end
    return entry
end

-- Spawn or signal: when the name is taken, its holder gets the startup messages. Returns the
-- holder's PID; or nil when the name is now reserved for ``pid``; or nil and an error object.
local function claim_name(name, pid, parent, options)
    for _ = 1, 2 do
        local held = K.names.holder(name)
        if held then
            local ok, err = K.delivery.send_startup(parent, held, options.messages, name)
            if ok then
                return held
            end
            return nil, err
        end
        local ok, err = K.names.claim(name, pid)
        if ok then
            return nil
        elseif err[errors.KIND] ~= "AlreadyExists" then
            return nil, err
        end
    end
    return nil, errors.new("Conflict", "name '" .. name .. "' changes hands at this moment; try again", true)
end

-- Start ``id`` here. ``options``: monitor, link, owned, context, name, messages, tracked. With ``owned`` the process
-- ends with its parent; it is a function that says whether the parent could be reached since it asked.
-- Returns the PID and the process's record (none when a name led to another), or nil and an error object.
local function spawn_here(id, arguments, parent, options)
    local entry, err = code_for(id, "process")
    if not entry then
        return nil, err
    end
    local pid = processes.next_pid(config.host)
    local name = options.name
    if name then
        local held
        held, err = claim_name(name, pid, parent, options)
        if held or err then
            return held, err
        end
    end
    local process
    if options.owned and not options.owned() then
        local text = "the node of its supervisor could not be reached all the time, or takes this one for ended"
        err = errors.new("Unavailable", text, true, { not_now = true }) -- no failure of the process
    else
        process, err = processes.spawn(entry, arguments, parent, options.context, pid)
    end
    if not process then
        if name then
            K.names.release(name, pid)
        end
        return nil, err
    end
    process.named = name ~= nil
    process.tracked = options.tracked
    process.owner = options.owned and parent
    signals.attach(process, parent, options.monitor, options.link)
    K.delivery.send_startup(parent, pid, options.messages)
    return pid, process
end

-- The options as they leave the VM: what is not set is not there.
local function outward_options(options)
    local messages
    for i, message in next, options.messages or {} do
        local list = message[2]
        local payloads = {}
        for position = 1, list.n do
            payloads[position] = list[position] == nil and K.null or list[position]
        end
        messages = messages or {}
        messages[i] = { message[1], payloads }
    end
    return {
        monitor = options.monitor or nil,
        link = options.link or nil,
        name = options.name,
        messages = messages,
        context = options.context,
    }
end

-- Start ``id`` on another host and wait. ``on_pid`` is called as the answer comes in.
local function spawn_there(id, host, arguments, process, options, on_pid, worker)
    turns.check_wait("process.spawn")
    local address, node = address_of(host)
    address = worker or address
    local envelope = { 2, address, process.pid, 0, id, arguments, outward_options(options) }
    if process.order and options.messages then -- to a child, or to whoever has the name by then
        sendorder.note_all(process.order)
    end
    local function adopt(pid)
        if on_pid then
            on_pid(pid)
        else
            signals.adopted(process, pid, options.monitor, options.link)
        end
    end
    local status, value = operations.request(process, node, envelope, 6, SPAWN_DEADLINE, adopt)
    if status == OK then
        return value
    end
    return nil, operations.reply_error(status, value, host)
end

-- process.spawn and its variants.
local function spawn(id, host, count, list, options)
    local process = turns.current.process
    local arguments, err = values.copy_list(count, list)
    if not arguments then
        return nil, err
    end
    if not is_own_host(host) then
        return spawn_there(id, host, arguments, process, options)
    end
    local slot = K.workers.next_slot()
    if slot and turns.can_wait() then
        return spawn_there(id, host, arguments, process, options, nil, K.workers.address_of(slot))
    end
    return spawn_here(id, arguments, process.pid, options)
end

local function outcome(value, err)
    if err then
        return nil, values.copy_or_nil(err)
    end
    return values.copy_or_nil(value)
end

-- Start ``id`` and wait for its end; returns its value, or nil and its error.
local function execute(id, host, count, list, options)
    local process = turns.current.process
    turns.check_wait("process.exec")
    options.name = nil
    local arguments, err = values.copy_list(count, list)
    if not arguments then
        return nil, err
    end
    local thread = turns.current
    if is_own_host(host) then
        local pid, child = spawn_here(id, arguments, process.pid, options)
        if not pid then
            return nil, child
        end
        process.holds = process.holds + 1
        signals.await(process, pid, function(value, failure)
            process.holds = process.holds - 1
            if not process.dead then
                ready(thread, value, failure)
            end
        end, child)
        return outcome(yield(WAIT))
    end
    options.monitor = true
    local pid, problem = spawn_there(id, host, arguments, process, options, function(child)
        if process.dead then
            operations.put({ 5, child, process.pid, 0 }, 4)
            return
        end
        process.holds = process.holds + 1
        signals.await(process, child, function(value, failure)
            process.holds = process.holds - 1
            if thread.awaiting then
                ready(thread, value, failure)
            else -- it ended before the caller came to wait
                thread.arrived = { value, failure }
            end
        end)
    end)
    if not pid then
        return nil, problem
    end
    local arrived = thread.arrived
    if arrived then
        thread.arrived = nil
        return outcome(arrived[1], arrived[2])
    end
    thread.awaiting = true
    local value, failure = yield(WAIT)
    thread.awaiting = nil
    return outcome(value, failure)
end

-- Start a function in a process of its own. ``on_end(value, err)`` gets the outcome, as copies; a
-- timeout in milliseconds ends it with Timeout. Returns the process, or nil and an error object.
local function start_call(entry, arguments, parent, context, timeout, on_end)
    local timer
    local process, err = processes.spawn_function(entry, arguments, parent, context, function(ended)
        if timer then
            timers.stop(timer)
        end
        on_end(ended.value, ended.err)
    end)
    if not process then
        return nil, err
    end
    if timeout then
        timer = timers.after(processes.system, timeout * MILLISECOND // 1, function()
            local text = format("function %s took longer than %s ms", entry.id, tostring(timeout))
            processes.kill(process, "timeout", errors.new("Timeout", text, true))
        end)
    end
    return process
end

-- SPAWN from outside.
local function spawn_received(envelope)
    local parent, id, arguments, options = envelope[3], envelope[5], envelope[6], envelope[7]
    local pid, err = spawn_here(id, arguments, parent, options)
    if pid then
        operations.reply(envelope, OK, pid)
    else
        operations.reply(envelope, ERROR, err)
    end
end

-- CALL from outside.
local function call_received(envelope)
    local caller, id, arguments, options = envelope[3], envelope[5], envelope[6], envelope[7]
    local entry, err = code_for(id, "function")
    local process
    if entry then
        process, err = start_call(entry, arguments, caller, options.context, options.timeout, function(value, failure)
            if failure then
                operations.reply(envelope, ERROR, failure)
            else
                operations.reply(envelope, OK, value)
            end
        end)
    end
    if not process then
        operations.reply(envelope, ERROR, err)
    end
end

local function is_sound(envelope)
    local timeout = type(envelope[7]) == "table" and envelope[7].timeout
    return type(envelope[3]) == "string" and type(envelope[5]) == "string" and type(envelope[6]) == "table"
        and type(envelope[7]) == "table" and (not timeout or type(timeout) == "number")
end

-- Both may have to wait for code: then in a thread of the kernel.
local function received(envelope)
    if not is_sound(envelope) then
        operations.reply(envelope, ERROR, { kind = "Invalid", message = "not a request a host can take" })
        return
    end
    envelope[6].n = K.codec.length_of(envelope[6])
    local options = envelope[7]
    options.owned = options.owner and signals.watch_reach(envelope[3]) or nil
    local handle = envelope[1] == 2 and spawn_received or call_received
    if code.at_hand(envelope[5]) and not (type(envelope[7]) == "table" and envelope[7].name) then
        handle(envelope)
    else
        processes.run_in_kernel(function()
            handle(envelope)
        end)
    end
end

K.spawning = {
    missing_option = missing_option,
    spawn = spawn,
    execute = execute,
    code_for = code_for,
    start_call = start_call,
    received = received,
}
