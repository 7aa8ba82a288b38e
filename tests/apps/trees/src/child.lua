-- A child that does what it is told: fail, return, or end never.

local function main(...): (any, any)
    process.set_options({trap_links = true})
    local args = {...}
    local inbox, events = process.inbox(), process.events()
    local stubborn = false
    while true do
        local got = channel.select({inbox:case_receive(), events:case_receive()})
        if got.channel == events then
            if got.value.kind == process.event.CANCEL and not stubborn then
                return "stopped"
            end
        else
            local topic = got.value:topic()
            if topic == "fail" then
                error("told to fail")
            elseif topic == "return" then
                return "done"
            elseif topic == "stay" then
                stubborn = true
            elseif topic == "args" then
                process.send(got.value:from(), "args", args)
            end
        end
    end
end

return {main = main}
