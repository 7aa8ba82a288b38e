-- Opens the bakery, breaks what is in it, looks at what becomes of it, and closes it.

local io = require("io")
local supervisor = require("supervisor")
local time = require("time")

type Pids = {[string]: string}

-- The processes by the names of their children, once all run.
local function stations(bakery: string): Pids
    while true do
        local pids, missing = {}, 0
        for _, child in ipairs(supervisor.which_children(bakery)) do
            pids[child.id] = child.pid
            if child.state ~= "running" then
                missing = missing + 1
            end
        end
        if missing == 0 and next(pids) then
            return pids
        end
        time.sleep("10ms")
    end
end

-- Break a station, and say which were started anew.
local function break_one(bakery: string, name: string): Pids
    local before = stations(bakery)
    process.terminate(before[name])
    local after = before
    while after[name] == before[name] do
        time.sleep("10ms")
        after = stations(bakery)
    end
    local anew = {}
    for _, id in ipairs({"mill", "oven", "counter", "hands"}) do
        if after[id] ~= before[id] then
            table.insert(anew, id)
        end
    end
    io.print("the " .. name .. " broke; started anew: " .. table.concat(anew, ", "))
    return after
end

local function main(): integer
    local events = process.events()
    local bakery = assert(process.spawn_monitored("app:bakery", "node:supervisor"))
    stations(bakery)
    io.print("open")
    break_one(bakery, "counter")
    local now = break_one(bakery, "oven")

    for number = 1, 3 do
        assert(supervisor.start_child(now.hands, "hand " .. number))
    end
    io.print("helping hands:", supervisor.count_children(now.hands).active)
    local _, err = supervisor.delete_child(bakery, "mill")
    io.print("a mill that runs:", err:kind())

    process.terminate(stations(bakery).mill)
    local ended = events:receive()
    io.print(tostring(ended.result.error))
    return 0
end

return {main = main}
