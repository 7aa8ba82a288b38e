-- Module process: the process itself, its messages, its children and whom it watches.
local K = ...
local delivery, errors, mailbox, moving, operations, processes, signals, spawning, turns, values =
    K.delivery, K.errors, K.mailbox, K.moving, K.operations, K.processes, K.signals, K.spawning, K.turns, K.values
local rawmeta = K.rawmeta

local OPTIONS = { trap_links = "boolean", upgradable = "boolean", migratable = "boolean" }

local process = {
    send = delivery.send,
    registry = K.names.api,
    event = {
        CANCEL = "pid.cancel",
        EXIT = "pid.exit",
        LINK_DOWN = "pid.link.down",
        OUTDATED = "pid.outdated",
        MIGRATE = "pid.migrate",
    },
}

local function own()
    return turns.current.process
end

local function invalid(message)
    return nil, errors.new("Invalid", message, false)
end

function process.pid()
    return turns.current.process.pid
end

function process.id()
    return turns.current.process.entry
end

-- A function that acts on the PID behind a destination.
local function on_pid(name, act)
    return function(destination, ...)
        local pid, err = delivery.pid_of(destination, name)
        if not pid then
            return nil, err
        end
        return act(own(), pid, ...)
    end
end

process.monitor = on_pid("monitor", signals.monitor)
process.unmonitor = on_pid("unmonitor", signals.unmonitor)
process.link = on_pid("link", signals.link)
process.unlink = on_pid("unlink", signals.unlink)
process.terminate = on_pid("terminate", signals.terminate)
process.cancel = on_pid("cancel", function(caller, pid, reason)
    if reason ~= nil and type(reason) ~= "string" then
        error("bad argument #2 to 'cancel' (string expected, got " .. type(reason) .. ")", 3)
    end
    return signals.cancel(caller, pid, reason or "")
end)

-- The fencing token of the service this process is an instance of; see ``node/modules/process.py``.
function process.fence()
    return operations.call("process", "fence")
end

-- Move a process, by its PID or name, to a node; the milliseconds that took. See ``node/modules/process.py``.
function process.move(pid, node)
    return operations.call("process", "move", pid, node)
end

function process.get_options()
    local caller = own()
    return {
        trap_links = caller.trap_links == true,
        upgradable = caller.upgradable == true,
        migratable = caller.migratable == true,
    }
end

function process.set_options(options)
    if type(options) ~= "table" then
        error("bad argument #1 to 'set_options' (table expected, got " .. type(options) .. ")", 2)
    end
    for name, value in next, options do
        if not OPTIONS[name] then
            local text = "unknown option '" .. tostring(name) .. "'; known: trap_links, upgradable, migratable"
            return false, errors.new("Invalid", text, false)
        elseif type(value) ~= OPTIONS[name] then
            local text = "option '" .. name .. "': expected a " .. OPTIONS[name] .. ", got a " .. type(value)
            return false, errors.new("Invalid", text, false)
        end
    end
    local caller = own()
    if options.migratable and caller.is_call then
        local text = "a function can't be moved: its caller waits for it where it runs; move the caller"
        return false, errors.new("Invalid", text, false)
    end
    for name, value in next, options do
        caller[name] = value
    end
    if options.migratable ~= nil then
        moving.allowed(caller)
    end
    return true
end

function process.inbox()
    return mailbox.inbox(own())
end

function process.events()
    return mailbox.events(own())
end

function process.listen(topic, options)
    if type(topic) ~= "string" then
        error("bad argument #1 to 'listen' (string expected, got " .. type(topic) .. ")", 2)
    elseif topic == "" or topic:sub(1, 1) == "@" then
        return invalid("topic '" .. topic .. "': expected a name that doesn't begin with '@'")
    end
    return mailbox.listen(own(), topic, type(options) == "table" and options.message == true)
end

function process.unlisten(channel)
    return mailbox.unlisten(channel)
end

-- Start over with other code (or the same) and new arguments; PID, mail, names and watchers stay. One that is asked to
-- leave starts over where it is to go.
function process.upgrade(id, ...)
    if id ~= nil and type(id) ~= "string" then
        error("bad argument #1 to 'upgrade' (string or nil expected, got " .. type(id) .. ")", 2)
    end
    local caller = own()
    turns.check_wait("process.upgrade")
    local arguments, err = values.copy_list(select("#", ...), { ... }, values.copy_state)
    if not arguments then
        error(err, 0)
    end
    local entry
    entry, err = spawning.code_for(id or caller.entry, caller.is_call and "function" or "process")
    if not entry then
        error(err, 0)
    end
    if caller.moving then
        moving.hand_over(caller, entry, arguments)
    else
        processes.replace(caller, entry, arguments)
    end
    turns.abandon()
end

-- Builders: how to spawn, never changed but copied. Their contents are their metatable.
local methods = {}
values.special[methods] = { what = "a spawn builder" }

local function settings_of(builder, name)
    local state = rawmeta(builder)
    if not state or state.__index ~= methods then
        error("expected a spawn builder: call it as builder:" .. name .. "()", 3)
    end
    return state.settings
end

local function new_builder(settings, name, value)
    local copied = { context = settings.context, name = settings.name, messages = settings.messages }
    if name then
        copied[name] = value
    end
    return setmetatable({}, { __index = methods, __metatable = false, settings = copied })
end

local function check_table(value, name)
    if type(value) ~= "table" then
        error("bad argument #1 to '" .. name .. "' (table expected, got " .. type(value) .. ")", 3)
    end
    local copied, problem = values.copy(value)
    if problem then
        error("bad argument #1 to '" .. name .. "' (" .. problem .. ")", 3)
    end
    return copied
end

function methods.with_context(builder, context)
    local settings = settings_of(builder, "with_context")
    return new_builder(settings, "context", values.merged(settings.context, check_table(context, "with_context")))
end

function methods.with_options(builder, options)
    local settings = settings_of(builder, "with_options")
    local err = spawning.missing_option(check_table(options, "with_options"))
    if err then
        return nil, err
    end
    return new_builder(settings)
end

function methods.with_name(builder, name)
    local settings = settings_of(builder, "with_name")
    if type(name) ~= "string" or name == "" then
        error("bad argument #1 to 'with_name' (a name expected, got " .. type(name) .. ")", 2)
    end
    return new_builder(settings, "name", name)
end

function methods.with_message(builder, topic, ...)
    local settings = settings_of(builder, "with_message")
    if type(topic) ~= "string" or topic == "" or topic:sub(1, 1) == "@" then
        error("bad argument #1 to 'with_message' (a topic that doesn't begin with '@' expected)", 2)
    end
    local list, err = values.copy_list(select("#", ...), { ... })
    if not list then
        error(err, 0)
    end
    local messages = {}
    for i, message in ipairs(settings.messages or {}) do
        messages[i] = message
    end
    messages[#messages + 1] = { topic, list }
    return new_builder(settings, "messages", messages)
end

local function no_security(name)
    return function(builder)
        settings_of(builder, name)
        local text = name .. " needs the module 'security', which is not in this version"
        return nil, errors.new("Unavailable", text, false)
    end
end

methods.with_actor = no_security("with_actor")
methods.with_scope = no_security("with_scope")

local function check_target(id, host, level)
    if type(id) ~= "string" then
        error("bad argument #1 (entry id expected, got " .. type(id) .. ")", level + 1)
    elseif type(host) ~= "string" then
        error("bad argument #2 (host id expected, got " .. type(host) .. ")", level + 1)
    elseif id == "" or host == "" then
        return errors.new("Invalid", "spawn needs an entry id and a host id, like app:worker and app:processes", false)
    end
    return nil
end

-- The options of one spawn; startup messages are copied for every child.
local function options_of(settings, monitored, linked)
    local options = { monitor = monitored, link = linked, context = settings.context, name = settings.name }
    if settings.messages then
        options.messages = values.copy(settings.messages)
    end
    return options
end

local NO_SETTINGS = {}

local function define(name, start, monitored, linked)
    process[name] = function(id, host, ...)
        local err = check_target(id, host, 2)
        if err then
            return nil, err
        end
        return start(id, host, select("#", ...), { ... }, options_of(NO_SETTINGS, monitored, linked))
    end
    methods[name] = function(builder, id, host, ...)
        local settings = settings_of(builder, name)
        local err = check_target(id, host, 2)
        if err then
            return nil, err
        end
        return start(id, host, select("#", ...), { ... }, options_of(settings, monitored, linked))
    end
end

-- The record of a child stays in the kernel: callers get its PID.
local function spawn(...)
    local pid, err = spawning.spawn(...)
    if not pid then
        return nil, err
    end
    return pid
end

define("spawn", spawn, false, false)
define("spawn_monitored", spawn, true, false)
define("spawn_linked", spawn, false, true)
define("spawn_linked_monitored", spawn, true, true)
define("exec", spawning.execute, false, false)

function process.with_context(context)
    return new_builder(NO_SETTINGS, "context", check_table(context, "with_context"))
end

function process.with_options(options)
    local err = spawning.missing_option(check_table(options, "with_options"))
    if err then
        return nil, err
    end
    return new_builder(NO_SETTINGS)
end

return process
