-- A service that counts its starts and notes how it was asked to end.
local store = require("store")

local function main(input)
    local notes = assert(store.get("app:shared"))
    local starts = (notes:get("starts") or 0) + 1
    notes:set("starts", starts)
    assert(process.registry.register("keeper"))
    local inbox, events = process.inbox(), process.events()
    while true do
        local picked = channel.select({ inbox:case_receive(), events:case_receive() })
        if picked.channel == inbox then
            process.send(picked.value:from(), "answer", { input = input, starts = starts, last = notes:get("last") })
        else
            notes:set("last", { reason = picked.value.reason, input = input })
            return
        end
    end
end

return { main = main }
