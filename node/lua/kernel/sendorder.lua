-- Sendorder: in which order a process has sent to each destination, for messages that come back.
--
-- A message by name that finds its name with another holder is returned to its sender, which may
-- send it once more, to the new holder; but never behind something the same process sent there
-- later. So a process that sends by name to other VMs numbers what it sends from then on and keeps
-- the last number of each destination, of the latest few hundred; of all others only a number
-- none of theirs is above (``floor``). What is not known for sure is taken for later.
local K = ...
local next = next

local MOST = 128 -- destinations of a generation; two are kept
local MOST_ENDED = 4096 -- destinations of ended processes in a generation; two are kept

local NONE = {}

-- The record of one process: recent and former are pid -> number of the last sent there.
local function new()
    return { count = 0, size = 0, recent = {}, former = NONE, turned = 0, floor = 0 }
end

local function keep(order, pid, number)
    local recent = order.recent
    if not recent[pid] then
        if order.size >= MOST then
            order.floor, order.turned = order.turned, order.count
            order.former, recent = recent, {}
            order.recent, order.size = recent, 0
        end
        order.size = order.size + 1
    end
    recent[pid] = number
end

-- Something is sent to ``pid``; returns its number.
local function note(order, pid)
    local number = order.count + 1
    order.count = number
    keep(order, pid, number)
    return number
end

-- Something is sent to nobody knows whom.
local function note_all(order)
    local number = order.count + 1
    order.count, order.turned, order.floor = number, number, number
    order.recent, order.former, order.size = {}, NONE, 0
end

-- Whether message ``number`` may be sent to ``pid`` now without coming behind a later one. If so, it counts as sent.
local function follow(order, pid, number)
    local last = order.recent[pid] or order.former[pid]
    if last and last > number or not last and order.floor >= number then
        return false
    end
    keep(order, pid, number)
    return true
end

-- What ended processes leave, by PID.
local recent, former, size = {}, {}, 0

local function retire(pid, order)
    recent[pid] = order
    size = size + order.size + (order.former ~= NONE and MOST or 0) + 1
    if size > MOST_ENDED then
        recent, former, size = {}, recent, 0
    end
end

-- The record of a process that has ended, if it is still there.
local function of_ended(pid)
    return recent[pid] or former[pid]
end

-- The record of a process that came, from what was packed of it elsewhere.
local function restored(order)
    if next(order.former) == nil then
        order.former = NONE
    end
    return order
end

K.sendorder = { restored = restored, new = new, note = note, note_all = note_all, follow = follow, retire = retire, of_ended = of_ended }
