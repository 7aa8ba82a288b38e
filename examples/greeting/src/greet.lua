local io = require("io")

--- Greets everyone on the command line.
local function main(...: string): integer
    local guests = { ... }
    if #guests == 0 then
        guests[1] = "stranger"
    end
    for _, guest in ipairs(guests) do
        io.print("Good morning, " .. guest .. "!")
    end
    local host = process.pid():match("^{[^@]+@(.-)|%w+%-%w+}$")
    io.print("said by a process of " .. process.id() .. " on " .. tostring(host))
    io.write("as args: ", table.concat(io.args(), ","), "\n")
    return 0
end

return { main = main }
