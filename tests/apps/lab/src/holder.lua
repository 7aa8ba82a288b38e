--- Holds a name while it is told to, and remembers what was sent to it: the number in each message, in order.
local function main()
    local orders, inbox = process.listen("order", { message = true }), process.inbox()
    local got = {}
    local deeds = {
        take = function(name)
            repeat
                local taken = process.registry.register(name)
            until taken
        end,
        give = function(name)
            assert(process.registry.unregister(name))
        end,
        report = function()
            return got
        end,
    }
    while true do
        local r = channel.select({ orders:case_receive(), inbox:case_receive() })
        if r.channel == orders then
            local order = r.value:payload():data()
            process.send(r.value:from(), "done", deeds[order.deed](order.name) or {})
        else
            got[#got + 1] = r.value:payload():data()
        end
    end
end

return { main = main }
