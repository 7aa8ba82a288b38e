-- Counts what it gets, moves when asked to, and tells how often it was where.
local function main(state)
    process.set_options({ migratable = true, trap_links = true })
    state = state or { count = 0, moves = 0, seen = {}, exits = {} }
    local inbox, events = process.inbox(), process.events()
    while true do
        local result = channel.select({ inbox:case_receive(), events:case_receive() })
        if result.channel == events then
            local event = result.value
            if event.kind == process.event.MIGRATE then
                state.moves = state.moves + 1
                process.upgrade(nil, state)
            elseif event.kind == process.event.CANCEL then
                return "cancelled"
            else
                table.insert(state.exits, { kind = event.kind, from = event.from })
            end
        else
            local message = result.value
            local topic, data = message:topic(), message:payload() and message:payload():data()
            if topic == "add" then
                state.count = state.count + 1
                table.insert(state.seen, data)
            elseif topic == "state" then
                process.send(message:from(), "reply", state)
            elseif topic == "name" then
                local ok, err = process.registry.register(data.name, process.pid(), data.scope)
                process.send(message:from(), "reply", { ok = ok, error = err and tostring(err) })
            elseif topic == "monitor" then
                local ok, err = process.monitor(data)
                process.send(message:from(), "reply", { ok = ok, error = err and tostring(err) })
            elseif topic == "forward" then
                process.send(data.to, data.topic, data.value)
            elseif topic == "end" then
                return state.count
            elseif topic == "fail" then
                error("as asked")
            end
        end
    end
end

return { main = main }
