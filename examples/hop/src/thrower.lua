local logger = require("logger")
local system = require("system")
local time = require("time")

local EVERY = "10ms"
local MOST_IN_THE_AIR = 1000
local PATIENCE = 15000 -- milliseconds after which balls that did not come back are given up

--- Throws a numbered ball to the hopper a hundred times a second, without waiting for the ones before, and catches what
--- comes back. It knows the hopper by its name alone.
---
---   report   replies {thrown, caught, in_the_air, lost, doubled, longest_pause_ms, hopper, hops}

local function milliseconds(): integer
    return time.now():unix_nano() // 1000000
end

local function main()
    local node = system.node.id()
    local inbox, events, returns = process.inbox(), process.events(), process.listen("ball")
    local beat = time.ticker(EVERY):channel()
    local seen = { thrown = 0, caught = 0, lost = 0, doubled = 0, longest_pause_ms = 0 }
    local expected, waits_since = 1, 0

    local function in_the_air(): integer
        return seen.thrown - expected + 1
    end

    --- A hopper that died took along what flew to it.
    local function give_up()
        seen.lost = seen.lost + in_the_air()
        expected = seen.thrown + 1
    end

    local function throw()
        if in_the_air() == 0 then
            waits_since = milliseconds()
        elseif milliseconds() - waits_since > PATIENCE then
            give_up()
        end
        if in_the_air() < MOST_IN_THE_AIR and process.send("hopper", "ball", { number = seen.thrown + 1 }) then
            seen.thrown = seen.thrown + 1
        end
    end

    --- Balls come back in the order of throwing: one that is not the next tells of others that are lost.
    local function catch(ball)
        local now = milliseconds()
        local pause = now - waits_since
        waits_since = now
        seen.longest_pause_ms = math.max(seen.longest_pause_ms, pause)
        if ball.number < expected then
            seen.doubled = seen.doubled + 1
        else
            seen.lost = seen.lost + ball.number - expected
            expected = ball.number + 1
            seen.caught = seen.caught + 1
        end
        if seen.hopper and ball.hopper ~= seen.hopper then
            logger:info("the hopper has moved", { from = seen.hopper, to = ball.hopper, pause_ms = pause, lost = seen.lost })
        end
        seen.hopper, seen.hops = ball.hopper, ball.hops
    end

    local function report(message)
        seen.in_the_air = in_the_air()
        process.send(message:from(), "report", seen)
    end

    local function register()
        local name = "thrower@" .. node
        while not process.registry.register(name, process.pid(), process.registry.CONSISTENT) do
            time.sleep("200ms")
        end
    end

    register()
    while true do
        local r = channel.select {
            returns:case_receive(),
            beat:case_receive(),
            inbox:case_receive(),
            events:case_receive(),
        }
        if r.channel == returns then
            catch(r.value)
        elseif r.channel == beat then
            throw()
        elseif r.channel == inbox then
            report(r.value)
        elseif r.value.kind == process.event.CANCEL then
            -- the name is on the node's lease: it goes when that is lost, and is taken again with the next one
            if not (r.value.reason or ""):find("^name revoked") then
                return 0
            end
            register()
        end
    end
end

return { main = main }
