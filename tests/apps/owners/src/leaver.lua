local system = require("system")

--- Ends its node with the code it is given, and waits for that.
local function main(code)
    assert(system.exit(math.tointeger(code)))
    process.events():receive()
end

return { main = main }
