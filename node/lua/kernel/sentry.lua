-- Sentry: ends a stretch of work that passes no yield point and allocates without end.
--
-- Straight-line code on huge strings can take seconds between two points. Allocating makes the
-- collector run, and that calls the finalizer below, inside whatever runs. When the slice has
-- lasted longer than LONG, the process looks at the clock at its next yield point; when it comes to
-- none, and the slice has lasted longer than LONGEST, a hook on the running coroutine kills the process
-- at its next instruction. The hook is gone again before the scheduler goes on.
local K = ...
local turns = K.turns
local running, setmetatable = coroutine.running, setmetatable
local sethook = debug.sethook

local LONG, LONGEST = 0.005, 1.0 -- seconds

local meta = {}

local function raise()
    sethook()
    local thread = turns.current
    if thread then
        thread.process.killed = "budget"
        K.limits.hit("stretch")
        error(turns.KILLED, 0)
    end
end

function meta.__gc()
    local seconds = turns.current and turns.lasts() or 0
    if seconds > LONGEST then
        local co, is_main = running()
        if co and not is_main then
            sethook(co, raise, "", 1)
        end
    elseif seconds > LONG then
        turns.prod()
    end
    setmetatable({}, meta)
end

setmetatable({}, meta)
