local pg = require("pg")

--- Speaks to members of a group by turns: to one by its PID, then to the whole group. Tells how far it got.
local function main(group, member, count)
    local groups = assert(pg.open("app:groups"))
    for number = 1, count do
        if number % 3 == 0 then
            assert(groups:broadcast(group, "number", number))
        else
            assert(process.send(member, "number", number))
        end
    end
    return count
end

return { main = main }
