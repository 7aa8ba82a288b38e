local events = require("events")
local logger = require("logger")
local registry = require("registry")

local hands: { [string]: string } = {} -- chore -> PID of who does it

local function hire(entry)
    if hands[entry.id] or entry.meta.type ~= "chore" then
        return
    end
    hands[entry.id] = assert(process.spawn_monitored("app:hand", "app:processes", entry.id, entry.meta.every))
    logger:info("hired", { chore = entry.id, every = entry.meta.every })
end

--- Everybody stops after the chore at hand; says how often each was done.
local function dismiss(signals)
    local chore_of, left = {}, 0
    for chore, pid in pairs(hands) do
        chore_of[pid], left = chore, left + 1
        process.cancel(pid, "the day is over")
    end
    while left > 0 do
        local event = signals:receive()
        if event.kind == process.event.EXIT then
            left = left - 1
            logger:info("dismissed", { chore = chore_of[event.from], runs = event.result.value })
        end
    end
end

--- Finds the chores in the registry and keeps one hand for each, also for those that come later.
local function main(): integer
    local signals = process.events()
    local changes = assert(events.subscribe("registry", "entry.create")):channel()
    for _, entry in ipairs(registry.find({ ["meta.type"] = "chore" })) do
        hire(entry)
    end
    while true do
        local r = channel.select { signals:case_receive(), changes:case_receive() }
        if r.channel == changes then
            hire(registry.get(r.value.path))
        elseif r.value.kind == process.event.CANCEL then
            dismiss(signals)
            return 0
        end
    end
end

return { main = main }
