local events = require("events")
local logger = require("logger")
local registry = require("registry")

local READINGS = {
    { "reading.wind", "/hill", { speed = 20 } },
    { "reading.rain", "/valley", { mm = 3 } },
    { "reading.wind", "/coast", { speed = 95 } },
    { "station.tested", "/hill" },
    { "reading.rain", "/hill", { mm = 60 } },
    { "reading.wind", "/coast", { speed = 80 } },
}

--- Reports what it measures; who listens is none of its business. But an event is for whoever
--- listens at that moment, so it waits until as many as expected said that they do.
local function main()
    local here = process.listen("here")
    assert(process.registry.register("station"))
    for _ = 1, registry.get("app:season").data.listeners do
        here:receive()
    end
    for _, reading in ipairs(READINGS) do
        assert(events.send("weather", reading[1], reading[2], reading[3]))
    end
    assert(events.send("traffic", "reading.jam", "/coast"))
    logger:info("station is done", { sent = #READINGS })
end

return { main = main }
