local time = require("time")

--- Does what it is told, once: how its life ends is what the experiments are about.
local ends = {
    returns = function(value)
        return value
    end,
    raises = function()
        error("on purpose")
    end,
    refuses = function()
        return nil, errors.new({ message = "not allowed", kind = errors.PERMISSION_DENIED, details = { by = "subject" } })
    end,
    waits_for_cancel = function()
        local event = process.events():receive()
        return { kind = event.kind, reason = event.reason, from = event.from }
    end,
    waits_for_ever = function()
        process.inbox():receive()
    end,
    counts = function(count, to)
        for number = 1, count do
            process.send(to, "number", number)
        end
        return "counted"
    end,
    answers = function()
        local message = process.inbox():receive()
        process.send(message:from(), "answer", { topic = message:topic(), data = message:payload():data(), pid = process.pid() })
        return "answered"
    end,
    links = function(to)
        assert(process.link(to))
        process.inbox():receive()
    end,
    ends_after = function(pause)
        time.sleep(pause)
        error("late")
    end,
}

local function main(how: string, ...)
    return ends[how](...)
end

return { main = main }
