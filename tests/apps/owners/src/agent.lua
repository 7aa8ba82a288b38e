local store, system, time = require("store"), require("system"), require("time")

local function told(...)
    local value, err = ...
    if err then
        return { value = value, kind = err:kind(), error = err:message(), details = err:details() }
    end
    return { value = value }
end

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
            if reason ~= "the node may lose its lease" and not reason:find("^name revoked") then
                return -- who pays no heed to the others must be killed
            end
        else
            local arguments = r.value:payload():data()
            process.send(r.value:from(), "done", deeds[r.value:topic()](table.unpack(arguments)))
        end
    end
end

return { main = main }
