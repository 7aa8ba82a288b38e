local function of(n: integer): {integer}
    local found = {}
    for digit in tostring(n):gmatch("%d") do
        found[#found + 1] = math.tointeger(tonumber(digit))
    end
    return found
end

return { of = of }
