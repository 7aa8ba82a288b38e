-- Says that it moves, and then never does.
local function main()
    process.set_options({ migratable = true })
    local inbox, events = process.inbox(), process.events()
    while true do
        local result = channel.select({ inbox:case_receive(), events:case_receive() })
        if result.channel == inbox then
            process.send(result.value:from(), "reply", "here")
        elseif result.value.kind == process.event.CANCEL then
            return
        end
    end
end

return { main = main }
