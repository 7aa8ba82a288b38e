-- Monitors a process and says how it ended.
local function main(pid, name)
    local inbox, events = process.inbox(), process.events()
    assert(process.monitor(pid))
    assert(process.registry.register(name))
    local seen = {}
    while true do
        local picked = channel.select({ inbox:case_receive(), events:case_receive() })
        local value = picked.value
        if picked.channel == inbox then
            process.send(value:from(), "answer", seen)
        elseif value.kind == process.event.EXIT then
            seen[#seen + 1] = { from = value.from, value = value.result.value }
        end
    end
end

return { main = main }
