local funcs = require("funcs")

--- The one instance of its service in the cluster: says under which token it writes, as itself and as others.
local function main()
    process.registry.register("keeper")
    local inbox, told = process.inbox(), process.listen("token")
    while true do
        local message = inbox:receive()
        local token, err = process.fence()
        assert(process.spawn("app:apprentice", "app:processes", process.pid()))
        process.send(message:from(), "tokens", {
            own = token or err:kind(),
            called = assert(funcs.call("app:token")).token,
            child = told:receive(),
        })
    end
end

return { main = main }
