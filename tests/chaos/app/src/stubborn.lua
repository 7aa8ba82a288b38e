local time = require("time")

local function main()
    process.registry.register("stubborn", process.pid(), process.registry.CONSISTENT)
    local signals = process.events()
    while true do
        signals:receive()
        time.sleep("10ms")
    end
end

return { main = main }
