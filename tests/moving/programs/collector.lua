-- Keeps what it is sent, in order.
local function main()
    assert(process.registry.register("collector"))
    local got = {}
    local inbox, events = process.inbox(), process.events()
    while true do
        local result = channel.select({ inbox:case_receive(), events:case_receive() })
        if result.channel == events then
            if result.value.kind == process.event.CANCEL then
                return
            end
        elseif result.value:topic() == "got" then
            table.insert(got, result.value:payload():data())
        else
            process.send(result.value:from(), "reply", got)
        end
    end
end

return { main = main }
