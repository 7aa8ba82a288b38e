-- Sends the next number to every target, again and again, wherever it is.
local time = require("time")

local function main(state)
    process.set_options({ migratable = true })
    local inbox, events = process.inbox(), process.events()
    while true do
        local cases = { inbox:case_receive(), events:case_receive() }
        if not state.rests then
            table.insert(cases, time.after("4ms"):case_receive())
        end
        local result = channel.select(cases)
        if result.channel == events then
            if result.value.kind == process.event.MIGRATE then
                process.upgrade(nil, state)
            end
        elseif result.channel == inbox then
            local message = result.value
            if message:topic() == "rest" then
                state.rests = true
            end
            process.send(message:from(), "reply", { n = state.n, unsent = state.unsent })
        else
            state.n = state.n + 1
            for _, target in ipairs(state.targets) do
                local ok, err = process.send(target, "n", state.n)
                if not ok then
                    table.insert(state.unsent, { to = target, n = state.n, error = tostring(err) })
                end
            end
        end
    end
end

return { main = main }
