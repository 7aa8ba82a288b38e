-- Garbage: which of Lua's collectors the VM uses.
--
-- While little is in use it is the generational one: most of what messages leave behind dies young. But it looks
-- at everything it has in one go, so a VM beyond SMALL has the incremental one. That begins its cycles late as
-- long as there is plenty of room: a VM that grows would go through all it has again and again.
local K = ...
local config, turns = K.config, K.turns
local collect = collectgarbage

local SMALL = 24 * 1024 -- KiB, what five thousand idle processes take
local SMALL_AGAIN = 8 * 1024
local DWELL = 1000000000 -- ns until it may change back: the change looks at everything, too
local LATE, USUAL = 400, 200 -- a cycle begins when as many percent of what the last one left are in use
local PLENTY = 1 / 16 -- of the limit

local is_small = false
local back_at = 0
local pause = 0

-- Called at every step.
local function choose()
    local used = collect("count")
    if is_small then
        if used > SMALL then
            is_small, pause = false, 0
            back_at = turns.now + DWELL
        else
            return
        end
    elseif used < SMALL_AGAIN and turns.now >= back_at then
        is_small = true
        collect("generational")
        return
    end
    local wanted = used * 1024 < config.max_memory * PLENTY and LATE or USUAL
    if wanted ~= pause then
        pause = wanted
        collect("incremental", pause)
    end
end

K.garbage = { choose = choose }
