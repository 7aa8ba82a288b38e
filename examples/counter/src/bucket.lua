local time = require("time")

--- A token bucket: lets `rate` jobs through per second, one second's worth at once.

local NANOSECONDS = 1000000000

local function new(rate: number)
    local bucket = { rate = rate, tokens = rate, at = time.now():unix_nano() }

    function bucket:set_rate(changed: number)
        self.rate = changed
        self.tokens = math.min(self.tokens, changed)
    end

    function bucket:take(): boolean
        local now = time.now():unix_nano()
        self.tokens = math.min(self.rate, self.tokens + (now - self.at) / NANOSECONDS * self.rate)
        self.at = now
        if self.tokens < 1 then
            return false
        end
        self.tokens = self.tokens - 1
        return true
    end

    return bucket
end

return { new = new }
