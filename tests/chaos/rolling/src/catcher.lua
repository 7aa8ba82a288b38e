-- Notes every number that is not the next one of its sender.
local function main(name, state)
    process.set_options({ migratable = true })
    state = state or { last = {}, wrong = {}, moves = 0 }
    if name and state.moves == 0 then
        assert(process.registry.register(name, process.pid(), process.registry.CONSISTENT))
    end
    local inbox, events = process.inbox(), process.events()
    while true do
        local result = channel.select({ inbox:case_receive(), events:case_receive() })
        if result.channel == events then
            if result.value.kind == process.event.MIGRATE then
                state.moves = state.moves + 1
                process.upgrade(nil, name or false, state)
            elseif result.value.kind == process.event.CANCEL then
                return
            end
        else
            local message = result.value
            local from, data = message:from(), message:payload() and message:payload():data()
            if message:topic() == "n" then
                local expected = (state.last[from] or 0) + 1
                if data ~= expected then
                    table.insert(state.wrong, { from = from, expected = expected, got = data })
                end
                state.last[from] = data
            else
                process.send(from, "reply", state)
            end
        end
    end
end

return { main = main }
