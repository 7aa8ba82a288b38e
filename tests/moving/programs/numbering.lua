-- Sends 1, 2, 3 ... to a PID or a name, some in a row and then a pause, until it is told to stop; tells how many.
local time = require("time")

local function main(to, in_a_row, pause)
    local inbox, events = process.inbox(), process.events()
    local sent, failed = 0, {}
    local next_run = time.after(pause)
    while true do
        local result = channel.select({ inbox:case_receive(), events:case_receive(), next_run:case_receive() })
        if result.channel == next_run then
            for _ = 1, in_a_row do
                local ok, err = process.send(to, "n", sent + 1)
                if ok then
                    sent = sent + 1
                else
                    table.insert(failed, tostring(err))
                end
            end
            next_run = time.after(pause)
        elseif result.channel == inbox then
            process.send(result.value:from(), "reply", { sent = sent, failed = failed })
            return
        elseif result.value.kind == process.event.CANCEL then
            return
        end
    end
end

return { main = main }
