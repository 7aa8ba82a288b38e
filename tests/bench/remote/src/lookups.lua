local time = require("time")

--- Looks up one name `count` times; returns the seconds.
local function main(scope: string, count: integer)
    local names, own = process.registry, process.pid()
    assert(names.register("bench somebody", own, names[scope]))
    local began = time.now():unix_nano()
    for _ = 1, count do
        assert(names.lookup("bench somebody"))
    end
    local seconds = (time.now():unix_nano() - began) / 1e9
    assert(names.unregister("bench somebody", names[scope]))
    return seconds
end

return { main = main }
