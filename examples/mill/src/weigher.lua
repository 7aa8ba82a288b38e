--- Last stone: sums up and reports to the miller.
local function main(miller: string)
    local inbox = process.inbox()
    local by_farm, faults, total = {}, {}, 0
    while true do
        local message = inbox:receive()
        local topic = message:topic()
        if topic == "end" then
            process.send(miller, "sum", { by_farm = by_farm, faults = faults, total = total })
            return "weighed"
        elseif topic == "fault" then
            faults[#faults + 1] = message:payload():data()
        else
            local sack = message:payload():data()
            by_farm[sack.farm] = (by_farm[sack.farm] or 0) + sack.flour
            total = total + sack.flour
        end
    end
end

return { main = main }
