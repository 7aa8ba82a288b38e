-- Limits: what a VM and its processes may take. They are in ``K.config``, where they are read at every use;
-- here they change while the VM runs, and it is counted how often each was met.
local K = ...
local next = next

local hits = {} -- name of the limit -> how often
local hooks = {}

local function hit(name)
    hits[name] = (hits[name] or 0) + 1
end

-- Whoever keeps something made of a limit makes it anew when that changes.
local function on_change(hook)
    hooks[#hooks + 1] = hook
end

-- Called between steps, without a memory limit: the limits are these from now on.
local function change(values)
    for name, value in next, values do
        K.config[name] = value
    end
    for i = 1, #hooks do
        hooks[i]()
    end
end

K.limits = { hits = hits, hit = hit, on_change = on_change, change = change }
