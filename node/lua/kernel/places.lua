-- Places: on which node a process is.
--
-- A PID names the node and the VM where its process was born. Most live there until they end, and of a PID of this VM
-- the process is here or nowhere. The node tells which have moved, or are about to: where those are is in a table, and
-- they are never taken for ended because they are not here.
local K = ...
local config, processes = K.config, K.processes
local by_pid = processes.by_pid
local match, next, sub, tonumber = string.match, next, string.sub, tonumber

local moved = {} -- uniq (what stands between | and }) -> node
local places = { any = false } -- ``any``: whether there is one in the table

local node_prefix = "{" .. config.node .. "@"
local own_incarnation = processes.next_pid("x"):match("|(%w+)%-")

-- The node a process was born on.
local function node_of(pid)
    return match(pid, "^{([^@]*)@") or ""
end

local function uniq_of(pid)
    return match(pid, "|([^}]*)}$")
end

local function has_moved(pid)
    return places.any and moved[uniq_of(pid)] ~= nil
end

-- The node a process is on now.
local function place_of(pid)
    return places.any and moved[uniq_of(pid)] or node_of(pid)
end

-- Whether a PID was handed out by this VM and its process has not moved: then it is near (processes.lua) or nowhere. One
-- that moved and was forgotten since may be here without being near.
local function is_own(pid)
    if sub(pid, 1, #node_prefix) ~= node_prefix or has_moved(pid) then
        return false
    end
    local here = by_pid[pid]
    if here and here.away then
        return false
    end
    local incarnation, counter = match(pid, "|(%w+)%-(%w+)}$")
    return incarnation == own_incarnation and tonumber(counter, 36) % 64 == config.slot
end

-- A process is on that node now; an empty one: it has ended, or is where it was born. Returns where it was, if known.
local function put(uniq, node)
    local before = moved[uniq]
    moved[uniq] = node ~= "" and node or nil
    places.any = next(moved) ~= nil
    return before
end

places.node_of, places.uniq_of, places.place_of, places.has_moved = node_of, uniq_of, place_of, has_moved
places.is_own, places.put = is_own, put
K.places = places
