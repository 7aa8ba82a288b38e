-- Keeps the events of the registry it hears on its node.
local events = require("events")

local function main(name)
    local heard = {}
    local feed = assert(events.subscribe("registry")):channel()
    local inbox = process.inbox()
    assert(process.registry.register(name))
    while true do
        local picked = channel.select({ inbox:case_receive(), feed:case_receive() })
        if picked.channel == inbox then
            process.send(picked.value:from(), "answer", heard)
        else
            local event = picked.value
            heard[#heard + 1] = { event.kind, event.path, event.data.version }
        end
    end
end

return { main = main }
