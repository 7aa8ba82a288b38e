--- Asks a watcher what it was told, and when.
local function main(watcher: string)
    local inbox = process.inbox()
    process.send(watcher, "report")
    return inbox:receive():payload():data()
end

return { main = main }
