-- Calls a function of the module supervisor; an error comes back as a table.

local supervisor = require("supervisor")

-- Start so many children, some at a time.
local function many(target: string, count: integer): any
    local done = channel.new(count)
    local started = 0
    for worker = 1, 20 do
        coroutine.spawn(function()
            for number = worker, count, 20 do
                local pid, err = supervisor.start_child(target, number)
                done:send(pid or tostring(err))
            end
        end)
    end
    for _ = 1, count do
        local pid = done:receive()
        if string.sub(pid, 1, 1) ~= "{" then
            return {message = pid}
        end
        started = started + 1
    end
    return {value = started}
end

local function main(name: string, ...): any
    if name == "many" then
        return many(...)
    end
    local value, err = supervisor[name](...)
    if err then
        return {kind = err:kind(), message = err:message(), retryable = err:retryable(), details = err:details()}
    end
    return {value = value}
end

return {main = main}
