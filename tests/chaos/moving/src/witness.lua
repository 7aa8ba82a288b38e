local function main(movers)
    local heard, failed = {}, {}
    for _, mover in ipairs(movers) do
        local ok, err = process.monitor(mover)
        if not ok then
            table.insert(failed, tostring(err))
        end
    end
    local inbox, events = process.inbox(), process.events()
    while true do
        local result = channel.select({ inbox:case_receive(), events:case_receive() })
        if result.channel == inbox then
            process.send(result.value:from(), "reply", { heard = heard, failed = failed })
        elseif result.value.kind == process.event.EXIT then
            heard[result.value.from] = (heard[result.value.from] or 0) + 1
        end
    end
end

return { main = main }
