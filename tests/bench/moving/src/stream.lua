local time = require("time")

local WINDOW = 4000

--- Sends numbered messages to a process as fast as that takes them, until it is told to stop; tells how many were taken.
local function main(to: string)
    local inbox = process.inbox()
    local value = { id = 0, data = ("x"):rep(100) }
    local sent, taken = 0, 0
    while true do
        while sent - taken < WINDOW do
            sent = sent + 1
            value.id = sent
            assert(process.send(to, "m", value))
        end
        local message = inbox:receive()
        if message:topic() == "taken" then
            taken = message:payload():data()
        else
            process.send(message:from(), "told", { taken = taken, at = time.now():unix_nano() / 1e9 })
            if message:topic() == "stop" then
                return
            end
        end
    end
end

return { main = main }
