-- Stays where it is until it is asked to end.

local function main()
    local events = process.events()
    while true do
        local event = events:receive()
        if event.kind == process.event.CANCEL then
            return event.deadline
        end
    end
end

return { main = main }
