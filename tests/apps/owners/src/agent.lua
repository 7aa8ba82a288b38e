local pg, store, system, time = require("pg"), require("store"), require("system"), require("time")

local function told(...)
    local value, err = ...
    if err then
        return { value = value, kind = err:kind(), error = err:message(), details = err:details() }
    end
    return { value = value }
end

local groups = assert(pg.open("app:groups"))
local rows = assert(store.get("app:rows"))
local deeds = {}

function deeds.acquire(name)
    return told(system.lock.acquire(name))
end

function deeds.release(name)
    return told(system.lock.release(name))
end

function deeds.fence(name)
    return told(system.lock.fence(name))
end

function deeds.read(key)
    return told(rows:get(key))
end

function deeds.write(key, value)
    return told(rows:set(key, value))
end

function deeds.register(name, scope)
    return told(process.registry.register(name, nil, process.registry[scope]))
end

function deeds.unregister(name, scope)
    return told(process.registry.unregister(name, process.registry[scope]))
end

function deeds.lookup(name)
    return told(process.registry.lookup(name))
end

function deeds.join(name)
    return told(groups:join(name))
end

function deeds.leave(name)
    return told(groups:leave(name))
end

function deeds.members(name)
    return told(groups:get_members(name))
end

function deeds.local_members(name)
    return told(groups:get_local_members(name))
end

function deeds.which_groups()
    return told(groups:which_groups())
end

function deeds.broadcast(name, value)
    return told(groups:broadcast(name, "number", value))
end

--- Keep the events of a group; ``events`` tells those so far, and who was a member when it began.
local kept = {}
function deeds.watch(name)
    local subscription, members, err = groups:monitor(name)
    if err then
        return told(nil, err)
    end
    kept[name] = { members = members, events = {} }
    coroutine.spawn(function()
        local event, open = subscription:channel():receive()
        while open do
            table.insert(kept[name].events, { kind = event.kind, pids = event.data.PIDs })
            event, open = subscription:channel():receive()
        end
    end)
    return told(members)
end

function deeds.events(name)
    return told(kept[name])
end

--- Numbers that were sent to it, in the order they came; it forgets them.
local numbers = {}
function deeds.numbers()
    local heard = numbers
    numbers = {}
    return told(heard)
end

--- Have a process of this node speak to the group and to one member of it.
function deeds.speak(group, member, count)
    return told(process.spawn("app:speaker", "app:processes", group, member, count))
end

function deeds.pid()
    return told(process.pid())
end

--- Write without end, until the process is ended.
function deeds.keep_writing(key, value)
    coroutine.spawn(function()
        while true do
            rows:set(key, value)
            time.sleep("20ms")
        end
    end)
    return told(true)
end

--- Does what messages tell it to, on every node: the topic says what.
local function main()
    local node = process.pid():match("^{(.-)@")
    assert(process.registry.register("agent@" .. node, process.pid(), process.registry.CONSISTENT))
    local inbox, signals = process.inbox(), process.events()
    while true do
        local r = channel.select { inbox:case_receive(), signals:case_receive() }
        if r.channel == signals then
            local reason = tostring(r.value.reason)
            if reason ~= "the node may lose its lease" then -- who pays no heed to that must be killed
                return
            end
        else
            local topic, value = r.value:topic(), r.value:payload():data()
            if topic == "number" then
                table.insert(numbers, value)
            else
                process.send(r.value:from(), "done", deeds[topic](table.unpack(value)))
            end
        end
    end
end

return { main = main }
