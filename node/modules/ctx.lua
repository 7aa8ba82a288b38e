-- Module ctx: the values a process or call was started with.
local K = ...
local errors, turns, values = K.errors, K.turns, K.values
local ctx = {}

function ctx.get(key)
    if type(key) ~= "string" then
        error("bad argument #1 to 'get' (string expected, got " .. type(key) .. ")", 2)
    elseif key == "" then
        return nil, errors.new("Invalid", "context key is empty", false)
    end
    local context = turns.current.process.context
    local value = context and context[key]
    if value == nil then
        return nil, errors.new("NotFound", "no context value '" .. key .. "'", false)
    end
    return (values.copy(value))
end

function ctx.all()
    return (values.copy(turns.current.process.context or {}))
end

return ctx
