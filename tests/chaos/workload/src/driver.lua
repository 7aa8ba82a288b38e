local record, time = require("record"), require("time")

--- Keeps the parts of the workload going on its node: whatever ends begins anew, until the message "stop".
local NODES, NAMES, LOCKS = { "n1", "n2", "n3" }, { "a", "b", "c", "d" }, { "x", "y", "z" }

local function main()
    local node = process.pid():match("^{(.-)@")
    local inbox, events = process.inbox(), process.events()
    local running, stopped = {}, false

    local function start(part)
        local pid, err = process.spawn_monitored(part.entry, part.host or "app:processes", table.unpack(part.args))
        assert(pid, tostring(err))
        running[pid] = part
    end

    start({ entry = "app:receiver", args = { node } })
    start({ entry = "app:looker", args = { NAMES } })
    start({ entry = "app:looker", args = { NAMES }, host = "app:others" })
    for _ = 1, 2 do
        start({ entry = "app:namer", args = { NAMES } })
        start({ entry = "app:locker", args = { LOCKS } })
    end
    for _, other in ipairs(NODES) do
        if other ~= node then
            start({ entry = "app:sender", args = { other } })
            start({ entry = "app:watcher", args = { other } })
            start({ entry = "app:watcher", args = { other } })
        end
    end
    local name = "driver@" .. node
    coroutine.spawn(function()
        while true do -- a name goes with the lease of the node
            if process.registry.lookup(name) ~= process.pid() then
                process.registry.register(name)
            end
            time.sleep("200ms")
        end
    end)

    while true do
        local r = channel.select({ inbox:case_receive(), events:case_receive() })
        if r.channel == inbox then
            stopped = true
            for pid, part in pairs(running) do
                if part.entry == "app:sender" then
                    process.send(pid, "stop")
                end
            end
            process.send(r.value:from(), "stopped", true)
        elseif r.value.kind == process.event.EXIT then
            local part, err = running[r.value.from], r.value.result.error
            running[r.value.from] = nil
            if err and part then
                record.told("failed", { pid = r.value.from, entry = part.entry, error = tostring(err) })
            end
            if part and not stopped then
                start(part)
            end
        elseif not tostring(r.value.reason):find("^name revoked") then
            return
        end
    end
end

return { main = main }
