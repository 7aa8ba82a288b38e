-- A service that passes each number it gets on to a collector, with who it is. Asked to end, it finishes what has come.
local time, store = require("time"), require("store")

local function main(options)
    local state = options
    if options.migratable then
        process.set_options({ migratable = true })
    end
    if not options.moves then
        state.moves = 0
        time.sleep(options.init or "0s")
        for _, name in ipairs(options.names) do
            assert(process.registry.register(name))
        end
    end
    local inbox, events = process.inbox(), process.events()
    local last = options.store and assert(store.get(options.store))

    local function handle(message)
        local topic, from, data = message:topic(), message:from(), message:payload() and message:payload():data()
        if topic == "n" then
            if last and data % 5 == 0 then
                assert(last:set(from, data))
            end
            process.send("collector", "got", { from = from, number = data, by = process.pid() })
        elseif topic == "who" then
            local token, err = process.fence()
            process.send(from, "reply", { pid = process.pid(), fence = token, moves = state.moves, error = err and tostring(err) })
        elseif topic == "fail" then
            error("as asked")
        end
    end

    while true do
        local result = channel.select({ inbox:case_receive(), events:case_receive() })
        if result.channel == inbox then
            handle(result.value)
        elseif result.value.kind == process.event.MIGRATE then
            state.moves = state.moves + 1
            process.upgrade(nil, state)
        elseif result.value.kind == process.event.CANCEL then
            break
        end
    end
    while true do
        local result = channel.select({ inbox:case_receive(), default = true })
        if result.default then
            time.sleep(options.last_words or "0s")
            return
        end
        handle(result.value)
    end
end

return { main = main }
