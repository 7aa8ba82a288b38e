-- Answers under a name until it is told to stop, and what was asked by then as well.
local function main(name)
    assert(process.registry.register(name, process.pid(), process.registry.CONSISTENT))
    local inbox, events = process.inbox(), process.events()
    local is_open = true
    while is_open do
        local result = channel.select({ inbox:case_receive(), events:case_receive() })
        if result.channel == inbox then
            process.send(result.value:from(), "reply", "open")
        elseif result.value.kind == process.event.CANCEL then
            is_open = false
        end
    end
    while true do
        local result = channel.select({ inbox:case_receive(), default = true })
        if result.default then
            return
        end
        process.send(result.value:from(), "reply", "closing")
    end
end

return { main = main }
