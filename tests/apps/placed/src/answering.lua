local system = require("system")

local function main()
    local inbox = process.inbox()
    while true do
        local message = inbox:receive()
        process.send(message:from(), "answer", { node = system.node.id(), pid = process.pid() })
    end
end

return { main = main }
