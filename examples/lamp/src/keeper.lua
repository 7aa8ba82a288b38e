local io = require("io")
local time = require("time")

--- Lights the lamp again whenever it went out in a bad way, after a growing pause.
local function main(): integer
    local events = process.events()
    local seen = {}
    for attempt = 1, 9 do
        local lamp = assert(process.spawn_monitored("app:lamp", "app:processes", attempt))
        assert(not seen[lamp], "a PID is never used twice")
        seen[lamp] = true

        local event = events:receive()
        assert(event.kind == process.event.EXIT and event.from == lamp)
        if not event.result.error then
            io.print(string.format("lamp %d burned for %d hours", attempt, event.result.value.hours))
            return 0
        end
        local reason = tostring(event.result.error):gsub("^app:lamp:%d+: ", "")
        io.print(string.format("lamp %d went out: %s", attempt, reason))
        time.sleep(attempt * 10 .. "ms")
    end
    return 1
end

return { main = main }
