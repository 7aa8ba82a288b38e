-- Watches a process and tells what it heard.
local function main()
    local heard = {}
    local inbox, events = process.inbox(), process.events()
    process.set_options({ trap_links = true })
    while true do
        local result = channel.select({ inbox:case_receive(), events:case_receive() })
        if result.channel == events then
            local event = result.value
            if event.kind == process.event.CANCEL then
                return
            end
            local err = event.result and event.result.error
            table.insert(heard, { kind = event.kind, from = event.from, error = err and tostring(err) })
        else
            local message = result.value
            local topic, data = message:topic(), message:payload() and message:payload():data()
            if topic == "monitor" then
                local ok, err = process.monitor(data)
                process.send(message:from(), "reply", { ok = ok, error = err and tostring(err) })
            elseif topic == "link" then
                local ok, err = process.link(data)
                process.send(message:from(), "reply", { ok = ok, error = err and tostring(err) })
            elseif topic == "heard" then
                process.send(message:from(), "reply", heard)
            end
        end
    end
end

return { main = main }
