local record, time = require("record"), require("time")

--- One turn with a name: takes it, looks it up, gives it back or leaves that to its own end.
local function main(names)
    local key = names[math.random(#names)]
    local scope = math.random() < 0.2 and "STRONG" or "CONSISTENT"
    local events = process.events()

    local function look()
        record.told("look", { key = key, value = process.registry.lookup(key) or false })
    end

    local op = record.invoke("register", { key = key, scope = scope })
    local ok, err = process.registry.register(key, nil, process.registry[scope])
    record.complete(op, err)
    look()
    if not ok then
        time.sleep(math.random(20, 300) .. "ms")
        return
    end
    local over = time.after(math.random(20, 1500) .. "ms")
    while true do
        local r = channel.select({ events:case_receive(), over:case_receive() })
        look()
        if r.channel ~= events then
            break
        end
        record.told("revoked", { key = key })
    end
    if math.random() < 0.6 then
        op = record.invoke("unregister", { key = key })
        local freed, problem = process.registry.unregister(key, process.registry[scope])
        record.complete(op, problem, { value = freed })
        look()
    end
    record.told("ends")
end

return { main = main }
