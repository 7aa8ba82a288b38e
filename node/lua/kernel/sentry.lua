-- Sentry: ends a stretch of work that passes no yield point and allocates without end.
--
-- Straight-line code on huge strings can take seconds between two points. Allocating makes the
-- collector run, and that calls the finalizer below, inside whatever runs. When the slice has
-- lasted longer than LONGEST it sets a hook on the running coroutine, which kills the process
-- at its next instruction. The hook is gone again before the scheduler goes on.
local K = ...
local turns = K.turns
local clock, running, setmetatable = os.clock, coroutine.running, setmetatable
local sethook = debug.sethook

local LONGEST = 1.0

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
    if turns.current and clock() - turns.turn_began > LONGEST * turns.parallel then
        local co, is_main = running()
        if co and not is_main then
            sethook(co, raise, "", 1)
        end
    end
    setmetatable({}, meta)
end

setmetatable({}, meta)
