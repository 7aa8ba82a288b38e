local function main(state)
    process.set_options({ migratable = true, trap_links = true })
    state.last, state.wrong = state.last or {}, state.wrong or {}
    state.moves, state.told = state.moves or 0, state.told or 0
    local inbox, events = process.inbox(), process.events()
    while true do
        local result = channel.select({ inbox:case_receive(), events:case_receive() })
        if result.channel == events then
            if result.value.kind == process.event.MIGRATE then
                state.moves = state.moves + 1
                process.upgrade(nil, state)
            end
        else
            local message = result.value
            local from = message:from()
            if message:topic() == "n" then
                local number, expected = message:payload():data(), (state.last[from] or 0) + 1
                if number ~= expected then
                    table.insert(state.wrong, { from = from, expected = expected, got = number })
                end
                state.last[from] = number
                state.told = state.told + 1
                process.send(state.collector, "n", state.told)
            else
                process.send(from, "reply", { pid = process.pid(), last = state.last, wrong = state.wrong, moves = state.moves })
            end
        end
    end
end

return { main = main }
