local system = require("system")

local function main(wanted)
    if system.node.id() ~= wanted then
        error("no disk here")
    end
    process.inbox():receive()
end

return { main = main }
