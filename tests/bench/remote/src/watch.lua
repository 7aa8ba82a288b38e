--- Starts a watcher; returns its PID when it watches.
local function main(hosts: {string}, count: integer)
    local own = process.pid():match("@(.-)|")
    local inbox = process.inbox()
    local watcher = assert(process.spawn("bench:watcher", own, process.pid(), hosts, count))
    inbox:receive()
    return watcher
end

return { main = main }
