local record, time = require("record"), require("time")

--- Takes numbered items and records what came from whom, in runs of numbers without a gap.
local function main(node)
    local name = "receiver@" .. node
    local inbox, pause = process.inbox(), time.ticker("100ms")
    local runs = {}

    local function flush(from)
        local run = runs[from]
        runs[from] = nil
        record.told("took", { from = from, first = run.first, last = run.last })
    end

    coroutine.spawn(function()
        while true do -- a name goes with the lease of the node
            if process.registry.lookup(name) ~= process.pid() then
                process.registry.register(name)
            end
            time.sleep("100ms")
        end
    end)

    while true do
        local r = channel.select({ inbox:case_receive(), pause:channel():case_receive() })
        if r.channel == inbox then
            local from, n = r.value:from(), r.value:payload():data().n
            local run = runs[from]
            if run and n == run.last + 1 then
                run.last = n
            else
                if run then
                    flush(from)
                end
                runs[from] = { first = n, last = n }
            end
        else
            for from in pairs(runs) do
                flush(from)
            end
        end
    end
end

return { main = main }
