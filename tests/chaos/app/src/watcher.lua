local time = require("time")

--- On every node under the name "watcher@<node>".
---
---   watch {pid}  monitors a process: replies {ok} or {error}
---   seen         replies {exits = {pid = kind of its error}, pid, name}

local node = process.pid():match("^{(.-)@")
local name = "watcher@" .. node

local function main()
    local inbox, signals = process.inbox(), process.events()
    local exits, seen = {}, 0

    --- A name goes with the node's lease; the node that has a new one has to be told the name again.
    local function keep_name()
        if process.registry.lookup(name) ~= process.pid() then
            process.registry.register(name, process.pid(), process.registry.CONSISTENT)
        end
    end

    keep_name()
    local look = time.ticker("200ms")
    while true do
        local r = channel.select {
            inbox:case_receive(),
            signals:case_receive(),
            look:channel():case_receive(),
        }
        if r.channel == inbox then
            local message = r.value
            if message:topic() == "watch" then
                local ok, err = process.monitor(message:payload():data().pid)
                process.send(message:from(), "watch", ok and { ok = true } or { error = tostring(err) })
            else
                process.send(message:from(), "seen", { exits = exits, count = seen, pid = process.pid() })
            end
        elseif r.channel == signals then
            local event = r.value
            if event.kind == process.event.EXIT then
                seen = seen + 1
                local err = event.result and event.result.error
                exits[event.from] = err and tostring(err) or "normal"
            elseif not tostring(event.reason or ""):find("^name revoked") then
                return 0
            end
        else
            keep_name()
        end
    end
end

return { main = main }
