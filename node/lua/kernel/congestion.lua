-- Congestion: while too much waits for another node, the processes that send there wait as well.
--
-- The node tells which nodes are congested and when there is room again. A thread that sends to
-- one of them is parked until then; after PATIENCE seconds, or when it can't wait, its send is
-- refused. What left the VM before the node had told is taken all the same.
local K = ...
local errors, timers, turns = K.errors, K.timers, K.turns
local ready = turns.ready

local PATIENCE = 30
local SECOND = 1000000000

local congestion = { any = false } -- ``any``: whether a send has to look at all
local congested = {} -- node -> the waiters, in the order they came

local function refusal(node, why)
    local text = "too many messages wait for node " .. node .. "; " .. why
    return errors.new("Unavailable", text, true)
end

local function wake(waiter, err)
    if not waiter.over then
        waiter.over = true
        timers.stop(waiter.timer)
        if not waiter.thread.process.dead then
            ready(waiter.thread, err)
        end
    end
end

-- [37]: too much waits for ``node``, or there is room again.
function congestion.changed(node, is_congested)
    local waiters = congested[node]
    if is_congested then
        congested[node] = waiters or {}
        congestion.any = true
    elseif waiters then
        congested[node] = nil
        congestion.any = next(congested) ~= nil
        for i = 1, #waiters do
            wake(waiters[i])
        end
    end
end

-- Wait until the node of ``pid`` has room. Returns whether there was something to wait for, and an error object.
function congestion.wait(pid)
    local node = K.places.place_of(pid)
    local waiters = congested[node]
    if not waiters then
        return false
    elseif not turns.can_wait() then
        return true, refusal(node, "process.send can't wait here (the caller is a C function): send from somewhere else")
    end
    local waiter = { thread = turns.current, over = false }
    waiter.timer = timers.after(turns.current.process, PATIENCE * SECOND, function()
        wake(waiter, refusal(node, "it took none for " .. PATIENCE .. " s: try again later"))
    end)
    waiters[#waiters + 1] = waiter
    return true, turns.park()
end

K.congestion = congestion
