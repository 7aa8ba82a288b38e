local time = require("time")

--- Tell the station, wherever it is, that one more listens.
local function announce()
    while not process.send("station", "here", true) do
        time.sleep("20ms")
    end
end

return { announce = announce }
