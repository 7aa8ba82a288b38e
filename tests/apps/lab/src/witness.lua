--- Watches a process in one way, and tells what it saw to whoever asks.
local function main(how: string, pid: string)
    if how == "linked and trapping" then
        assert(process.set_options({ trap_links = true }))
    end
    local watch = how == "monitoring" and process.monitor or process.link
    assert(watch(pid))
    assert(process.registry.register("witness " .. how))

    local seen = {}
    local inbox, events = process.inbox(), process.events()
    while true do
        local r = channel.select { inbox:case_receive(), events:case_receive() }
        if r.channel == inbox then
            process.send(r.value:from(), "seen", { seen = seen })
        elseif r.value.kind == process.event.CANCEL then
            return
        else
            local err = r.value.result.error
            seen[#seen + 1] = { kind = r.value.kind, from = r.value.from, error = tostring(err), what = err:kind() }
        end
    end
end

return { main = main }
