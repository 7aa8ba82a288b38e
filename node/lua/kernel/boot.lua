-- Boot: makes the kernel from its files, in an environment processes never see.
--
-- Called once with the configuration and the sources, in order. A file that returns something
-- (the guarded string functions, the os library) is kept under ``parts``; all others put what
-- they offer into the kernel's one table. Afterwards Lua's global table is empty.
local config, files, modules = ...

local base = {}
for name, value in pairs(_G) do
    if name ~= "python" and name ~= "_G" then
        base[name] = value
    end
end
local K = { config = config, parts = {}, rawmeta = debug.getmetatable, rawerror = error }
for i = 1, #files do
    local name = files[i][1]
    local chunk, problem = load(files[i][2], "=kernel/" .. name, "t", base)
    if not chunk then
        error("kernel file " .. name .. ": " .. problem, 0)
    end
    K.parts[name] = chunk(K)
    base.error = K.errors.raise
end
K.libraries.lock_strings()
K.sandbox.start(modules)
K.memory.start()
local clear, names = rawset, {}
for name in next, _G do
    names[#names + 1] = name
end
local globals = _G
for i = 1, #names do
    clear(globals, names[i], nil)
end
local turns = K.turns
return K.intake.feed, K.step, K.operations.collect, K.memory.recover, K.memory.relieve, K.limits.change,
    turns.place(), turns.mark, turns.whose_place(), turns.whose_mark
