local logger = require("logger")
local system = require("system")
local time = require("time")

type Thrower = { node: string, balls: integer, last: integer, missed: integer }
type Score = { hops: integer, node: string, throwers: {[string]: Thrower} }

--- Gives every ball back to whoever threw it, keeps the score, and moves to another node when asked to. Its PID, its
--- name, the score and the balls that fly to it meanwhile come along: nobody who throws has to know where it is.
---
---   ball {number, node}  replies "ball" {number, hopper, hops}
---   score                replies {node, hops, throwers}: of each thrower its balls, and how many numbers were missed
---   go "node-2"          hops there, and replies {pid, node, hops} when it is there

--- The name of a process that died is free only when the cluster knows of its death.
local function register(name: string)
    while not process.registry.register(name, process.pid(), process.registry.CONSISTENT) do
        time.sleep("200ms")
    end
end

--- Note a ball. Numbers of a thrower that do not follow each other are missed.
local function count(score: Score, from: string, ball)
    local thrower = score.throwers[from] or { node = ball.node, balls = 0, last = ball.number - 1, missed = 0 }
    score.throwers[from] = thrower
    if ball.number ~= thrower.last + 1 then
        thrower.missed = thrower.missed + 1
    end
    thrower.last = ball.number
    thrower.balls = thrower.balls + 1
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
        score = { hops = 0, node = system.node.id(), throwers = {} }
        register("hopper")
    end

    while true do
        local r = channel.select { inbox:case_receive(), events:case_receive() }
        if r.channel == events then
            local kind = r.value.kind
            if kind == process.event.MIGRATE or kind == process.event.OUTDATED then
                process.upgrade(nil, score)
            elseif kind == process.event.CANCEL then
                return 0
            end
        else
            local message = r.value
            local topic, payload = message:topic(), message:payload()
            local data = payload and payload:data()
            if topic == "ball" then
                count(score, message:from(), data)
                process.send(message:from(), "ball", { number = data.number, hopper = score.node, hops = score.hops })
            elseif topic == "score" then
                process.send(message:from(), "score", score)
            end
        end
    end
end

return { main = main }
