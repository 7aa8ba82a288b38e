local events = require("events")
local registry = require("registry")

--- One room: it puts itself into the registry so that it is found, and tells of who comes and speaks.
local function announce(name: string)
    while true do
        local changes = registry.snapshot():changes()
        changes:create({
            id = "app:room." .. name,
            kind = "registry.entry",
            meta = { type = "room", title = "The " .. name },
            data = { pid = process.pid() },
        })
        local version, err = changes:apply()
        if version then
            return
        elseif not err:retryable() then
            error(err)
        end
    end
end

local function main(name: string)
    assert(process.registry.register("room/" .. name))
    announce(name)
    local path = "/rooms/" .. name
    events.send("house", "room.opened", path)

    local guests, said = {}, 0
    local inbox = process.inbox()
    while true do
        local message = inbox:receive()
        local topic = message:topic()
        local data = message:payload() and message:payload():data() or {}
        if topic == "enter" then
            guests[#guests + 1] = data.guest
            events.send("house", "guest.entered", path, { guest = data.guest })
        elseif topic == "say" then
            said = said + 1
            events.send("house", "guest.spoke", path, { guest = data.guest, words = data.words })
        elseif topic == "count" then
            process.send(message:from(), "counted", { room = name, guests = guests, said = said })
        elseif topic == "close" then
            local changes = registry.snapshot():changes()
            changes:delete("app:room." .. name)
            local _, err = changes:apply()
            events.send("house", "room.closed", path)
            return err == nil
        end
    end
end

return { main = main }
