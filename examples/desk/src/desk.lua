local logger = require("logger")

--- Takes questions under the name "desk" and gives each to a clerk of its own, who answers the visitor directly.
--- A clerk that stumbles takes nobody along: the desk tells the visitor.
local function main(): integer
    local inbox, signals = process.inbox(), process.events()
    local visitor_of = {} -- PID of a clerk -> PID of who asked
    local answered, failed = 0, 0
    assert(process.registry.register("desk"))
    while true do
        local r = channel.select { inbox:case_receive(), signals:case_receive() }
        if r.channel == inbox then
            local message = r.value
            local question = message:payload():data()
            local clerk = assert(process.spawn_monitored("app:clerk", "app:processes", message:from(), question))
            visitor_of[clerk] = message:from()
        elseif r.value.kind == process.event.CANCEL then
            logger:info("the desk closes", { answered = answered, failed = failed })
            return 0
        elseif r.value.kind == process.event.EXIT then
            local problem = r.value.result.error
            if problem then
                failed = failed + 1
                process.send(visitor_of[r.value.from], "sorry", tostring(problem))
            else
                answered = answered + 1
            end
            visitor_of[r.value.from] = nil
        end
    end
end

return { main = main }
