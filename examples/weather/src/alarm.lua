local events = require("events")
local logger = require("logger")
local presence = require("presence")

--- Warns of storms: it listens to one kind only.
local function main()
    local wind, signals = assert(events.subscribe("weather", "*.wind")):channel(), process.events()
    presence.announce()
    while true do
        local r = channel.select { wind:case_receive(), signals:case_receive() }
        if r.channel == signals then
            return 0
        elseif r.value.data.speed >= 80 then
            logger:warn("storm", { where = r.value.path, speed = r.value.data.speed })
        end
    end
end

return { main = main }
