-- Workers: a host may have several VMs, this one among them. A process starts beside its parent, unless the node
-- says that a part of them, or all, are to start in another worker because this one is busier or is to end.
local K = ...
local config = K.config

local SLOTS = 64
local slot, one_in, count = 0, 0, 0

-- [38]: of ``every`` processes started here one goes to the worker in slot ``other``; 0 for none.
local function go_elsewhere(other, every)
    slot, one_in, count = other, every, 0
end

-- The slot of the worker where the next process is to start, or nil for here.
local function next_slot()
    if slot == 0 then
        return nil
    end
    count = count + 1
    if count < one_in then
        return nil
    end
    count = 0
    return slot
end

-- The address of a worker: the PID no process has, because the counters of a slot begin beyond it.
local function address_of(other)
    return "{" .. config.node .. "@" .. config.host .. "|" .. K.processes.uniq(other % SLOTS) .. "}"
end

K.workers = { go_elsewhere = go_elsewhere, next_slot = next_slot, address_of = address_of }
