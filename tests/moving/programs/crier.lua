-- Sends 1, 2, 3 ... to the only member of a group, by turns to the group and to its PID, until told to stop; tells how many.
local pg = require("pg")
local time = require("time")

local function main(group, to, pause)
    local groups = assert(pg.open("app:groups"))
    local inbox = process.inbox()
    local sent = 0
    while true do
        local result = channel.select({ inbox:case_receive(), time.after(pause):case_receive() })
        if result.channel == inbox then
            process.send(result.value:from(), "reply", { sent = sent })
            return
        end
        sent = sent + 1
        if sent % 3 == 0 then
            assert(process.send(to, "n", sent))
        else
            assert(groups:broadcast(group, "n", sent))
        end
    end
end

return { main = main }
