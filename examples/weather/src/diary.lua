local events = require("events")
local logger = require("logger")
local presence = require("presence")

--- Writes down everything of one system, and sums up when the day ends.
local function main()
    local sub = assert(events.subscribe("weather"))
    presence.announce()
    local readings, signals = sub:channel(), process.events()
    local days, kinds = {}, {}
    while true do
        local r = channel.select { readings:case_receive(), signals:case_receive() }
        if r.channel == signals then
            if r.value.kind == process.event.CANCEL then
                sub:close()
                logger:info("the day", kinds)
                return 0
            end
        else
            local event = r.value
            kinds[event.kind] = (kinds[event.kind] or 0) + 1
            days[#days + 1] = event.kind .. " " .. event.path
            logger:info("noted", { number = #days, what = days[#days], data = event.data, system = event.system })
        end
    end
end

return { main = main }
