-- Takes new code when it is told to, with what it remembers; else goes on with what it has.
local events_module = require("events")
local word = require("text").word

local function main(upgradable, name, state)
    state = state or { upgrades = 0, sources = {} }
    if upgradable then
        process.set_options({ upgradable = true })
    end
    if state.upgrades == 0 then
        assert(process.registry.register(name))
    end
    assert(events_module.subscribe("nothing")) -- a stream: it ends with the code that opened it, and takes no name along
    local inbox, events = process.inbox(), process.events()
    while true do
        local picked = channel.select({ inbox:case_receive(), events:case_receive() })
        local value = picked.value
        if picked.channel == inbox then
            if value:topic() == "end" then
                return "ended"
            end
            process.send(value:from(), "answer", { word = word, upgrades = state.upgrades, sources = state.sources })
        elseif value.kind == process.event.OUTDATED then
            process.upgrade(nil, upgradable, name, { upgrades = state.upgrades + 1, sources = value.sources })
        else
            return "cancelled"
        end
    end
end

return { main = main }
