local logger = require("logger")
local time = require("time")

--- Depends on the sink of a node in every way there is, and says in the log what it is told:
---
---   told  what=monitor|link|call  why=...
local function main(node)
    assert(process.set_options({ trap_links = true }))
    local sink
    while not sink do
        time.sleep("50ms")
        sink = process.registry.lookup("sink@" .. node)
    end
    assert(process.monitor(sink))
    assert(process.link(sink))
    coroutine.spawn(function()
        local _, err = process.exec("app:namer_process", node .. "@app:processes")
        logger:info("told", { what = "call", why = tostring(err) })
    end)
    logger:info("concerned", { sink = sink })

    local inbox, signals = process.inbox(), process.events()
    while true do
        local r = channel.select { inbox:case_receive(), signals:case_receive() }
        local event = r.value
        if r.channel == inbox then
            process.send(event:from(), "concerned", { sink = sink })
        elseif event.kind == process.event.EXIT or event.kind == process.event.LINK_DOWN then
            local err = event.result and event.result.error
            local what = event.kind == process.event.EXIT and "monitor" or "link"
            logger:info("told", { what = what, why = tostring(err) })
        else
            return
        end
    end
end

return { main = main }
