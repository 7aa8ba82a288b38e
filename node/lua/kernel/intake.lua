-- Intake: what comes into the VM, item by item (layouts: node/host/boundary.py).
--
-- An item that can't be handled is reported and dropped; the others go on.
local K = ...
local code, delivery, errors, mailbox, operations =
    K.code, K.delivery, K.errors, K.mailbox, K.operations
local processes, queries, signals, spawning, stopping, values =
    K.processes, K.queries, K.signals, K.spawning, K.stopping, K.values
local rawpcall, tostring, type = pcall, tostring, type
local by_pid = processes.by_pid

local handlers = {}

handlers[1] = delivery.received
handlers[2] = spawning.received
handlers[11] = spawning.received

handlers[3] = function(item)
    local value = item[6]
    if not values.is_plain(value, 1) then
        value = nil
    end
    operations.replied(item[4], item[5], value)
end

for kind = 4, 10 do
    handlers[kind] = function(envelope)
        local process = by_pid[envelope[2]]
        if not process then
            if kind ~= 8 then
                operations.reply(envelope, operations.NOPROC, nil)
            end
        elseif values.is_plain(envelope, 1) then
            signals.received[kind](process, envelope)
        end
    end
end

handlers[40] = function(item)
    local err, answer = item[3], item[4] or {}
    answer.n = item[5] or 0
    if not values.is_plain(answer, 1) or not values.is_plain(err, 1) then
        err = { kind = "Internal", message = "the answer of the runtime is not plain data" }
    end
    operations.answered(item[2], err, answer)
end

handlers[41] = function(item)
    if values.is_plain(item[3], 1) then
        operations.pushed(item[2], item[3])
    else
        K.complain("a value for stream " .. tostring(item[2]) .. " is not plain data")
    end
end

handlers[42] = function(item)
    operations.stream_ended(item[2])
end

handlers[43] = function(item)
    delivery.name_changed(item[2], item[3], item[4])
end

handlers[44] = function(item)
    local gone = code.forget(item[2])
    for _, process in next, by_pid do
        if process.upgradable and gone[process.entry] then
            mailbox.outdated(process, item[2])
        end
    end
end

handlers[45] = function(item)
    signals.node_gone(item[2], item[3])
end

handlers[46] = function(item)
    queries.answer(item[2], item[3], item[4])
end

handlers[48] = function(item)
    stopping.begin(item[2], item[3])
end

local function handle(item)
    local handler = handlers[item[1]]
    if not handler then
        error("unknown kind of item", 0)
    end
    handler(item)
end

local function take(items, count)
    for i = 1, count do
        local item = items[i]
        local ok, problem = rawpcall(handle, item)
        if not ok then
            K.complain("item " .. tostring(item[1]) .. " failed: " .. tostring(problem))
        end
    end
    if processes.ending > 0 then
        processes.end_all()
    end
end

K.intake = { take = take }
