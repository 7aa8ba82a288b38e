local time = require("time")

--- Blinks at its own pace and tells the meadow.
local function main(meadow: string, pause: integer)
    while true do
        time.sleep(pause)
        process.send(meadow, "blink")
    end
end

return { main = main }
