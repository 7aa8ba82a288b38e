local record, time = require("record"), require("time")

--- Starts a process on another node, watches it, and waits to be told of its end.
local ENDS = { "returns", "fails", "waits" }

local function main(other)
    process.set_options({ trap_links = true })
    local inbox, events = process.inbox(), process.events()
    local how, life = ENDS[math.random(#ENDS)], math.random(100, 2500)

    local function ask(f, pid, act)
        local op = record.invoke(f, { pid = pid })
        local ok, err = act(pid)
        record.complete(op, err)
        return ok
    end

    local op = record.invoke("spawn", { node = other, how = how })
    local pid, err = process.spawn("app:victim", other .. "@app:others", process.pid(), how, life)
    record.complete(op, err, { pid = pid })
    if not pid then
        time.sleep("200ms")
        return
    end
    local monitored = ask("monitor", pid, process.monitor)
    if not monitored then
        return
    end
    local linked = math.random() < 0.5 and ask("link", pid, process.link)

    local function read(message)
        record.told("word", { from = message:from(), n = message:payload():data() })
    end

    local over = how == "waits" and time.after(life .. "ms") or channel.new(0)
    while monitored or linked do
        local r = channel.select({ inbox:case_receive(), events:case_receive(), over:case_receive() })
        if r.channel == inbox then
            read(r.value)
        elseif r.channel == events then
            while true do -- what came before it waits in the inbox
                local word = channel.select({ inbox:case_receive(), default = true })
                if word.default then
                    break
                end
                read(word.value)
            end
            local problem = r.value.result.error
            local is_exit = r.value.kind == process.event.EXIT
            record.told(is_exit and "exit" or "link_down", { from = r.value.from, error = problem and tostring(problem) })
            if is_exit then
                monitored = false
                linked = linked and problem ~= nil
            else
                linked = false
            end
        else
            ask("terminate", pid, process.terminate)
            over = channel.new(0)
        end
    end
end

return { main = main }
