-- Holds names, locks and memberships of groups, and notes every number that is not the next one of its sender. Moves when
-- asked to, and does not get anything anew.
local pg = require("pg")
local system = require("system")

local function main(state)
    process.set_options({ migratable = true })
    local names = process.registry
    state = state or { last = {}, wrong = {}, moves = 0, revoked = {} }
    local inbox, events = process.inbox(), process.events()
    local numbers = process.listen("n", { message = true })

    local deeds = {}
    function deeds.get(what)
        assert(names.register(what.name, process.pid(), names.CONSISTENT))
        assert(names.register(what.name .. "-soon", process.pid(), names.EVENTUAL))
        assert(names.register(what.name .. "-strong", process.pid(), names.STRONG))
        assert(names.register(what.name .. "-here", process.pid(), names.LOCAL))
        assert(system.lock.acquire(what.name .. "-1"))
        assert(system.lock.acquire(what.name .. "-2"))
        assert(assert(pg.open("app:groups")):join(what.groups))
        return true
    end
    function deeds.fences(what)
        return { system.lock.fence(what.name .. "-1"), system.lock.fence(what.name .. "-2") }
    end
    function deeds.give_back(what)
        local _, err = assert(pg.open("app:groups")):leave(what.groups)
        local groups = assert(pg.open("app:groups"))
        return {
            names.unregister(what.name, names.CONSISTENT),
            names.unregister(what.name .. "-here", names.LOCAL),
            system.lock.release(what.name .. "-1"),
            err == nil,
            groups:get_local_members(what.groups),
        }
    end
    function deeds.tally()
        return { last = state.last, wrong = state.wrong, moves = state.moves, revoked = state.revoked }
    end

    while true do
        local result = channel.select({ inbox:case_receive(), events:case_receive(), numbers:case_receive() })
        if result.channel == numbers then
            local from, data = result.value:from(), result.value:payload():data()
            local expected = (state.last[from] or 0) + 1
            if data ~= expected then
                table.insert(state.wrong, { from = from, expected = expected, got = data })
            end
            state.last[from] = data
        elseif result.channel == events then
            local event = result.value
            if event.kind == process.event.MIGRATE then
                state.moves = state.moves + 1
                process.upgrade(nil, state)
            elseif event.kind == process.event.CANCEL then
                table.insert(state.revoked, tostring(event.reason or event.error or "cancelled"))
            end
        else
            local message = result.value
            if message:topic() == "end" then
                return
            end
            process.send(message:from(), "reply", deeds[message:topic()](message:payload():data()))
        end
    end
end

return { main = main }
