local logger = require("logger")

--- Keeps things under labels as long as it lives; found by the name "shelf".
local function main()
    local things, served = {}, 0
    local inbox, signals = process.inbox(), process.events()

    local answer = {
        put = function(request)
            local before = things[request.label]
            things[request.label] = request.thing
            return { replaced = before }
        end,
        take = function(request)
            local thing = things[request.label]
            things[request.label] = nil
            return { thing = thing, found = thing ~= nil }
        end,
        look = function(request)
            return { thing = things[request.label], found = things[request.label] ~= nil }
        end,
        list = function()
            local labels = {}
            for label in pairs(things) do
                labels[#labels + 1] = label
            end
            table.sort(labels)
            return { labels = labels, served = served }
        end,
    }

    assert(process.registry.register("shelf"))
    logger:info("the shelf is up")
    while true do
        local r = channel.select { inbox:case_receive(), signals:case_receive() }
        if r.channel == signals then
            if r.value.kind == process.event.CANCEL then
                logger:info("the shelf comes down", { served = served })
                return 0
            end
        else
            local message = r.value
            served = served + 1
            local serve = answer[message:topic()]
            local request = message:payload() and message:payload():data() or {}
            process.send(message:from(), "answer", serve and serve(request) or { error = "no such thing as " .. message:topic() })
        end
    end
end

return { main = main }
