-- Sends numbers to a process, in order, as fast as it is told.
local function main(to, count, pause)
    for n = 1, count do
        process.send(to, "add", { from = process.pid(), n = n })
        if pause and pause > 0 then
            time.sleep(pause)
        end
    end
    local events = process.events()
    while true do
        if events:receive().kind == process.event.CANCEL then
            return
        end
    end
end

return { main = main }
