local io = require("io")
local time = require("time")

--- Three cooks, one line of orders, one pass: fan-out and fan-in with channels.
local function cook(name: string, orders, pass)
    while true do
        local dish, open = orders:receive()
        if not open then
            break
        end
        time.sleep(dish.minutes .. "ms")
        pass:send({ dish = dish.name, cook = name })
    end
    pass:send({ done = name })
end

local function main(): integer
    local orders, pass = channel.new(2), channel.new()
    local cooks = { "Ada", "Ben", "Cyd" }
    for _, name in ipairs(cooks) do
        coroutine.spawn(function()
            cook(name, orders, pass)
        end)
    end

    coroutine.spawn(function()
        for number = 1, 12 do
            orders:send({ name = string.format("dish %02d", number), minutes = 5 + number % 3 })
        end
        orders:close()
    end)

    local dishes, working, at_work = {}, #cooks, {}
    local closing = time.after("10s")
    while working > 0 do
        local r = channel.select { pass:case_receive(), closing:case_receive() }
        if r.channel == closing then
            io.print("the kitchen is too slow")
            return 1
        elseif r.value.done then
            working = working - 1
        else
            dishes[#dishes + 1] = r.value.dish
            at_work[r.value.cook] = true
        end
    end

    table.sort(dishes)
    io.print(table.concat(dishes, ", "))
    for _, name in ipairs(cooks) do
        io.print(name .. (at_work[name] and " cooked" or " was idle"))
    end
    local ok, refused = pcall(function()
        orders:send({})
    end)
    io.print("an order after closing time:", ok, tostring(refused):match("closed") ~= nil)
    io.print("nobody at the pass:", channel.select { pass:case_receive(), default = true }.default)
    return 0
end

return { main = main }
