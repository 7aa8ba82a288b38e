local io = require("io")
local time = require("time")

local LINES = {
    "rye; 100; Hill",
    "wheat; 50; Brook",
    "no corn at all",
    "oats; 30; Hill",
    "wheat; 75; Hill",
    "rye; ten; Brook",
}

--- Builds the chain from its end, feeds it, and waits for the sum and for every stone to stop.
local function main(): integer
    local inbox, events = process.inbox(), process.events()
    local weigher = assert(process.spawn_monitored("app:weigher", "app:processes", process.pid()))
    local grinder = assert(process.spawn_monitored("app:grinder", "app:processes", weigher))
    local reader = assert(process.spawn_monitored("app:reader", "app:processes", grinder))
    local names = { [weigher] = "weigher", [grinder] = "grinder", [reader] = "reader" }

    for _, line in ipairs(LINES) do
        assert(process.send(reader, "line", line))
    end
    assert(process.send(reader, "end"))

    local sum, stopped = nil, {}
    local late = time.after("5s")
    while not sum or #stopped < 3 do
        local r = channel.select { inbox:case_receive(), events:case_receive(), late:case_receive() }
        if r.channel == late then
            io.print("the mill stands still")
            return 1
        elseif r.channel == inbox then
            sum = r.value:payload():data()
        else
            stopped[#stopped + 1] = names[r.value.from] .. " " .. tostring(r.value.result.value)
        end
    end
    table.sort(stopped)

    io.print("flour: " .. sum.total)
    for _, farm in ipairs({ "Brook", "Hill" }) do
        io.print("  " .. farm .. ": " .. sum.by_farm[farm])
    end
    for _, fault in ipairs(sum.faults) do
        io.print("not a sack: " .. fault)
    end
    io.print(table.concat(stopped, ", "))
    return 0
end

return { main = main }
