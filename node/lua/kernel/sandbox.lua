-- Sandbox: the globals of one process, and what it may ``require``.
--
-- Each entry that runs in a process (the process itself, every library) has an environment of
-- its own. It starts empty and takes what it uses from ``globals`` at first use: functions as
-- they are, libraries as views (views.lua), so that nothing a process changes is seen by another.
--
-- ``require`` gives a module the entry lists (or the few that are always there), or a library it
-- imports. A module is made once per process, a library runs once per process.
local K = ...
local code, errors, guards, libraries = K.code, K.errors, K.guards, K.libraries
local operations, turns, views = K.operations, K.turns, K.views
local view_of = views.view_of
local rawmeta = debug.getmetatable
local concat, error, pairs, rawset, select = table.concat, error, pairs, rawset, select
local setmetatable, tostring, type = setmetatable, tostring, type

local ALWAYS = { process = true, channel = true, coroutine = true, errors = true, payload = true }

local globals = {} -- name -> value for everybody
local shared = {} -- name -> library to view
local halves = {} -- module name -> source of its Lua half
local makers = {} -- module name -> function(env) giving its table, or a table to view

-- What module halves see as globals: the same libraries, but their originals.
local trusted = setmetatable({}, { __index = libraries.basics })
for _, name in pairs({ "string", "table", "math", "coroutine", "os" }) do
    trusted[name] = libraries[name]
end
trusted.error, trusted.utf8, trusted.rawlen = error, utf8, rawlen

local function maker_of(name)
    local make = makers[name]
    if make == nil then
        local source = halves[name]
        if not source then
            return nil
        end
        local open, problem = code.open_of(source, "=module/" .. name)
        if not open then
            error("module " .. name .. " doesn't compile: " .. problem, 0)
        end
        make = open(trusted, nil, K)
        makers[name] = make
        K.weights.share(make)
    end
    return make
end

-- What a module half gets: its way to its Python half and to the process it is made for.
local function module_environment(process)
    return {
        call = operations.call,
        cast = operations.cast,
        stream = operations.stream,
        errors = maker_of("errors"),
        channel = K.channels.api,
        pid = process.pid,
        entry = process.entry,
        now_ns = turns.wall_now,
        host = K.config.host,
        node = K.config.node,
    }
end

-- The module's table for this process, or nil when there is no such module.
local function module_for(process, name)
    local loaded = process.modules[name]
    if loaded ~= nil then
        return loaded
    end
    local make = maker_of(name)
    if make == nil then
        return nil
    end
    if type(make) == "function" then
        loaded = make(module_environment(process))
    else
        loaded = view_of(make)
    end
    process.modules[name] = loaded
    return loaded
end

local open_environment

-- What is missing in the entry for ``require(name)`` to work.
local function line_to_add(entry, name)
    if not halves[name] then
        return "there is no such module; for a library of your own add 'imports: {" .. name .. ": namespace:entry}'"
    end
    local names = { name }
    for listed in pairs(entry.modules) do
        names[#names + 1] = tostring(listed)
    end
    table.sort(names)
    return "its entry needs 'modules: [" .. concat(names, ", ") .. "]'"
end

local function cycle_text(process, id)
    local path = {}
    for i = process.loading[id], #process.loading do
        path[#path + 1] = process.loading[i]
    end
    path[#path + 1] = id
    return concat(path, " -> ")
end

local LOADING = {}

-- Run a library in the process and keep what it returns.
local function library_for(process, imported)
    local id = imported.id
    local loaded = process.libraries[id]
    if loaded == LOADING then
        error("imports go in a circle: " .. cycle_text(process, id), 3)
    elseif loaded ~= nil then
        return loaded
    end
    local loading = process.loading
    process.libraries[id] = LOADING
    loading[#loading + 1] = id
    loading[id] = #loading
    local ok
    ok, loaded = guards.pcall(imported.open, open_environment(process, imported), K.types.declare)
    loading[id], loading[#loading] = nil, nil
    if not ok then
        process.libraries[id] = nil
        error(loaded, 0)
    end
    if loaded == nil then
        loaded = true
    end
    process.libraries[id] = loaded
    return loaded
end

local function new_require(process, entry)
    return function(name)
        if type(name) ~= "string" then
            error("bad argument #1 to 'require' (string expected, got " .. type(name) .. ")", 2)
        end
        local imported = entry.linked[name]
        if imported then
            return library_for(process, imported)
        end
        local import = entry.imports[name]
        local module = import and code.built_in(import) or name
        if import or entry.modules[name] or ALWAYS[name] then
            local loaded = module_for(process, module)
            if loaded ~= nil then
                return loaded
            end
            error("module '" .. module .. "' is not in this version", 2)
        end
        error("module '" .. name .. "' is not available to " .. entry.id .. ": " .. line_to_add(entry, name), 2)
    end
end

local function fault(env, name)
    local value = globals[name]
    if value == nil then
        local library = shared[name]
        if library then
            value = view_of(library)
        elseif name == "_G" then
            value = env
        elseif name == "require" then
            local meta = rawmeta(env)
            value = new_require(meta.process, meta.code)
        elseif ALWAYS[name] then
            value = module_for(rawmeta(env).process, name)
        elseif K.types.NAMES[name] then
            value = K.types.value(name)
        else
            return nil
        end
    end
    rawset(env, name, value)
    return value
end

-- A fresh environment for ``entry`` in ``process``.
function open_environment(process, entry)
    return setmetatable({}, { __index = fault, __metatable = false, process = process, code = entry })
end

-- Run the chunk of ``entry`` in ``process`` and give the function to call, or nil and what is wrong.
local function open(process, entry, method)
    process.modules, process.libraries, process.loading = {}, {}, {}
    local returned = entry.open(open_environment(process, entry), K.types.declare)
    if type(returned) == "function" then
        return returned
    end
    method = method or entry.method or "main"
    local f = type(returned) == "table" and returned[method]
    if type(f) ~= "function" then
        local text = entry.id .. " has no function '" .. method .. "': its chunk returned a " .. type(returned)
        error(errors.new("Invalid", text .. "; return a table of functions or one function", false), 0)
    end
    return f
end

local function print(...)
    local parts = { ... }
    for i = 1, select("#", ...) do
        parts[i] = tostring(parts[i])
    end
    operations.cast("logger", "print", concat(parts, "\t"), errors.where(2))
end

-- Called once, when all of the kernel is there.
local function start(sources)
    halves = sources
    for name, value in pairs(libraries.basics) do
        globals[name] = value
    end
    globals.print = print
    globals.subscribe, globals.unsubscribe = K.subscriptions.subscribe, K.subscriptions.unsubscribe
    for _, name in pairs({ "string", "table", "math", "os" }) do
        shared[name] = libraries[name]
        views.meta_of(libraries[name])
    end
    K.types.mark_strings(views.meta_of(libraries.string))
    for name in pairs(ALWAYS) do -- "payload" also completes the methods of what messages bring to everybody
        views.meta_of(maker_of(name))
    end
    local time = maker_of("time")(module_environment({ pid = "", entry = "" }))
    makers.time = K.clocks.complete(time) -- nothing in it belongs to one process
    views.meta_of(time)
end

K.sandbox = { open = open, start = start, module_for = module_for }
