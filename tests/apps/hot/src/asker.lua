-- Answers each message with what a function says, called from this host.
local funcs = require("funcs")

local function main()
    while true do
        local message = process.inbox():receive()
        local answer, err
        if message:topic() == "change" then
            answer, err = funcs.call("app:change", "create", message:payload():data())
        else
            answer, err = funcs.call("app:say")
        end
        process.send(message:from(), "answer", answer or tostring(err))
    end
end

return { main = main }
