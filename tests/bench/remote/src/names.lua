local time = require("time")

--- Registers `count` names in a scope and gives them back; returns the seconds of both.
local function main(scope: string, count: integer)
    local names, own = process.registry, process.pid()
    local began = time.now():unix_nano()
    for i = 1, count do
        assert(names.register("bench " .. scope .. i, own, names[scope]))
    end
    local registered = time.now():unix_nano()
    for i = 1, count do
        assert(names.unregister("bench " .. scope .. i, names[scope]))
    end
    return { (registered - began) / 1e9, (time.now():unix_nano() - registered) / 1e9 }
end

return { main = main }
