local function call(a: number, b: number)
    if b == 0 then
        return nil, errors.new({ message = "can't divide by zero", kind = errors.INVALID, details = { dividend = a } })
    end
    return { quotient = a // b, rest = a % b }
end

return { call = call }
