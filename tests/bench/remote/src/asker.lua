local time = require("time")

--- Makes `rounds` round trips to `echo`, one after the other; returns their durations in microseconds.
local function main(echo: string, rounds: integer)
    local inbox = process.inbox()
    local data = { id = 0, data = ("x"):rep(100) }
    local durations = table.create(rounds, 0)
    for i = 1, rounds do
        data.id = i
        local began = time.now():unix_nano()
        process.send(echo, "ping", data)
        assert(inbox:receive():payload():data().id == i)
        durations[i] = (time.now():unix_nano() - began) // 1000
    end
    return durations
end

return { main = main }
