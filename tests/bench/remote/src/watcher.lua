local time = require("time")

--- Monitors `count` processes on each host; tells who asks when the last of each node was told to be gone, in
--- microseconds of Unix time.
local function main(starter: string, hosts: {string}, count: integer)
    local nodes, left, told = {}, {}, {}
    for _, host in ipairs(hosts) do
        local node = host:match("^(.-)@")
        left[node] = count
        for _ = 1, count do
            nodes[assert(process.spawn_monitored("bench:echo", host))] = node
        end
    end
    process.send(starter, "ready", true)
    local events, inbox = process.events(), process.inbox()
    for _ = 1, count * #hosts do
        local event = events:receive()
        local node = nodes[event.from]
        left[node] = left[node] - 1
        if left[node] == 0 then
            told[node] = time.now():unix_nano() // 1000
        end
    end
    process.send(inbox:receive():from(), "told", told)
end

return { main = main }
