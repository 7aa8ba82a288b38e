-- Counts what it is sent, and moves when it is asked to: at once, or after as long as it was told to pack.
local time = require("time")

local function main(name, state)
    if not state then
        state = { count = 0, moves = 0, packing = 0 }
        if name then
            assert(process.registry.register(name))
        end
    end
    process.set_options({ migratable = true })
    local inbox, events = process.inbox(), process.events()
    while true do
        local got = channel.select({ inbox:case_receive(), events:case_receive() })
        if got.channel == inbox then
            local message = got.value
            state.count = state.count + 1
            if message:topic() == "pack" then
                state.packing = message:payload():data()
            end
            process.send(message:from(), "counted", { count = state.count, moves = state.moves })
        elseif got.value.kind == process.event.MIGRATE then
            time.sleep(state.packing .. "ms")
            state.moves = state.moves + 1
            return process.upgrade(nil, name, state)
        elseif got.value.kind == process.event.CANCEL then
            return state.count
        end
    end
end

return { main = main }
