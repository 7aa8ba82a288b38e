-- Luggage: what a process takes along when it moves, as text.
--
-- It is read by the kernel of another VM and by nobody on the way. All values keep their types: integers and floats,
-- error objects, instants. What can't travel (coroutines, channels, timers) is gone by then.
local K = ...
local codec, errors, mailbox, sendorder = K.codec, K.errors, K.mailbox, K.sendorder
local next = next

-- What passes as it is.
local FIELDS = {
    "arguments", "arrived", "sent", "received", "tracked", "trap_links", "upgradable", "migratable", "owns", "context",
    "parent", "order",
}
local SETS = { "watchers", "watching", "links" }

local function keys(set)
    local list = {}
    for key in next, set or {} do
        list[#list + 1] = key
    end
    return list
end

local function to_set(list)
    local set = {}
    for i = 1, #list do
        set[list[i]] = true
    end
    return next(set) ~= nil and set or nil
end

-- The text of a process that has handed over its state; nil when that is too large.
local function pack(process)
    local luggage = { entry = process.entry }
    for _, name in next, FIELDS do
        luggage[name] = process[name]
    end
    for _, name in next, SETS do
        luggage[name] = keys(process[name])
    end
    luggage.mail, luggage.events = mailbox.pack(process)
    return codec.encode_whole(luggage)
end

local function unpack(text)
    return codec.decode_whole(text)
end

-- Give a fresh record all but the code it is to run.
local function give(process, luggage)
    for _, name in next, FIELDS do
        process[name] = luggage[name]
    end
    for _, name in next, SETS do
        process[name] = to_set(luggage[name])
    end
    process.order = luggage.order and sendorder.restored(luggage.order)
    mailbox.unpack(process, luggage.mail, luggage.events)
end

K.luggage = { pack = pack, unpack = unpack, give = give }
