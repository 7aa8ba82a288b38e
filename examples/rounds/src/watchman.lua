local logger = require("logger")
local registry = require("registry")
local time = require("time")

--- Goes the rounds at the pace its entry says, until the node tells it to stop.
local function main(): integer
    local every = registry.get(process.id()).meta.every
    local clock, signals = assert(time.ticker(every)), process.events()
    local rounds = 0
    logger:info("on watch", { every = every })
    while true do
        local r = channel.select { clock:response():case_receive(), signals:case_receive() }
        if r.channel == signals then
            if r.value.kind == process.event.CANCEL then
                clock:stop()
                logger:info("off watch", { rounds = rounds, reason = r.value.reason })
                return rounds
            end
        else
            rounds = rounds + 1
            logger:info("all is well", { round = rounds })
        end
    end
end

return { main = main }
