local logger = require("logger")

--- Returns every ball to whoever played it.
local function main()
    assert(process.registry.register("wall"))
    logger:info("the wall stands")
    local balls, signals = process.listen("ball", { message = true }), process.events()
    while true do
        local r = channel.select { balls:case_receive(), signals:case_receive() }
        if r.channel == signals then
            if r.value.kind == process.event.CANCEL then
                logger:info("the wall rests", { why = r.value.reason })
                return 0
            end
        else
            local ball = r.value:payload():data()
            process.send(r.value:from(), "back", { stroke = ball.stroke, speed = ball.speed // 2 })
        end
    end
end

return { main = main }
