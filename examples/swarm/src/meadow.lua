local env = require("env")
local logger = require("logger")
local time = require("time")

--- Lets as many fireflies fly as FIREFLIES says, and counts what it sees.
local function main(): integer
    local wanted = math.tointeger(tonumber((env.get("FIREFLIES")))) or 1000
    local slowest = time.parse_duration(env.get("SLOWEST_BLINK")):nanoseconds()
    local began = time.now()
    for _ = 1, wanted do
        local pause = math.random(slowest // 4, slowest)
        assert(process.spawn_monitored("app:firefly", "app:processes", process.pid(), pause))
    end
    logger:info("all are flying", { count = wanted, seconds = time.now():sub(began):seconds() })

    local inbox, signals, minute = process.inbox(), process.events(), time.ticker("1s"):channel()
    local blinks, alive = 0, wanted
    while true do
        local r = channel.select { signals:case_receive(), minute:case_receive(), inbox:case_receive() }
        if r.channel == inbox then
            blinks = blinks + 1
        elseif r.channel == minute then
            logger:info("the meadow at night", { alive = alive, blinks = blinks })
        elseif r.value.kind == process.event.EXIT then
            alive = alive - 1
        elseif r.value.kind == process.event.CANCEL then
            logger:info("morning", { alive = alive, blinks = blinks })
            return 0
        end
    end
end

return { main = main }
