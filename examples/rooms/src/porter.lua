local events = require("events")
local io = require("io")
local registry = require("registry")
local time = require("time")

local ROOMS = { "attic", "cellar", "garden", "hall", "library" }

--- Opens all rooms at the same time, lets guests in, and counts what the house tells.
local function main(): integer
    local house = assert(events.subscribe("house")):channel()
    local inbox, signals = process.inbox(), process.events()
    local late = time.after("10s")
    local heard = {}

    local function hear(kind: string, times: integer)
        while (heard[kind] or 0) < times do
            local r = channel.select { house:case_receive(), late:case_receive() }
            assert(r.channel == house, "the house is silent")
            heard[r.value.kind] = (heard[r.value.kind] or 0) + 1
        end
    end

    local function rooms(): string
        local found = {}
        for _, entry in ipairs(registry.find({ ["meta.type"] = "room" })) do
            found[#found + 1] = entry.meta.title
        end
        table.sort(found)
        return #found .. " rooms: " .. table.concat(found, ", ")
    end

    io.print(rooms())
    for _, name in ipairs(ROOMS) do
        assert(process.spawn_monitored("app:room", "app:processes", name))
    end
    hear("room.opened", #ROOMS)
    io.print(rooms())

    for _, visit in ipairs({ { "hall", "Ann" }, { "hall", "Bo" }, { "cellar", "Cy" } }) do
        assert(process.send("room/" .. visit[1], "enter", { guest = visit[2] }))
    end
    for number = 1, 4 do
        assert(process.send("room/hall", "say", { guest = number % 2 == 0 and "Bo" or "Ann", words = "..." }))
    end
    hear("guest.entered", 3)
    hear("guest.spoke", 4)

    for _, name in ipairs({ "hall", "cellar" }) do
        assert(process.send("room/" .. name, "count"))
        local counted = inbox:receive():payload():data()
        io.print(string.format("%s: %s, %d lines", counted.room, table.concat(counted.guests, " and "), counted.said))
    end

    for _, name in ipairs(ROOMS) do
        assert(process.send("room/" .. name, "close"))
    end
    local closed = 0
    for _ = 1, #ROOMS do
        closed = closed + (signals:receive().result.value and 1 or 0)
    end
    hear("room.closed", #ROOMS)
    io.print("closed in order:", closed)
    io.print(rooms())
    return 0
end

return { main = main }
