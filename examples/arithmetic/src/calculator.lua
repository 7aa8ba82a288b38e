local funcs = require("funcs")
local io = require("io")

local NS = "app.arithmetic:"

local function main(): integer
    for n = 11, 14 do
        local squared = assert(funcs.call(NS .. "square", n))
        io.print(string.format("%d squared is %d, its digits sum up to %d", n, squared, funcs.call(NS .. "square_then_sum", n)))
    end

    local pair = funcs.call(NS .. "divide", 17, 5)
    io.print("17 / 5 is", pair.quotient, "rest", pair.rest)

    local result, err = funcs.call(NS .. "divide", 1, 0)
    io.print("1 / 0 is", result, err:kind(), err:message(), err:details().dividend)

    local _, missing = funcs.call(NS .. "root", 2)
    io.print("a root is", missing:kind())

    local _, wrong = funcs.call(NS .. "square", "many")
    io.print("many squared is", wrong:kind())

    -- several at once
    local futures = {}
    for n = 1, 5 do
        futures[n] = assert(funcs.async(NS .. "square", n))
    end
    local squares = {}
    for n, future in ipairs(futures) do
        local payload, ok = future:response():receive()
        squares[n] = ok and payload:data()
    end
    io.print("at once: " .. table.concat(squares, " "))
    return 0
end

return { main = main }
