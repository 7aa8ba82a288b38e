local logger = require("logger")
local time = require("time")

--- Plays a few strokes against the wall, wherever that is.
local function main(strokes: integer)
    local returns = process.listen("back")
    while not process.registry.lookup("wall") do
        time.sleep("20ms")
    end
    local played = 0
    while played < strokes do
        local stroke = played + 1
        if process.send("wall", "ball", { stroke = stroke, speed = stroke * 20 }) then
            local late = time.after("3s")
            local r = channel.select { returns:case_receive(), late:case_receive() }
            assert(r.channel == returns, "the ball is lost")
            played = r.value.stroke
            logger:info("stroke", { number = played, speed = r.value.speed })
        end
        time.sleep("20ms")
    end
    logger:info("game over", { strokes = played })
    return played
end

return { main = main }
