local events = require("events")

return {
    main = function(count: integer)
        for number = 1, count do
            assert(events.send("lab", "test.done", "/" .. number, { number = number }))
        end
        return process.pid()
    end,
}
