-- Intake: what comes into the VM, item by item (layouts: node/host/boundary.py).
--
-- An item that can't be handled is reported and dropped; the others go on.
local K = ...
local code, codec, delivery, mailbox, operations = K.code, K.codec, K.delivery, K.mailbox, K.operations
local moving, processes, queries, signals, spawning, stopping =
    K.moving, K.processes, K.queries, K.signals, K.spawning, K.stopping
local error, next, rawpcall, tostring, type = error, next, pcall, tostring, type
local by_pid = processes.by_pid

local handlers = {}

handlers[1] = delivery.received
handlers[13] = delivery.received_many
handlers[2] = spawning.received
handlers[11] = spawning.received
handlers[12] = delivery.returned

handlers[3] = function(item)
    operations.replied(item[2], item[4], item[5], item[6])
end

for kind = 4, 10 do
    handlers[kind] = function(envelope)
        local process = by_pid[envelope[2]]
        if type(envelope[3]) ~= "string" then
            error("an envelope without a sender", 0)
        elseif not process then
            if kind ~= 8 then
                operations.reply(envelope, operations.NOPROC, nil)
            end
        else
            signals.received[kind](process, envelope)
        end
    end
end

handlers[37] = function(item)
    K.congestion.changed(item[2], item[3])
end

handlers[38] = function(item)
    K.workers.go_elsewhere(item[2], item[3])
end

handlers[39] = function(item)
    delivery.names_in_doubt(item[2])
    K.signals.lease_in_doubt(item[2])
end

handlers[40] = function(item)
    local answer = item[4] or {}
    answer.n = codec.length_of(answer)
    operations.answered(item[2], item[3], answer)
end

handlers[41] = function(item)
    operations.pushed(item[2], item[3])
end

handlers[42] = function(item)
    operations.stream_ended(item[2])
end

handlers[43] = function(item)
    delivery.name_changed(item[2], item[3], item[4])
end

handlers[44] = function(item)
    code.forget(item[2])
    local sources_of = code.affected_by(item[2])
    for _, process in next, by_pid do
        local sources = process.upgradable and sources_of(process.code)
        if sources then
            mailbox.outdated(process, sources)
        end
    end
end

handlers[45] = function(item)
    signals.node_gone(item[2], item[3])
end

handlers[46] = function(item)
    queries.answer(item[2], item[3], item[4])
end

handlers[47] = function(item)
    delivery.nodes_changed(item[2])
end

handlers[48] = function(item)
    stopping.begin(item[2], item[3], item[4])
end

handlers[49] = function(item)
    K.complain(item[2])
end

handlers[70] = function(item)
    delivery.processes_moved(item[2])
end

handlers[71] = function(item)
    moving.asked(item[2], item[3], item[4], item[5])
end

handlers[72] = function(item)
    moving.freeze(item[2], item[3])
end

handlers[73] = function(item)
    moving.thaw(item[2], item[3])
end

handlers[74] = function(item)
    moving.drop(item[2], item[3])
end

handlers[75] = function(item)
    moving.adopt(item[2], item[3], item[4])
end

handlers[76] = signals.watch_asked

local function handle(text)
    local item = codec.decode(text)
    local handler = handlers[item[1]]
    if not handler then
        error("unknown kind of item", 0)
    end
    handler(item)
end

-- What came in and was not looked at yet: each item is a text of its own, so that one that is
-- malformed spoils no other.
local waiting, first = {}, 1

-- Python hands over a step's items; outside of the memory limit.
local function feed(text)
    local items = codec.decode(text)
    if first > #waiting then
        waiting, first = items, 1
        return
    end
    for i = 1, #items do
        waiting[#waiting + 1] = items[i]
    end
end

local function take()
    while first <= #waiting do
        local text = waiting[first]
        waiting[first] = false
        first = first + 1
        local ok, problem = rawpcall(handle, text)
        if not ok then
            K.complain("an item could not be handled: " .. tostring(problem))
        end
    end
    if processes.ending > 0 then
        processes.end_all()
    end
end

K.intake = { feed = feed, take = take }
