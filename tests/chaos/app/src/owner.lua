local store = require("store")
local time = require("time")

--- Takes the name "owner", once the one before it has lost it.
local function register()
    while not process.registry.register("owner", process.pid(), process.registry.CONSISTENT) do
        time.sleep("50ms")
    end
end

--- Writes {pid, n} under "owner" every 20 ms. Once a write is refused, this process owns nothing any more.
local function main()
    coroutine.spawn(register)
    local shared = assert(store.get("app:shared"))
    local inbox, signals = process.inbox(), process.events()
    local n = 0

    while true do
        n = n + 1
        local written, err = shared:put("owner", { pid = process.pid(), n = n })
        if not written and err:kind() == errors.PERMISSION_DENIED then
            return nil, err
        end
        local pause = time.after("20ms")
        local r = channel.select { inbox:case_receive(), signals:case_receive(), pause:case_receive() }
        if r.channel == signals and r.value.kind == process.event.CANCEL then
            return 0
        elseif r.channel == inbox then
            process.send(r.value:from(), "owner", { pid = process.pid(), n = n })
        end
    end
end

return { main = main }
