local funcs = require("funcs")

local function call(n: integer)
    local squared, err = funcs.call("app.arithmetic:square", n)
    if err then
        return nil, err
    end
    return funcs.call("app.arithmetic:cross_sum", squared)
end

return { call = call }
