local events = require("events")
local logger = require("logger")
local registry = require("registry")
local time = require("time")
local bucket = require("bucket")

--- A worker: one runs on every node. It takes jobs at the rate of the entry app:limits,
--- which an operator may change at any time, and passes them to the counter wherever that
--- runs. It watches the counter and counts how often it went away.
---
---   work {n}  adds n to the counter: replies {node, count, counted_on}
---             or, over the rate, {node, refused = "over 2 jobs per second"}
---   status    replies {node, pid, rate, jobs, counter_exits}

local function node_of(pid: string): string
    return pid:match("^{(.-)@") or "?"
end

--- The rate in app:limits. A value that makes no sense changes nothing.
local function read_rate(current: number): number
    local entry, err = registry.get("app:limits")
    if err then
        logger:warn("app:limits can't be read, the rate stays", { rate = current, error = tostring(err) })
        return current
    end
    local rate = tonumber(entry.data.rate)
    if not rate or rate <= 0 then
        logger:warn("app:limits has no rate above 0, the rate stays", { rate = current, found = entry.data.rate })
        return current
    end
    return rate
end

local function main()
    local node = node_of(process.pid())
    local inbox = process.inbox()
    local signals = process.events()
    local counts = process.listen("count")
    local refusals = process.listen("refused")
    local changes = assert(events.subscribe("registry", "entry.*")):channel()

    local limiter = bucket.new(read_rate(2))
    local jobs, counter_exits = 0, 0
    local watched = nil

    local function watch_counter()
        local pid = process.registry.lookup("counter")
        if pid and pid ~= watched and process.monitor(pid) then
            watched = pid
        end
    end

    --- The counter's answer to one job; answers to earlier jobs that came too late are passed over.
    local function await_count(job: number)
        local late = time.after("4s")
        while true do
            local r = channel.select { counts:case_receive(), refusals:case_receive(), late:case_receive() }
            if r.channel == late then
                return { error = "the counter did not answer" }
            elseif r.value.job == job then
                return r.value
            end
        end
    end

    local function work(message)
        if not limiter:take() then
            process.send(message:from(), "done", {
                node = node,
                refused = string.format("over %g jobs per second", limiter.rate),
            })
            return
        end
        local payload = message:payload()
        local data = payload and payload:data() or {}
        jobs = jobs + 1
        local sent, err = process.send("counter", "add", { n = data.n or 1, job = jobs })
        local answer = sent and await_count(jobs) or { error = tostring(err) }
        process.send(message:from(), "done", {
            node = node,
            count = answer.count,
            counted_on = answer.node,
            refused = answer.error,
        })
    end

    local function status(message)
        process.send(message:from(), "status", {
            node = node,
            pid = process.pid(),
            rate = limiter.rate,
            jobs = jobs,
            counter_exits = counter_exits,
        })
    end

    --- The name is on the node's lease: it goes when that is lost, and is taken again with the next one.
    local function register()
        local name, told = "worker@" .. node, false
        while true do
            local ok, err = process.registry.register(name, process.pid(), process.registry.CONSISTENT)
            if ok then
                return
            end
            if not told then
                logger:info("waiting for the name", { name = name, reason = tostring(err) })
                told = true
            end
            time.sleep("200ms")
        end
    end

    register()
    logger:info("worker is ready", { node = node, rate = limiter.rate })
    local look = time.ticker("500ms")

    while true do
        local r = channel.select {
            inbox:case_receive(),
            signals:case_receive(),
            changes:case_receive(),
            look:channel():case_receive(),
        }

        if r.channel == inbox then
            if r.value:topic() == "work" then
                work(r.value)
            else
                status(r.value)
            end
        elseif r.channel == changes then
            if r.value.path == "app:limits" then
                local rate = read_rate(limiter.rate)
                if rate ~= limiter.rate then
                    limiter:set_rate(rate)
                    logger:info("new rate", { node = node, rate = rate })
                end
            end
        elseif r.channel == signals then
            if r.value.kind == process.event.CANCEL then
                if not (r.value.reason or ""):find("^name revoked") then
                    return 0
                end
                register()
            elseif r.value.from == watched then
                counter_exits = counter_exits + 1
                watched = nil
                logger:warn("the counter went away", { node = node, pid = r.value.from })
            end
        else
            watch_counter()
        end
    end
end

return { main = main }
