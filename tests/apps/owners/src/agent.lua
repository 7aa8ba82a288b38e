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
            if r.value.reason ~= "the node may lose its lease" then -- one that pays no heed must be killed
                return
            end
        else
            local arguments = r.value:payload():data()
            process.send(r.value:from(), "done", deeds[r.value:topic()](table.unpack(arguments)))
        end
    end
end

return { main = main }
