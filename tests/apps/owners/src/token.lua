--- The fencing token a process has, and one that a function it calls has.
local function main(to)
    local token, err = process.fence()
    local told = { token = token, kind = err and err:kind() }
    if to then
        process.send(to, "token", told)
    end
    return told
end

return { main = main }
