local digits = require("digits")

local function call(n: integer): integer
    local sum = 0
    for _, digit in ipairs(digits.of(n)) do
        sum = sum + digit
    end
    return sum
end

return { call = call }
