-- Code: entries with Lua in them, as the registry has them now.
--
-- An entry is asked for when it is first needed, with all it imports, compiled once, and run
-- once per process with that process's own environment: the functions' code is shared, their
-- upvalues and globals are not. What changed in the registry is forgotten; code that is loaded
-- holds on to what it imports, so running processes keep what they started with.
local K = ...
local errors, turns, operations = K.errors, K.turns, K.operations
local ready, yield, WAIT = turns.ready, coroutine.yield, turns.WAIT
local format, load, match, next, pairs, sub = string.format, load, string.match, next, pairs, string.sub
local sort, unpack = table.sort, table.unpack

local LONGEST_NAME = 59 -- Lua cuts the end off longer names of chunks; here they lose their beginning

local OWN_COUNT = "local __w_b,__w_y=0,__w_yield;"

local cached = {} -- id -> code
local fetching = {} -- id -> {waiting threads, stale}

-- The function that runs a chunk in an environment. Text out of the dialect begins with two locals its yield
-- points count with; here all chunks count with those of the scheduler.
local function open_of(source, name)
    if sub(source, 1, #OWN_COUNT) == OWN_COUNT then
        source = sub(source, #OWN_COUNT + 1)
    end
    local text = "local __w_b, __w_y return function(_ENV, __w_type, ...) " .. source .. "\nend"
    local chunk, problem = load(text, name, "t", {})
    if not chunk then
        return nil, problem
    end
    local open = chunk()
    turns.join(open)
    return open
end

-- The text must be a whole chunk by itself before it is put into a function, else it could end that function early.
local function compile(id, source)
    local name = #id <= LONGEST_NAME and "=" .. id or "=..." .. sub(id, 4 - LONGEST_NAME)
    local chunk, problem = load(source, name, "t", {})
    if not chunk then
        return nil, problem
    end
    return open_of(source, name)
end

local function to_set(list)
    local set = {}
    for _, name in pairs(list or {}) do
        set[name] = true
    end
    return set
end

local function from_package(package)
    local open, problem = compile(package.id, package.source)
    if not open then
        local text = format("%s doesn't compile: %s", package.id, problem)
        return nil, errors.new("Invalid", text, false)
    end
    return {
        id = package.id,
        kind = package.kind,
        open = open,
        method = package.method ~= "" and package.method or nil,
        modules = to_set(package.modules),
        imports = package.imports or {},
        linked = {},
        version = package.version or 0,
        stale = false,
        context = package.context,
        complete = false,
    }
end

-- Whether an import names one of the runtime's modules; returns its name.
local function built_in(id)
    return match(id, "^:(.+)$") or not match(id, ":") and id or nil
end

local function fetched(id, err, answer)
    local state = fetching[id]
    fetching[id] = nil
    local code
    if state.stale and not err then
        err = errors.new("Unavailable", id .. " changed while it was being read; try again", true)
    elseif not err then
        code, err = from_package(answer[1])
        cached[id] = code
    end
    for i = 1, #state do
        ready(state[i], code, err)
    end
end

-- The code of ``id`` without its imports; waits for it when it isn't there.
local function fetch(id)
    local code = cached[id]
    if code then
        return code
    end
    local state = fetching[id]
    if not state then
        state = { stale = false }
        fetching[id] = state
        operations.ask(K.processes.system, 52, id, function(err, answer)
            fetched(id, err, answer)
        end)
    end
    local thread = turns.current
    state[#state + 1] = thread
    thread.process.holds = thread.process.holds + 1
    local err
    code, err = yield(WAIT)
    thread.process.holds = thread.process.holds - 1
    return code, err
end

-- Make sure that ``code`` and all it imports are there. Returns an error object or nil.
local function complete(code, seen)
    if code.complete or seen[code.id] then
        return nil
    end
    seen[code.id] = true
    for alias, id in next, code.imports do
        if not built_in(id) then
            local imported, err = fetch(id)
            if not err then
                err = complete(imported, seen)
            end
            if err then
                local text = format("%s imports %s as %q: %s", code.id, id, alias, err[errors.MESSAGE])
                return errors.new(err[errors.KIND], text, err[errors.RETRYABLE])
            end
            code.linked[alias] = imported
        end
    end
    return nil
end

-- The code of ``id``, ready to run; waits when it must be read first. Returns nil and an error object on failure.
local function get(id)
    local code = cached[id]
    if code and code.complete then
        return code
    end
    for attempt = 1, 3 do
        local err
        code, err = fetch(id)
        if not err then
            err = complete(code, {})
        end
        if not err and code.stale then -- what it imports may be newer than itself
            err = errors.new("Unavailable", id .. " changed while it was being read; try again", true)
        end
        if not err then
            code.complete = true
            return code
        elseif attempt == 3 or not err[errors.RETRYABLE] then
            return nil, err
        end
    end
end

-- The code of ``id`` if it can run without waiting.
local function at_hand(id)
    local code = cached[id]
    return code and code.complete and code or nil
end

-- Which code ``ids`` matter to: gives a function that returns the ids a code is made of that are
-- among them or import them, through libraries of libraries too, in order; nil when there are none.
local function affected_by(ids)
    local changed, touched, known = to_set(ids), {}, {}
    local function is_touched(code)
        if touched[code] == nil then
            touched[code] = changed[code.id] == true
            for _, imported in next, code.linked do
                if is_touched(imported) then
                    touched[code] = true
                end
            end
        end
        return touched[code]
    end
    local function collect(code, found)
        if touched[code] and not found[code.id] then
            found[code.id] = true
            found[#found + 1] = code.id
            for _, imported in next, code.linked do
                collect(imported, found)
            end
        end
    end
    return function(code)
        if known[code] == nil then
            known[code] = false
            if is_touched(code) then
                local found = {}
                collect(code, found)
                known[code] = { unpack(found) }
                sort(known[code])
            end
        end
        return known[code] or nil
    end
end

-- Forget ``ids`` and whatever imports them. What was made of them is stale from now on.
local function forget(ids)
    local gone = to_set(ids)
    local more = true
    while more do
        more = false
        for id, code in next, cached do
            if not gone[id] then
                for _, import in next, code.imports do
                    if gone[import] then
                        gone[id], more = true, true
                    end
                end
            end
        end
    end
    for id in next, gone do
        if cached[id] then
            cached[id].stale = true
        end
        cached[id] = nil
        if fetching[id] then
            fetching[id].stale = true
        end
    end
end

K.code = { get = get, at_hand = at_hand, affected_by = affected_by, forget = forget, built_in = built_in, open_of = open_of }
