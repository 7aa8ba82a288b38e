-- Guards: pcall, xpcall and coroutines as processes see them.
--
-- They keep two promises. A process that is killed in a stretch that can't yield stays killed:
-- no pcall swallows the raise. And what a thread hands the scheduler (a wait, a pre-emption)
-- passes through the coroutines of the user up to it, and the answer back down.
--
-- Nesting of pcall and resume is counted per thread and refused beyond a limit: near the end of
-- the C stack a yield point could not do its work any more.
local K = ...
local config, limits, turns = K.config, K.limits, K.turns
local WAIT, PREEMPT, KILLED, ENDED = turns.WAIT, turns.PREEMPT, turns.KILLED, turns.ENDED
local rawpcall, rawxpcall = pcall, xpcall
local create, resume, yield, status = coroutine.create, coroutine.resume, coroutine.yield, coroutine.status
local isyieldable, running = coroutine.isyieldable, coroutine.running
local error, rawequal, setmetatable, type = error, rawequal, setmetatable, type

local OUT_OF_MEMORY = "not enough memory" -- the text Lua itself raises

local depths = setmetatable({}, { __mode = "k" }) -- of suspended coroutines: how deep they are in pcalls

local function descend(thread, name)
    local depth = thread.depth
    if depth >= config.pcall_depth then
        limits.hit("pcall_depth")
        error(name .. " nested too deeply (limit " .. config.pcall_depth .. ")", 3)
    end
    thread.depth = depth + 1
end

-- After a failure in the running process: what must not be caught is raised again.
local function pass_on(process, raised)
    if process.killed then
        error(KILLED, 0)
    elseif raised == OUT_OF_MEMORY then
        process.killed = "memory"
        error(KILLED, 0)
    end
end

local function ascend(thread, ok, ...)
    thread.depth = thread.depth - 1
    if not ok then
        pass_on(thread.process, (...))
    end
    return ok, ...
end

local function pcall(f, ...)
    local thread = turns.current
    if not thread then -- a module's function that the kernel itself calls
        return rawpcall(f, ...)
    end
    descend(thread, "pcall")
    return ascend(thread, rawpcall(f, ...))
end

local function xpcall(f, handler, ...)
    local thread = turns.current
    descend(thread, "xpcall")
    local process = thread.process
    local function handle(raised)
        if process.killed then
            return raised
        end
        return handler(raised)
    end
    return ascend(thread, rawxpcall(f, handle, ...))
end

-- What a coroutine of the user handed out: its own values are for the resumer, the rest goes up.
local function relay(co, ok, what, ...)
    if ok and (rawequal(what, WAIT) or rawequal(what, PREEMPT)) then -- what a user yields may have an __eq
        return relay(co, resume(co, yield(what)))
    end
    return ok, what, ...
end

local function resumed(co, thread, depth, pinned, ok, ...)
    local inside = thread.depth - depth - 1
    if inside ~= 0 then
        depths[co] = inside
    end
    thread.depth, thread.pinned = depth, pinned
    if not ok then
        pass_on(thread.process, (...))
    end
    return ok, ...
end

local function enter(co, ...)
    local thread = turns.current
    local depth, pinned = thread.depth, thread.pinned
    descend(thread, "coroutine.resume")
    local inside = depths[co]
    if inside then
        thread.depth = thread.depth + inside
        depths[co] = nil
    end
    thread.pinned = pinned or not isyieldable()
    return resumed(co, thread, depth, pinned, relay(co, resume(co, ...)))
end

local function check_coroutine(co, name)
    if type(co) ~= "thread" then
        error("bad argument #1 to '" .. name .. "' (coroutine expected, got " .. type(co) .. ")", 3)
    end
end

local coroutines = {}

function coroutines.create(f)
    if type(f) ~= "function" then
        error("bad argument #1 to 'create' (function expected, got " .. type(f) .. ")", 2)
    end
    return create(f)
end

function coroutines.resume(co, ...)
    check_coroutine(co, "resume")
    return enter(co, ...)
end

local function or_raise(ok, ...)
    if not ok then
        error((...), 0)
    end
    return ...
end

function coroutines.wrap(f)
    if type(f) ~= "function" then
        error("bad argument #1 to 'wrap' (function expected, got " .. type(f) .. ")", 2)
    end
    local co = create(f)
    return function(...)
        return or_raise(enter(co, ...))
    end
end

function coroutines.yield(...)
    if running() == turns.current.co then
        error("attempt to yield from outside a coroutine", 2)
    end
    return yield(...)
end

function coroutines.status(co)
    check_coroutine(co, "status")
    return status(co)
end

-- nil in the main coroutine and in spawned ones: those belong to the scheduler.
function coroutines.running()
    local co = running()
    if co == turns.current.co then
        return nil
    end
    return co
end

function coroutines.isyieldable()
    return running() ~= turns.current.co and isyieldable()
end

local function run_spawned(f)
    f()
    return ENDED
end

function coroutines.spawn(f)
    if type(f) ~= "function" then
        error("bad argument #1 to 'spawn' (function expected, got " .. type(f) .. ")", 2)
    end
    turns.new_thread(turns.current.process, run_spawned, f)
end

K.guards = { pcall = pcall, xpcall = xpcall, coroutines = coroutines, OUT_OF_MEMORY = OUT_OF_MEMORY }
