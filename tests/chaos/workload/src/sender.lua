local record, time = require("record"), require("time")

--- Sends numbered items to the receiver of another node, to its PID and under a monitor of it. Every burst is one
--- operation. When the monitor fires nothing more is sent before there is a new one.
local PADS = { "", ("x"):rep(100), ("x"):rep(2000) }

local function main(other)
    local inbox, events = process.inbox(), process.events()
    local to, stopped, numbers = nil, false, {}

    coroutine.spawn(function()
        while true do
            local event = events:receive()
            if event.kind == process.event.EXIT then
                record.told("down", { from = event.from, error = tostring(event.result.error) })
                to = nil
            end
        end
    end)
    coroutine.spawn(function()
        inbox:receive()
        stopped = true
    end)

    local function find()
        local pid = process.registry.lookup("receiver@" .. other)
        if pid then
            local op = record.invoke("monitor", { pid = pid })
            local ok, err = process.monitor(pid)
            record.complete(op, err)
            to = ok and pid or nil
        end
    end

    local function send(pid, count, pad)
        local first, refused, problem = (numbers[pid] or 0) + 1, {}, nil
        local op = record.invoke("send", { to = pid, first = first, last = first + count - 1 })
        local n = first - 1
        while n < first + count - 1 and to == pid do
            n = n + 1
            local ok, err = process.send(pid, "item", { n = n, pad = pad })
            if not ok then
                refused[#refused + 1] = n
                problem = err
            end
        end
        numbers[pid] = n
        record.complete(op, problem, { last = n, refused = refused })
    end

    while not stopped do
        if to then
            local is_flood = math.random() < 0.01
            send(to, is_flood and 200 or math.random(8), PADS[is_flood and 3 or math.random(#PADS)])
        else
            find()
        end
        time.sleep(to and math.random(10, 60) .. "ms" or "100ms")
    end
    record.told("stopped")
    while true do
        time.sleep("1h")
    end
end

return { main = main }
