--- Takes `total` messages and tells the sender of every 5,000th, so that a bounded number is under way.
local function main(source: string, total: integer)
    local inbox = process.inbox()
    for i = 1, total do
        local message = inbox:receive()
        assert(message:payload():data().id == i, "out of order")
        if i % 5000 == 0 or i == total then
            process.send(source, "taken", i)
        end
    end
end

return { main = main }
