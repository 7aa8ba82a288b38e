local io = require("io")
local time = require("time")

--- Reads lines until the end of the input and puts each to the desk.
local function main(): integer
    local answers, refusals = process.listen("answer"), process.listen("sorry")
    while not process.registry.lookup("desk") do
        time.sleep("20ms")
    end
    local clerks, asked = {}, 0
    while true do
        io.write("? ")
        local line = io.readline()
        if not line then
            break
        end
        asked = asked + 1
        assert(process.send("desk", "question", line))
        local late = time.after("5s")
        local r = channel.select { answers:case_receive(), refusals:case_receive(), late:case_receive() }
        if r.channel == answers then
            io.print(r.value.backwards, "(" .. r.value.words .. " words)")
            clerks[r.value.clerk] = true
        elseif r.channel == refusals then
            io.print("sorry:", r.value)
        else
            io.print("the desk does not answer")
        end
    end
    local different = 0
    for _ in pairs(clerks) do
        different = different + 1
    end
    io.print("")
    io.print(asked .. " questions, " .. different .. " clerks")
    return 0
end

return { main = main }
