-- The clock functions that programs find in the global `os`.
--
-- `chunk(os)` takes Lua's own library and gives the table for one process: what only reads the
-- clock, and a platform name. `os.date` is a C function that sees no yield point, so that the
-- length of its format is bounded.

local error, format, type = error, string.format, type

local MAX_FORMAT = 4096

return function(os)
    local date = os.date

    local function bounded_date(pattern, at)
        if type(pattern) == "string" and #pattern > MAX_FORMAT then
            error(format("os.date: a format of %d bytes is over the limit of %d", #pattern, MAX_FORMAT), 2)
        end
        return date(pattern or "%c", at)
    end

    return { date = bounded_date, time = os.time, clock = os.clock, difftime = os.difftime, platform = "wippy" }
end
