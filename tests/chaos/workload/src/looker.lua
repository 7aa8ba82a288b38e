local record, time = require("record"), require("time")

--- Looks up all names, twenty times a second.
local function main(names)
    while true do
        local values = {}
        for _, name in ipairs(names) do
            values[name] = process.registry.lookup(name) or false
        end
        record.told("looks", { values = values })
        time.sleep("50ms")
    end
end

return { main = main }
