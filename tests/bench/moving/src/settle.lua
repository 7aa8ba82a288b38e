--- Starts `count` movers beside itself; returns their PIDs.
local function main(count: integer, keeper: string?): {string}
    local own = process.pid():match("@(.-)|")
    local pids = table.create(count, 0)
    for number = 1, count do
        pids[number] = assert(process.spawn("bench:mover", own, nil, number, keeper))
    end
    return pids
end

return { main = main }
