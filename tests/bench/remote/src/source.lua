local time = require("time")

local WINDOW = 20000

--- A map with an id and 100 bytes, or one with ten fields.
local function message(fields: integer): {[string]: any}
    if fields == 2 then
        return { id = 0, data = ("x"):rep(100) }
    end
    return {
        id = 0, name = "order", amount = 12.5, currency = "EUR", paid = true, items = { 1, 2, 3 },
        customer = { name = "Alice", city = "Berlin" }, tags = { "new", "web" }, note = ("y"):rep(40), count = 7,
    }
end

--- Sends `total` messages to a sink on `host` and returns the seconds until all were taken.
local function main(host: string, total: integer, fields: integer): number
    local inbox = process.inbox()
    local sink = assert(process.spawn("bench:sink", host, process.pid(), total))
    local value = message(fields)
    local taken = 0
    local began = time.now():unix_nano()
    for i = 1, total do
        value.id = i
        assert(process.send(sink, "m", value))
        while i - taken >= WINDOW do
            taken = inbox:receive():payload():data()
        end
    end
    while taken < total do
        taken = inbox:receive():payload():data()
    end
    return (time.now():unix_nano() - began) / 1e9
end

return { main = main }
