-- Takes numbered items and remembers, for each sender, what came in what order.
local time = require("time")

local name = "sink@" .. process.pid():match("^{([^@]+)@")

local function register()
    while not process.registry.register(name, process.pid(), process.registry.CONSISTENT) do
        time.sleep("100ms")
    end
end

local function main()
    coroutine.spawn(register)
    local inbox, events, last, wrong, taken = process.inbox(), process.events(), {}, {}, 0
    while true do
        local picked = channel.select({ inbox:case_receive(), events:case_receive() })
        if picked.channel == events then
            if not tostring(picked.value.reason or ""):find("^name revoked") then
                return -- asked to end
            end
            coroutine.spawn(register) -- the node has a new lease
        else
            local message = picked.value
            local data, from = message:payload():data(), message:from()
            if message:topic() == "item" then
                local expected = (last[from] or 0) + 1
                if data.n ~= expected and #wrong < 20 then
                    wrong[#wrong + 1] = ("%s: expected %d, got %d"):format(from, expected, data.n)
                end
                last[from] = data.n
                taken = taken + 1
            elseif message:topic() == "seen" then
                process.send(from, "seen", { taken = taken, wrong = wrong, last = last })
            end
        end
    end
end

return { main = main }
