local time = require("time")

--- Runs `count` askers side by side against an echo on `host`; returns the seconds and all durations.
local function main(host: string, count: integer, rounds: integer)
    local echo = assert(process.spawn("bench:echo", host))
    local events = process.events()
    local own = process.pid():match("@(.-)|")
    local began = time.now():unix_nano()
    for _ = 1, count do
        assert(process.spawn_monitored("bench:asker", own, echo, rounds))
    end
    local all = {}
    for _ = 1, count do
        local result = events:receive().result
        assert(not result.error, tostring(result.error))
        for _, duration in ipairs(result.value) do
            all[#all + 1] = duration
        end
    end
    local seconds = (time.now():unix_nano() - began) / 1e9
    process.terminate(echo)
    return { seconds = seconds, durations = all }
end

return { main = main }
