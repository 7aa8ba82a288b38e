-- Pattern costs: how many steps Lua's own matcher can need at worst, for any subject or for one.
--
-- It backtracks: k repetitions over n bytes can take n^k steps, in C, where nothing interrupts
-- it. The worst case counts paths. Going through a pattern's items, `visits` bounds how often
-- the search comes to an item in all, `most` how often at one place of the subject. A repetition
-- multiplies both, unless one place only can follow it (the next item starts with none of its
-- bytes) or what follows can't fail. With the facts of one subject (how often a class is in it,
-- in runs of what length) the bound is much lower.
--
-- A step is 1 to 2.7 ns where nothing else runs.
local K = ...
local overlap = K.parts.pattern_items.overlap
local gmatch, floor = string.gmatch, math.floor

local VISIT = 3 -- what coming to an item costs, against going over a byte of a run
local RETRY = 2 -- what going on after one byte less costs
local LOOK, RUN = 4, 40 -- what looking at a byte for the facts costs, and what finding a run does
local MAX_KNOWN = 2 ^ 30 -- bytes of a subject up to which the worst case is worked out beforehand
local MANY = 256 -- items; of more the worst case is worked out for each subject
local LOOKS = 6000000 -- steps that finding the facts of one subject may take
local KEPT = 4 * 1024 * 1024 -- bytes of a subject whose facts are kept, and so the subject

-- What can follow each item. `sure`: the rest can't fail. `starts`: the class the rest begins with (false: it
-- is the subject's end; nil: not known). `beyond`: after that first byte it can't fail. `ends`: the rest
-- matches nothing at the subject's end.
local function analyse(items)
    local sure, starts, beyond, ends = true, nil, false, true
    for index = #items, 1, -1 do
        local item = items[index]
        local op, repetition = item.op, item.repetition
        item.rest_sure, item.starts, item.beyond = sure, starts, beyond
        if op == "stop" then
            sure, starts, beyond, ends = false, false, false, true
        elseif repetition == "" or repetition == "+" then
            sure, starts, beyond, ends = false, item.class, sure, false
        elseif repetition then
            sure = sure or (repetition ~= "?" and item.class.all and ends)
            starts, beyond = nil, false
        elseif op == "balance" then
            sure, starts, beyond, ends = false, item.class, false, false
        elseif op == "frontier" or op == "back" then
            sure, starts, beyond, ends = false, nil, false, false
        end
        item.sure = sure
        if repetition and repetition ~= "" then
            item.decided = item.rest_sure or item.starts == false
                or item.starts ~= nil and not overlap(item.class, item.starts)
            item.stops = repetition == "-" and item.class.all and item.beyond and item.starts.beyond ~= nil
        end
    end
    items.starts = starts
end

-- A single repetition with only captures behind it reads each byte once: it takes all it reads, or fails at once.
local function is_linear(items)
    for index = #items, 1, -1 do
        local item = items[index]
        if item.op == "one" then
            return item.repetition ~= "" and items.repetitions == 1
        elseif item.op ~= "close" and item.op ~= "position" then
            return false
        end
    end
    return false
end

local function least(a, b)
    return a < b and a or b
end

local function widest(items)
    local weight = 1
    for index = 1, #items do
        local class = items[index].class
        if class and class.weight > weight then
            weight = class.weight
        end
    end
    return weight
end

-- What an item that repeats costs, and then `visits` and `most` behind it.
local function repeated(item, length, visits, most, facts_of)
    local weight = RETRY + item.class.weight
    if item.repetition == "?" then
        return 0, item.decided and visits or 2 * visits, 2 * most
    elseif item.repetition == "-" and item.rest_sure then
        return visits, visits, most
    end
    local facts = item.stops and facts_of(item.starts, "beyond") or facts_of(item.class)
    local reached = least(visits * (facts.longest + 1), most * (facts.squares + length + 1))
    local onwards = (item.decided or item.stops) and visits or reached
    return weight * reached, onwards, most * (facts.longest + 1)
end

-- Steps in the worst case of finding one match or all in `length` bytes, and how many matches there can be.
-- `facts_of(class)` gives count, longest run and sum of the squared runs of a class.
local function worst_case(items, length, facts_of)
    local starts = items.anchored and 1.0 or length + 1.0
    if items.linear then
        return (#items * items.widest + 2) * (length + 1), starts
    end
    local visits, most, steps = starts, 1.0, 0.0 -- floats: these numbers outgrow any integer
    for index = 1, #items do
        local item = items[index]
        local op, repetition = item.op, item.repetition
        if item.sure then
            visits = least(visits, starts)
        end
        most = least(most, visits)
        steps = steps + (VISIT + (item.class and item.class.weight or 0)) * visits
        if repetition == "" then
            visits = least(visits, most * facts_of(item.class).count)
        elseif repetition then
            local cost
            cost, visits, most = repeated(item, length, visits, most, facts_of)
            steps = steps + cost
        elseif op == "balance" or op == "back" then
            visits = op == "back" and visits or least(visits, most * facts_of(item.class).count)
            steps = steps + visits * length
            most = visits
        end
    end
    return steps + VISIT * visits, least(visits, starts)
end

-- The greatest length at which any subject is cheap: up to `limit` steps, and `per_match` for each match.
local function length_within(items, limit, per_match)
    local function fits(length)
        local facts = { count = length, longest = length, squares = length * length }
        local steps, matches = worst_case(items, length, function() return facts end)
        return steps + matches * per_match <= limit
    end
    local low, high = -1, 16
    while high <= MAX_KNOWN and fits(high) do
        low, high = high, high * 4
    end
    for _ = 1, 6 do
        local middle = floor((low + high) / 2)
        if fits(middle) then
            low = middle
        else
            high = middle
        end
    end
    return low
end

-- Facts of the last subject that needed them: a loop that searches on in one text asks again and again.
local known = { subject = "", left = 0 }

local function measured(subject, class, runs)
    local facts, left = { count = 0, longest = 0, squares = 0 }, known.left - #subject * (LOOK + class.weight)
    if left > 0 then
        for from, after in gmatch(subject, runs) do
            local run = after - from
            facts.count = facts.count + run
            facts.squares = facts.squares + run * run
            if run > facts.longest then
                facts.longest = run
            end
            left = left - RUN
            if left < 0 then
                break
            end
        end
    end
    known.left = left > 0 and left or 0
    return left > 0 and facts or nil
end

local function facts_about(subject)
    local length = #subject
    local anything = { count = length, longest = length, squares = length * length }
    if length > KEPT then
        return function() return anything end
    elseif subject ~= known.subject then
        known = { subject = subject, left = LOOKS }
    end
    return function(class, beyond)
        local runs = beyond and class.beyond or class.runs
        if class.all and not beyond then
            return anything
        end
        local facts = known[runs] or measured(subject, class, runs) or anything
        known[runs] = facts
        return facts
    end
end

-- Steps and matches at worst in this very subject.
local function worst_in(items, subject)
    return worst_case(items, #subject, facts_about(subject))
end

-- Adds to the items of a pattern what is to be known of it. `limits`: free, direct (steps), match (steps).
local function complete(items, limits)
    analyse(items)
    items.linear, items.widest = is_linear(items), widest(items)
    if #items > MANY then
        items.free, items.free_in_all, items.safe = 0, 0, 0
        return items
    end
    items.free = length_within(items, limits.free, 0)
    items.free_in_all = length_within(items, limits.free, limits.match)
    items.safe = length_within(items, limits.direct, 0)
    return items
end

return { complete = complete, worst_in = worst_in }
