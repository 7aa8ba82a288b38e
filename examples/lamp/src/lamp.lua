local time = require("time")

--- Burns for a few moments. The first ones end badly, each in its own way.
local function main(attempt: integer)
    time.sleep("10ms")
    if attempt == 1 then
        error("the wick broke")
    elseif attempt == 2 then
        return nil, errors.new({ message = "out of oil", kind = errors.UNAVAILABLE })
    elseif attempt == 3 then
        local nothing = nil
        return nothing.flame
    elseif attempt == 4 then
        process.terminate(process.pid())
    end
    return { hours = attempt * 2 }
end

return { main = main }
