-- Moves a process, and tells what that took or what kept it.

local function main(process_or_name, node)
    local took, err = process.move(process_or_name, node)
    if err then
        return { kind = err:kind(), message = err:message(), details = err:details() }
    end
    return took
end

return { main = main }
