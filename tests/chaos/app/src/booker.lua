local events = require("events")
local store = require("store")
local time = require("time")

--- Keeps a book in a database outside the cluster, under the token of its service. A new keeper raises the fence
--- there, and only then reads where the book ends. Every tenth write goes to a store of the cluster as well, without
--- waiting for what comes of it.
---
---   ledger/raise {pid, token}      wants the message "ends" {n}
---   ledger/write {pid, token, n}   nobody answers

local PAUSE = "2ms"

local function main()
    local inbox, signals = process.inbox(), process.events()
    local pid = process.pid()

    --- False when this process is to end.
    local function wait(pause)
        local over = time.after(pause)
        local r = channel.select { signals:case_receive(), over:case_receive() }
        return r.channel ~= signals or r.value.kind ~= process.event.CANCEL
    end

    local token = assert(process.fence())
    local copy = assert(store.get("app:copy"))

    local n
    while not n do
        events.send("ledger", "raise", pid, { pid = pid, token = token })
        local over = time.after("300ms")
        local r = channel.select { inbox:case_receive(), signals:case_receive(), over:case_receive() }
        if r.channel == inbox and r.value:topic() == "ends" then
            n = r.value:payload():data().n
        elseif r.channel == signals then
            return
        end
    end

    repeat
        if events.send("ledger", "write", pid, { pid = pid, token = token, n = n + 1 }) then
            n = n + 1
        end
        if n % 10 == 0 then
            local last = n
            coroutine.spawn(function()
                copy:put("book", { pid = pid, n = last })
            end)
        end
    until not wait(PAUSE)
end

return { main = main }
