local function main()
    local last, wrong, inbox = {}, {}, process.inbox()
    while true do
        local message = inbox:receive()
        local from = message:from()
        if message:topic() == "n" then
            local number, expected = message:payload():data(), (last[from] or 0) + 1
            if number ~= expected then
                table.insert(wrong, { from = from, expected = expected, got = number })
            end
            last[from] = number
        else
            process.send(from, "reply", { last = last, wrong = wrong })
        end
    end
end

return { main = main }
