-- Takes numbered messages and notes every number that is not the next one of its sender. Told "round", it sends the next
-- number to each of its peers. Moves when asked to, with a ballast whose sum must stay.
local function sum_of(text)
    local sum = 0
    for i = 1, #text, 4093 do
        sum = (sum * 31 + text:byte(i)) % 1000000007
    end
    return #text + sum
end

local function main(state)
    process.set_options({ migratable = true })
    state = state or { last = {}, wrong = {}, sent = {}, moves = 0, ballast = "", sum = 0 }
    assert(sum_of(state.ballast) == state.sum, "the ballast is another one")
    local inbox, events = process.inbox(), process.events()
    while true do
        local result = channel.select({ inbox:case_receive(), events:case_receive() })
        if result.channel == events then
            if result.value.kind == process.event.MIGRATE then
                state.moves = state.moves + 1
                process.upgrade(nil, state)
            elseif result.value.kind == process.event.CANCEL then
                return
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
            elseif topic == "round" then
                for _, peer in ipairs(data) do
                    state.sent[peer] = (state.sent[peer] or 0) + 1
                    process.send(peer, "n", state.sent[peer])
                end
            elseif topic == "tally" then
                local told = { last = state.last, wrong = state.wrong, sent = state.sent, moves = state.moves }
                process.send(from, "reply", told)
            elseif topic == "name" then
                local ok, err = process.registry.register(data.name, process.pid(), data.scope)
                process.send(from, "reply", { ok = ok, error = err and tostring(err) })
            elseif topic == "ballast" then
                state.ballast = ("ballast of a process that moves; "):rep(data // 33)
                state.sum = sum_of(state.ballast)
                process.send(from, "reply", #state.ballast)
            end
        end
    end
end

return { main = main }
