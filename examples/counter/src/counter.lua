local logger = require("logger")
local store = require("store")
local time = require("time")

--- The counter. Its count lives in the store, so that it goes on after a crash of this
--- process or of its node: whoever runs the service next reads the count and continues.
---
---   add {n, job}   adds n and replies "count" {count, node, job}
---   get            replies "count" {count, node}
---   on trouble     replies "refused" {error, job}

local function node_of(pid: string): string
    return pid:match("^{(.-)@") or "?"
end

--- The name of a process that died is free only when the cluster knows of its death.
--- False when this process is cancelled before it has the name.
local function register(name: string, signals): boolean
    local told = false
    while true do
        local ok, err = process.registry.register(name, process.pid(), process.registry.CONSISTENT)
        if ok then
            return true
        end
        if not told then
            logger:info("waiting for the name", { name = name, reason = tostring(err) })
            told = true
        end
        local pause = time.after("200ms")
        local r = channel.select { signals:case_receive(), pause:case_receive() }
        if r.channel == signals and r.value.kind == process.event.CANCEL then
            return false
        end
    end
end

local function read(counts): (number?, any)
    local count, err = counts:get("count")
    if err and err:kind() ~= errors.NOT_FOUND then
        return nil, err
    end
    return count or 0
end

--- Adds n to the stored count. The version makes a lost update impossible: a writer that
--- read an older count is refused, and reads again.
local function add(counts, n: number): (number?, any)
    while true do
        local held, problem = counts:entry("count")
        if problem and problem:kind() ~= errors.NOT_FOUND then
            return nil, problem
        end
        local count = (held and held.value or 0) + n
        local rule = held and { if_version = held.version } or { only_if_absent = true }
        local written, err = counts:put("count", count, rule)
        if written then
            return count
        end
        local kind = err:kind()
        if kind ~= errors.CONFLICT and kind ~= errors.ALREADY_EXISTS then
            return nil, err
        end
    end
end

local function main()
    local counts, err = store.get("app:counts")
    if err then
        return nil, err
    end
    local node = node_of(process.pid())
    local inbox = process.inbox()
    local signals = process.events()

    if not register("counter", signals) then
        return 0
    end
    logger:info("counter is here", { node = node, count = read(counts) })

    while true do
        local r = channel.select { inbox:case_receive(), signals:case_receive() }

        if r.channel == signals then
            if r.value.kind == process.event.CANCEL then
                return 0
            end
        else
            local message = r.value
            local payload = message:payload()
            local data = payload and payload:data() or {}
            local count, problem
            if message:topic() == "add" then
                count, problem = add(counts, tonumber(data.n) or 1)
            else
                count, problem = read(counts)
            end
            if problem then
                process.send(message:from(), "refused", { error = tostring(problem), job = data.job })
            else
                process.send(message:from(), "count", { count = count, node = node, job = data.job })
            end
        end
    end
end

return { main = main }
