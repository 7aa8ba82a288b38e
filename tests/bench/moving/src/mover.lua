local time = require("time")

--- Some state as a session or an order has it.
local function new_state(number: integer, keeper: string?)
    local lines = {}
    for i = 1, 20 do
        lines[i] = { article = "article " .. i, price = i * 1.5, amount = i }
    end
    return { number = number, keeper = keeper, lines = lines, last = {}, wrong = 0, starts = 0, still = 0 }
end

--- Takes numbers and answers each; moves, and takes new code, when it is asked to. Notes what came in a wrong order, and
--- for how long it stood still at most, in microseconds.
---
---   n 17     the next number of its sender: answered with it
---   m 17     the same, answered every 500
---   tell     answered with {wrong, starts, still, whole}
---   end      it ends
local function main(state, number: integer?, keeper: string?)
    process.set_options({ migratable = true, upgradable = true })
    local inbox, events = process.inbox(), process.events()
    if state then
        state.starts = state.starts + 1
        state.still = math.max(state.still, (time.now():unix_nano() - state.left) // 1000)
        if state.keeper then
            process.send(state.keeper, "again")
        end
    else
        state = new_state(number, keeper)
    end

    local function check(from: string, got: integer)
        if got ~= (state.last[from] or 0) + 1 then
            state.wrong = state.wrong + 1
        end
        state.last[from] = got
    end

    while true do
        local r = channel.select { inbox:case_receive(), events:case_receive() }
        if r.channel == events then
            local kind = r.value.kind
            if kind == process.event.MIGRATE or kind == process.event.OUTDATED then
                state.left = time.now():unix_nano()
                process.upgrade(nil, state)
            elseif kind == process.event.CANCEL then
                return
            end
        else
            local message = r.value
            local topic, from = message:topic(), message:from()
            if topic == "n" then
                local got = message:payload():data()
                check(from, got)
                process.send(from, "n", got)
            elseif topic == "m" then
                local got = message:payload():data().id
                check(from, got)
                if got % 500 == 0 then
                    process.send(from, "taken", got)
                end
            elseif topic == "tell" then
                local whole = #state.lines == 20 and state.lines[20].price == 30.0
                process.send(from, "told", { wrong = state.wrong, starts = state.starts, still = state.still, whole = whole })
            else
                return
            end
        end
    end
end

return { main = main }
