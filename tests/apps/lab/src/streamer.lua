local time = require("time")

--- Sends the numbers 1..count to a name, in bursts; one that is refused at once goes again until it is not.
local function main(name, count, burst)
    local refused = 0
    for number = 1, count do
        while not process.send(name, "n" .. number, number) do
            refused = refused + 1
            time.sleep("1ms")
        end
        if number % burst == 0 then
            time.sleep("2ms")
        end
    end
    return refused
end

return { main = main }
