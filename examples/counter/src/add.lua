local io = require("io")
local time = require("time")

--- Adds the number of the command line (1 without one) to the counter and prints the count.
local function main(text: string?): integer
    local inbox = process.inbox()
    local deadline = time.after("5s")

    local sent, err = process.send("counter", "add", { n = tonumber(text or "1") })
    while not sent do
        if channel.select { deadline:case_receive(), default = true }.channel == deadline then
            io.eprint("no counter: " .. tostring(err))
            return 1
        end
        time.sleep("100ms")
        sent, err = process.send("counter", "add", { n = tonumber(text or "1") })
    end

    local r = channel.select { inbox:case_receive(), deadline:case_receive() }
    if r.channel == deadline then
        io.eprint("the counter did not answer")
        return 1
    end
    local data = r.value:payload():data()
    io.print(string.format("count is %d, counted on %s", data.count, data.node))
    return 0
end

return { main = main }
