local time = require("time")

--- Sends numbered items to the sink of a node, one every `pause`; what is refused is sent again next time.
---
---   steady   replies {sent, refused}
local function main(node, pause)
    local sink
    while not sink do
        time.sleep("50ms")
        sink = process.registry.lookup("sink@" .. node)
    end
    local inbox, signals, ticks = process.inbox(), process.events(), time.ticker(pause):channel()
    local sent, refused = 0, 0
    while true do
        local r = channel.select { inbox:case_receive(), signals:case_receive(), ticks:case_receive() }
        if r.channel == signals then
            return
        elseif r.channel == inbox then
            process.send(r.value:from(), "steady", { sent = sent, refused = refused })
        elseif process.send(sink, "item", { n = sent + 1 }) then
            sent = sent + 1
        else
            refused = refused + 1
        end
    end
end

return { main = main }
