local funcs = require("funcs")
local logger = require("logger")
local time = require("time")

--- Does one chore again and again.
local function main(chore: string, every: string): integer
    local clock, signals, run = assert(time.ticker(every)), process.events(), 0
    while true do
        local r = channel.select { clock:channel():case_receive(), signals:case_receive() }
        if r.channel == signals then
            return run
        end
        run = run + 1
        local done, err = funcs.call(chore, run)
        if err then
            logger:warn("not done", { chore = chore, run = run, why = err:message(), kind = err:kind() })
        else
            logger:info("done", { chore = chore, run = run, what = done.what, how_much = done.how_much })
        end
    end
end

return { main = main }
