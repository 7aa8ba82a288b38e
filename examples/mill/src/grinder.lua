local json = require("json")

local LOSS = { rye = 10, wheat = 20 } -- percent

--- Second stone: takes the chaff off.
local function main(next_stone: string)
    local inbox = process.inbox()
    while true do
        local message = inbox:receive()
        local topic = message:topic()
        if topic == "end" then
            process.send(next_stone, "end")
            return "ground"
        elseif topic == "fault" then
            process.send(next_stone, "fault", message:payload():data())
        else
            local sack = assert(json.decode(message:payload():data()))
            sack.flour = sack.kilos * (100 - (LOSS[sack.corn] or 50)) // 100
            process.send(next_stone, "flour", sack)
        end
    end
end

return { main = main }
