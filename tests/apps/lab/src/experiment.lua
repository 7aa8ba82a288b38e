local registry = require("registry")
local time = require("time")

local HOST = "app:processes"

local function host_on(node: string): string
    return node .. "@" .. HOST
end

--- The next event, in a form that can leave the process.
local function next_event(within: string?)
    local events, late = process.events(), time.after(within or "5s")
    local r = channel.select { events:case_receive(), late:case_receive() }
    if r.channel == late then
        return { kind = "none" }
    end
    local event = r.value
    local result = event.result or {}
    local err = result.error
    return {
        kind = event.kind,
        from = event.from,
        value = result.value,
        error = err and tostring(err),
        error_kind = err and err:kind(),
        details = err and err:details(),
    }
end

local function outcome(value, err)
    return { value = value, error = err and tostring(err), kind = err and err:kind() }
end

local experiments = {
    spawn = function(node)
        local pid = assert(process.spawn("app:subject", host_on(node), "answers"))
        assert(process.send(pid, "question", { text = "who?" }))
        local message = process.inbox():receive()
        return { pid = pid, from = message:from(), answer = message:payload():data() }
    end,

    spawn_monitored = function(node, ...)
        local pid = assert(process.spawn_monitored("app:subject", host_on(node), ...))
        local event = next_event()
        return { is_child = event.from == pid, event = event }
    end,

    spawn_linked = function(node, ...)
        assert(process.set_options({ trap_links = true }))
        local pid = assert(process.spawn_linked("app:subject", host_on(node), ...))
        local event = next_event("1s")
        return { is_child = event.from == pid, event = event }
    end,

    -- one that traps nothing dies with the remote process it is linked to
    linked_dies_too = function(node)
        local remote = assert(process.spawn("app:subject", host_on(node), "waits_for_ever"))
        local fuse = assert(process.spawn_monitored("app:fuse", HOST, remote))
        time.sleep("100ms")
        assert(process.terminate(remote))
        local event = next_event()
        return { is_fuse = event.from == fuse, event = event }
    end,

    -- the link is of both sides: the remote one dies with the local one
    links_back = function(node)
        local here = assert(process.spawn("app:subject", HOST, "waits_for_ever"))
        local remote = assert(process.spawn_monitored("app:subject", host_on(node), "links", here))
        time.sleep("100ms")
        assert(process.terminate(here))
        local event = next_event()
        return { is_remote = event.from == remote, event = event }
    end,

    monitor = function(node)
        local pid = assert(process.spawn("app:subject", host_on(node), "waits_for_ever"))
        assert(process.monitor(pid))
        local again = outcome(process.monitor(pid))
        assert(process.terminate(pid))
        local event = next_event()
        return { again = again, event = event, afterwards = outcome(process.monitor(pid)) }
    end,

    unmonitor = function(node)
        local pid = assert(process.spawn_monitored("app:subject", host_on(node), "waits_for_ever"))
        assert(process.unmonitor(pid))
        assert(process.terminate(pid))
        return next_event("300ms")
    end,

    unlink = function(node)
        assert(process.set_options({ trap_links = true }))
        local pid = assert(process.spawn_linked("app:subject", host_on(node), "waits_for_ever"))
        assert(process.unlink(pid))
        assert(process.terminate(pid))
        return next_event("300ms")
    end,

    cancel = function(node)
        local pid = assert(process.spawn_monitored("app:subject", host_on(node), "waits_for_cancel"))
        assert(process.cancel(pid, "that will do"))
        return { me = process.pid(), event = next_event() }
    end,

    terminate = function(node)
        local pid = assert(process.spawn_monitored("app:subject", host_on(node), "waits_for_ever"))
        assert(process.terminate(pid))
        return { event = next_event(), again = outcome(process.terminate(pid)) }
    end,

    exec = function(node)
        return {
            good = outcome(process.exec("app:subject", host_on(node), "returns", { n = 42 })),
            bad = outcome(process.exec("app:subject", host_on(node), "refuses")),
            worse = outcome(process.exec("app:subject", host_on(node), "raises")),
        }
    end,

    -- everything a process sent arrives before the news of its end, in order
    order = function(node, count)
        local numbers = process.listen("number")
        local pid = assert(process.spawn_monitored("app:subject", host_on(node), "counts", count, process.pid()))
        local in_order = 0
        for number = 1, count do
            if numbers:receive() == number then
                in_order = in_order + 1
            end
        end
        local event = next_event()
        return { in_order = in_order, is_child = event.from == pid, event = event }
    end,

    -- a stream of messages to a name that goes to and fro between two nodes meanwhile
    moving_name = function(node, name, count, burst)
        local done, events, moves = process.listen("done"), process.events(), 0
        local holders = {
            assert(process.spawn("app:holder", host_on("node-1"))),
            assert(process.spawn("app:holder", host_on("node-2"))),
        }
        local function order(which, deed)
            process.send(holders[which], "order", { deed = deed, name = name })
            done:receive()
        end
        order(1, "take")
        assert(process.spawn_monitored("app:streamer", host_on(node), name, count, burst))
        while true do
            local r = channel.select({ events:case_receive(), default = true })
            if not r.default then
                return { holders = holders, moves = moves, refused = r.value.result.value }
            end
            order(1 + moves % 2, "give")
            order(2 - moves % 2, "take")
            moves = moves + 1
            time.sleep("10ms")
        end
    end,

    nowhere = function(node)
        return {
            node = outcome(process.spawn("app:subject", host_on("node-9"), "returns")),
            message = outcome(process.send("{node-9@app:processes|1-2a}", "question", 1)),
            host = outcome(process.spawn("app:subject", node .. "@app:nohost", "returns")),
            entry = outcome(process.spawn("app:nothing", host_on(node))),
            oversize = outcome(process.spawn("app:subject", host_on(node), "returns", string.rep("x", 1000000))),
        }
    end,

    oversize = function(node)
        local pid = assert(process.spawn("app:subject", host_on(node), "answers"))
        local refused = outcome(process.send(pid, "question", string.rep("x", 1000000)))
        local reserved = outcome(process.send(pid, "@pid/events", {}))
        assert(process.send(pid, "question", "small"))
        return { refused = refused, reserved = reserved, data = process.inbox():receive():payload():data().data }
    end,

    -- one good operation and a bad one: neither may be applied
    bad_change = function(_, entry)
        local changes = registry.snapshot():changes()
        changes:create({ id = "app:good", kind = "registry.entry", data = {} })
        changes:create(entry)
        local version, err = changes:apply()
        local good = registry.get("app:good")
        return { applied = version ~= nil or good ~= nil, kind = err and err:kind(), error = tostring(err) }
    end,
}

local function main(name: string, node: string, ...)
    return experiments[name](node, ...)
end

return { main = main }
