local time = require("time")

local function main(movers)
    local inbox, sent, at = process.inbox(), {}, 0
    local tick = time.ticker("5ms")
    while true do
        local result = channel.select({ inbox:case_receive(), tick:channel():case_receive() })
        if result.channel == inbox then
            tick:stop()
            process.send(result.value:from(), "reply", sent)
            return
        end
        for _ = 1, 5 do
            at = at % #movers + 1
            local mover = movers[at]
            local number = (sent[mover] or 0) + 1
            if process.send(mover, "n", number) then
                sent[mover] = number
            end
        end
    end
end

return { main = main }
