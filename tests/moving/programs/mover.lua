-- Takes numbered messages, notes every number that is not the next one of its sender, and tells each on to a peer under
-- numbers of its own. Moves when asked to; one that is cancelled goes on.
local function main(state)
    process.set_options({ migratable = true, trap_links = true })
    state = state or { last = {}, wrong = {}, moves = 0, told = 0, exits = {} }
    local inbox, events = process.inbox(), process.events()
    while true do
        local result = channel.select({ inbox:case_receive(), events:case_receive() })
        if result.channel == events then
            local event = result.value
            if event.kind == process.event.MIGRATE then
                if not state.stays then
                    state.moves = state.moves + 1
                    process.upgrade(nil, state)
                end
            elseif event.kind ~= process.event.CANCEL then
                table.insert(state.exits, event.from)
            end
        else
            local message = result.value
            local topic, from, data = message:topic(), message:from(), message:payload() and message:payload():data()
            if topic == "n" then
                local expected = (state.last[from] or 0) + 1
                if data ~= expected then
                    table.insert(state.wrong, { from = from, expected = expected, got = data })
                end
                state.last[from] = data
                if state.peer then
                    state.told = state.told + 1
                    process.send(state.peer, "n", state.told)
                end
            elseif topic == "peer" then
                state.peer = data
                process.send(from, "reply", true)
            elseif topic == "stays" then
                state.stays = data
                process.send(from, "reply", true)
            elseif topic == "tally" then
                process.send(from, "reply", { last = state.last, wrong = state.wrong, moves = state.moves, told = state.told, exits = state.exits })
            elseif topic == "name" then
                local ok, err = process.registry.register(data.name, process.pid(), data.scope)
                process.send(from, "reply", { ok = ok, error = err and tostring(err) })
            elseif topic == "monitor" then
                local ok, err = process.monitor(data)
                process.send(from, "reply", { ok = ok, error = err and tostring(err) })
            elseif topic == "end" then
                return
            end
        end
    end
end

return { main = main }
