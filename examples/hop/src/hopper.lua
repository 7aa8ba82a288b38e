local logger = require("logger")
local system = require("system")
local time = require("time")

type Score = { node: string, hops: integer, balls: integer, missed: integer, last: {[string]: integer} }

--- Gives every ball back to whoever threw it, keeps the score, and moves to another node when asked to. Its PID, its
--- name, the score, the balls that fly to it meanwhile and whom it watches come along: nobody who throws has to know
--- where it is.
---
---   ball {number}  replies "ball" {number, hopper, hops}
---   score          replies {node, hops, throwers, balls, missed}
---   go "node-2"    hops there; the reply is {node, milliseconds}, or {node, refused}

--- The name of a process that died is free only when the cluster knows of its death.
local function register(name: string)
    while not process.registry.register(name, process.pid(), process.registry.CONSISTENT) do
        time.sleep("200ms")
    end
end

--- Note a ball. `last` is the number of the latest one by thrower; any other than the next tells of some that are lost.
local function count(score: Score, from: string, number: integer)
    local last = score.last[from]
    if not last and not process.monitor(from) then
        return -- its end has come before its last balls
    elseif last and number ~= last + 1 then
        score.missed = score.missed + 1
    end
    score.last[from] = number
    score.balls = score.balls + 1
end

local function told(score: Score)
    local throwers = 0
    for _ in pairs(score.last) do
        throwers = throwers + 1
    end
    return { node = score.node, hops = score.hops, throwers = throwers, balls = score.balls, missed = score.missed }
end

--- Where the process is, by what its node says: its PID goes on telling where it was born.
local function arrive(score: Score)
    local node = system.node.id()
    if node ~= score.node then
        score.node, score.hops = node, score.hops + 1
        logger:info("here I am", { node = node, hops = score.hops })
    end
end

--- `score` is nil for a new hopper, and what it handed over for one that has moved or has new code.
local function main(score: Score?)
    process.set_options({ migratable = true, upgradable = true })
    local inbox, events = process.inbox(), process.events()
    if score then
        arrive(score)
    else
        score = { node = system.node.id(), hops = 0, balls = 0, missed = 0, last = {} }
        register("hopper")
    end

    while true do
        local r = channel.select { inbox:case_receive(), events:case_receive() }
        if r.channel == events then
            local kind = r.value.kind
            if kind == process.event.MIGRATE or kind == process.event.OUTDATED then
                process.upgrade(nil, score)
            elseif kind == process.event.EXIT then
                score.last[r.value.from] = nil
            elseif kind == process.event.CANCEL then
                return 0
            end
        else
            local message = r.value
            local topic, payload = message:topic(), message:payload()
            local data = payload and payload:data()
            if topic == "ball" then
                count(score, message:from(), data.number)
                process.send(message:from(), "ball", { number = data.number, hopper = score.node, hops = score.hops })
            elseif topic == "score" then
                process.send(message:from(), "score", told(score))
            elseif topic == "go" then
                process.spawn("app:usher", "app:processes", process.pid(), tostring(data), message:from())
            end
        end
    end
end

return { main = main }
