local events = require("events")

--- Counts what it hears, by system, kind and path.
local function main()
    local node = process.pid():match("^{(.-)@")
    local all = assert(events.subscribe("**")):channel()
    assert(process.registry.register("listener@" .. node))
    local heard = {}
    local inbox, signals = process.inbox(), process.events()
    while true do
        local r = channel.select { inbox:case_receive(), signals:case_receive(), all:case_receive() }
        if r.channel == signals then
            return
        elseif r.channel == inbox then
            process.send(r.value:from(), "heard", { heard = heard })
        else
            local key = r.value.system .. " " .. r.value.kind .. " " .. tostring(r.value.path)
            heard[key] = (heard[key] or 0) + 1
        end
    end
end

return { main = main }
