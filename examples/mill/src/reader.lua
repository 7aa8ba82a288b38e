local json = require("json")

--- First stone: "corn; kilos; farm" lines in, JSON out. A line that is none is passed on as a fault.
local function main(next_stone: string)
    local inbox = process.inbox()
    while true do
        local message = inbox:receive()
        if message:topic() == "end" then
            process.send(next_stone, "end")
            return "read"
        end
        local line = message:payload():data()
        local corn, kilos, farm = line:match("^(%a+); (%d+); (%a+)$")
        if corn then
            local text = assert(json.encode({ corn = corn, kilos = math.tointeger(tonumber(kilos)), farm = farm }))
            process.send(next_stone, "sack", text)
        else
            process.send(next_stone, "fault", line)
        end
    end
end

return { main = main }
