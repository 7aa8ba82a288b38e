--- Takes and looks up cluster names for a test.
---
---   take {name}   replies {ok} or {error}
---   find {name}   replies {pid}, or {} when nobody has the name
local function main()
    local inbox, signals = process.inbox(), process.events()
    while true do
        local r = channel.select { inbox:case_receive(), signals:case_receive() }
        if r.channel == signals then
            return
        end
        local message = r.value
        local name = message:payload():data().name
        if message:topic() == "take" then
            local ok, err = process.registry.register(name, process.pid(), process.registry.CONSISTENT)
            process.send(message:from(), "take", ok and { ok = true } or { error = tostring(err) })
        else
            process.send(message:from(), "find", { pid = process.registry.lookup(name) })
        end
    end
end

return { main = main }
