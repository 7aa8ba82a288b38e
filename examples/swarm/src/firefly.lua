local time = require("time")

--- Blinks at its own pace and tells the meadow, as long as there is one.
local function main(meadow: string, pause: integer)
    while true do
        time.sleep(pause)
        local seen, err = process.send(meadow, "blink")
        if not seen and err:kind() == errors.NOT_FOUND then
            return
        end
    end
end

return { main = main }
