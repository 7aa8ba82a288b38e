-- Starts so many processes of an entry here.

local function main(entry, number)
    local pids = {}
    for i = 1, number do
        local pid, err = process.spawn(entry, "app:processes")
        if err then
            return nil, err
        end
        pids[i] = pid
    end
    return pids
end

return { main = main }
