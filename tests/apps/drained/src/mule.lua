-- Tells how long it has when it is asked to end, and does not end.
local time = require("time")

local function main()
    local inbox, events = process.inbox(), process.events()
    local left = -1
    while true do
        local got = channel.select({ inbox:case_receive(), events:case_receive() })
        if got.channel == inbox then
            process.send(got.value:from(), "left", left)
        elseif got.value.kind == process.event.CANCEL then
            left = got.value.deadline - time.now():unix_nano() // 1000000
        end
    end
end

return { main = main }
