local record, store, system, time = require("record"), require("store"), require("system"), require("time")

--- One turn with a lock: acquires it, writes under it, gives it back or leaves that to its own end.
local function main(locks)
    local shared = assert(store.get("app:shared"))
    local key = locks[math.random(#locks)]
    local op = record.invoke("acquire", { key = key })
    local ok, err = system.lock.acquire(key)
    if not ok then
        record.complete(op, err)
        time.sleep(math.random(20, 200) .. "ms")
        return
    end
    local token = system.lock.fence(key)
    record.complete(op, nil, { token = token })
    for n = 1, math.random(20) do
        op = record.invoke("write", { key = key, token = token, n = n })
        local _, problem = shared:put(key, { pid = process.pid(), token = token, n = n })
        record.complete(op, problem)
        if problem and problem:kind() == errors.PERMISSION_DENIED then
            return
        end
        time.sleep(math.random(5, 100) .. "ms")
    end
    if math.random() < 0.6 then
        op = record.invoke("release", { key = key })
        local freed, problem = system.lock.release(key)
        record.complete(op, problem, { value = freed })
    end
    record.told("ends")
end

return { main = main }
