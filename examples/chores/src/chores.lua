type Done = { what: string, how_much: integer }

local function sweep(run: integer): Done
    return { what = "rooms swept", how_much = 3 * run }
end

local function polish(run: integer): Done
    return { what = "spoons polished", how_much = 12 * run }
end

--- Fails now and then: that is the hand's to deal with.
local function wind_clock(run: integer): (Done?, error?)
    if run % 2 == 0 then
        return nil, errors.new({ message = "the key is gone", kind = errors.UNAVAILABLE })
    end
    return { what = "clocks wound", how_much = 1 }, nil
end

return { sweep = sweep, polish = polish, wind_clock = wind_clock }
