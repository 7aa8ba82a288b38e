-- What a prompt offers beside the language: looking at the cluster, sending, receiving, and completion by TAB.
--
-- They are variables of the prompt, which a line may change. What takes all nodes (``pids``, ``tree``, ...) the client
-- asks, as any verb of the command line does.
local K = ...
local code, delivery, errors, guards, libraries, turns =
    K.code, K.delivery, K.errors, K.guards, K.libraries, K.turns
local rawmeta = K.rawmeta

local MODULE = "node.console"
local MOST_OUT = 256 * 1024 -- characters that one line may print
local MOST_PROPOSALS = 200

local HELP = [[
pids([text])              the processes of all nodes; with text, those that have it in a column
nodes() names() services() tree()   what the command line shows under these names
reg([text])               entries whose id or kind has this text in it; * stands for anything
inspect(pid or name)      everything its node knows of one process
trace(pid or name [, seconds])      what arrives at a process and what it sends, as it happens
send(pid or name, topic, ...)       a message from this prompt, whose PID is process.pid()
call(pid or name, topic [, value])  the first reply; call("ns:function", ...) the result of a function
receive([seconds])        the next message: topic, value, sender
flush()                   all messages that wait, as a list
use(id)                   a library entry, as require gives it to a program that imports it
exit()                    the end; Ctrl-D too
_ is the first value of the line before. Ctrl-C stops a line.]]

return function(env)
    local shown = K.sandbox.module_for(turns.current.process, MODULE .. ".shown")
    local helpers = {}

    local function ask(what, ...)
        local answer, err = env.call(MODULE, "ask", what, ...)
        if err then
            error(err, 0)
        end
        return answer
    end

    -- A row of a listing stands for its process.
    local function target_of(target)
        if type(target) == "table" and type(rawget(target, "pid")) == "string" then
            return target.pid
        end
        return target
    end

    local function or_raise(value, err)
        if err ~= nil then
            error(err, 0)
        end
        return value
    end

    local function listing(what, columns)
        return function(...)
            return shown.rows(ask(what, ...), columns)
        end
    end

    local function print_for(prompt, say)
        local run, printed = nil, 0
        return function(...)
            if run ~= prompt.running then
                run, printed = prompt.running, 0
            end
            local parts = { ... }
            for i = 1, select("#", ...) do
                parts[i] = tostring(parts[i])
            end
            local text, room = table.concat(parts, "\t"), MOST_OUT - printed
            printed = printed + #text + 1
            if #text <= room then
                say("out", text)
            elseif room > 0 then
                say("out", string.sub(text, 1, room))
                say("note", "this line has printed " .. MOST_OUT .. " bytes; the rest is left out")
            end
        end
    end

    -- ``coroutine`` of the prompt: what is spawned may fail without ending the console.
    local function safe_coroutines(prompt, say)
        local function spawn(f)
            if type(f) ~= "function" then
                error("bad argument #1 to 'spawn' (function expected, got " .. type(f) .. ")", 2)
            end
            guards.coroutines.spawn(function()
                local ok, failure = guards.xpcall(f, function(raised)
                    local err = errors.is_error(raised) and raised or errors.from_raised(raised)
                    return { err = err, raised = raised, frames = errors.frames_of(3) }
                end)
                if not ok then
                    say("error", shown.failure(failure))
                end
            end)
        end
        local view = K.views.view_of(guards.coroutines)
        view.spawn = spawn
        return view
    end

    local function receive(prompt)
        return function(seconds)
            local got
            if seconds == nil then
                got = { channel = prompt.inbox, value = prompt.inbox:receive() }
            else
                local time = K.sandbox.module_for(prompt.process, "time")
                local text = type(seconds) == "number" and seconds .. "s" or seconds
                local timer = or_raise(time.after(text))
                got = env.channel.select({ prompt.inbox, timer })
            end
            if got.channel ~= prompt.inbox then
                return nil
            end
            local message = got.value
            return message:topic(), message[1], message:from()
        end
    end

    local function flush(prompt)
        return function()
            local found = {}
            while true do
                local got = env.channel.select({ prompt.inbox, default = true })
                if got.default then
                    return shown.rows(found, { "topic", "from", "value" })
                end
                local message = got.value
                found[#found + 1] = { topic = message:topic(), from = message:from(), value = message[1] }
            end
        end
    end

    -- A library entry, run in this process; the newest code of it.
    local function use(prompt)
        return function(id)
            if type(id) ~= "string" then
                error("bad argument #1 to 'use' (the id of an entry expected, got " .. type(id) .. ")", 2)
            end
            local imported, err = code.get(id)
            if not imported then
                error(err, 0)
            elseif not string.find(imported.kind, "^library%.") then
                local text = id .. " is a " .. imported.kind .. "; use takes a library, call a function"
                error(errors.new("Invalid", text, false), 0)
            end
            local own = prompt.process.code.linked
            if own[id] ~= imported then
                own[id] = imported
                prompt.process.libraries[id] = nil
            end
            return prompt.environment.require(id)
        end
    end

    local function send(target, topic, ...)
        return or_raise(delivery.send(target_of(target), topic, ...))
    end

    function helpers.install(prompt, say)
        local environment = prompt.environment
        environment.print = print_for(prompt, say)
        environment.coroutine = safe_coroutines(prompt, say)
        environment.pids = listing("pids", { "pid", "entry", "node", "state", "names" })
        environment.nodes = listing("nodes", { "node", "state", "processes", "registry" })
        environment.names = listing("names", { "name", "pid", "scope" })
        environment.services = listing("services", { "service", "replica", "node", "state", "pid" })
        environment.reg = function(text)
            return shown.rows(or_raise(env.call(MODULE, "reg", text)), { "id", "kind" })
        end
        environment.tree = function()
            say("text", ask("tree"))
        end
        environment.inspect = function(target)
            return ask("inspect", target_of(target))
        end
        environment.trace = function(target, seconds)
            say("text", ask("trace", target_of(target), seconds))
        end
        environment.call = function(target, ...)
            return ask("call", target_of(target), ...)
        end
        environment.send = send
        environment.receive = receive(prompt)
        environment.flush = flush(prompt)
        environment.use = use(prompt)
        environment.help = function()
            say("text", HELP)
        end
        environment.exit = function()
            say("note", "bye")
            ask("exit")
        end
    end

    -- Completion

    local GLOBALS = { "_G", "require", "string", "table", "math", "os", "process", "channel", "errors", "payload",
        "subscribe", "unsubscribe" }

    local function names_of(value, prompt)
        local found = {}
        local function add(from)
            local key = next(from)
            while key ~= nil and #found < 5000 do
                if type(key) == "string" then
                    found[#found + 1] = key
                end
                key = next(from, key)
            end
        end
        add(value)
        if value == prompt.environment then
            add(libraries.basics)
            for i = 1, #GLOBALS do
                found[#found + 1] = GLOBALS[i]
            end
            return found
        end
        local meta = rawmeta(value)
        local index = meta and rawget(meta, "__index")
        if type(index) == "table" then
            add(index)
        elseif meta and K.values.special[meta] and rawget(meta, "__pairs") then
            meta.__pairs(value) -- of a library: it takes all over, and calls nothing of the user's
            found = {}
            add(value)
        end
        return found
    end

    -- Reads a field as the language would, but calls nothing of the user's.
    local function field_of(value, name)
        local field = rawget(value, name)
        local meta = rawmeta(value)
        if field ~= nil or not meta then
            return field
        end
        local index = rawget(meta, "__index")
        if type(index) == "table" then
            return rawget(index, name)
        elseif rawget(meta, "__metatable") == false and type(index) == "function" then
            return index(value, name) -- the runtime's own: a library, or the environment
        end
        return nil
    end

    -- What ``text`` (a.b.c, or a.b:c) may go on to, whole.
    function helpers.complete(prompt, text)
        local path, last = string.match(text, "^([%w_%.]-)[%.:]?([%w_]*)$")
        if not path then
            return {}
        end
        if string.find(text, "^[%w_]*$") then
            path, last = "", text
        end
        local value = prompt.environment
        for name in string.gmatch(path, "[%w_]+") do
            value = field_of(value, name)
            if type(value) == "string" then
                value = prompt.environment.string
            elseif type(value) ~= "table" then
                return {}
            end
        end
        local head = string.sub(text, 1, #text - #last)
        local found, known = {}, {}
        for _, name in ipairs(names_of(value, prompt)) do
            if string.sub(name, 1, #last) == last and not known[name] and #found < MOST_PROPOSALS then
                known[name] = true
                found[#found + 1] = head .. name
            end
        end
        return found
    end

    return helpers
end
