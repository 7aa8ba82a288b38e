-- Sends ``count`` numbered items to the sink of a node, as fast as they are taken, and says when it is done.
local time = require("time")

local function main(node, count, size)
    local sink, pad = nil, ("x"):rep(size)
    while not sink do
        sink = process.registry.lookup("sink@" .. node)
        time.sleep("50ms")
    end
    local refused, n = {}, 1
    while n <= count do
        local ok, err = process.send(sink, "item", { n = n, pad = pad })
        if ok then
            n = n + 1
        elseif #refused < 20 then
            refused[#refused + 1] = tostring(err)
            time.sleep("50ms")
        else
            break
        end
    end
    process.registry.register("done:" .. process.pid():match("|(.+)}"), nil, process.registry.CONSISTENT)
    local inbox = process.inbox()
    while true do
        local message = inbox:receive()
        process.send(message:from(), "sent", { sent = n - 1, refused = refused })
    end
end

return { main = main }
