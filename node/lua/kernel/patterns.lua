-- Patterns: find, match, gmatch and gsub that come back soon, whatever pattern and text.
--
-- Each pattern is looked into once (pattern_items.lua, pattern_costs.lua). Then a call goes one
-- of two ways:
--   1. The worst case for a text of this length, or for this very text, is cheap: Lua's own
--      function runs. Up to `free` steps that's all; beyond, others get their chance before.
--   2. The matcher in Lua (pattern_matcher.lua) runs, gives way to others while it does, and
--      raises an error that names the pattern when its budget is spent.
-- A gsub with a function goes from match to match here, so that the function may be pre-empted
-- and may wait; so does one that is too long to do in one go.
--
-- `chunk(K)` gives a function of limits that gives the guarded functions.
local K = ...
local parts = K.parts
local items_of, complete, worst_in = parts.pattern_items.items_of, parts.pattern_costs.complete, parts.pattern_costs.worst_in
local new_session, search, captures_of =
    parts.pattern_matcher.new_session, parts.pattern_matcher.search, parts.pattern_matcher.captures_of
local replace_all, replace_short = parts.pattern_replacing.replace_all, parts.pattern_replacing.replace_short
local find, format, gmatch, gsub, match, sub =
    string.find, string.format, string.gmatch, string.gsub, string.match, string.sub
local rawmeta = debug.getmetatable
local checked = K.arguments.checked
local error, floor, mtype, tonumber, tostring, type = error, math.floor, math.type, tonumber, tostring, type

local MOST_ITEMS = 8192 -- of all patterns that are kept
local REPLACEMENTS = { string = true, table = true, ["function"] = true }
local MAGIC = "[%^%$%*%+%?%.%(%)%[%]%%%-]"
local SHORT = 1024 -- bytes of a text that a gsub with a function goes over twice
local PLAIN_PIECE, PLAIN_START = 1048576, 64 -- bytes

local COSTLY = "looking for a text of %d bytes is too costly in one of %d: look for a shorter one, or split the text"

local function nothing() end

return function(limits)
    limits = {
        free = limits.free or 4000, -- steps nobody has to wait for
        direct = limits.direct or 12000000, -- steps that Lua's own matcher may need at worst in one call
        match = limits.match or 6, -- steps of Lua's gsub for each match
        budget = limits.budget or 250000, -- steps of the matcher in Lua for one search (a long text adds some): less than 100 ms
        credit = limits.credit or 8, -- and more in gsub, for each byte that it is done with
        size = limits.size or 64 * 1024 * 1024, -- bytes of a result
        plain = limits.plain or 100000000, -- bytes compared by a plain search
        charge = limits.charge or nothing, -- called from time to time: others may get their chance
    }
    local DIRECT, MATCH, BUDGET, MAX_SIZE, PLAIN = limits.direct, limits.match, limits.budget, limits.size, limits.plain
    local breathe = limits.charge

    -- What is known of each pattern, as many as have MOST_ITEMS items in all.
    local function new_cache(anchors)
        local cache, count = {}, 0
        return function(pattern)
            local items = cache[pattern]
            if not items then
                breathe()
                items = items_of(pattern, anchors)
                if not items.refused then
                    complete(items, limits)
                end
                count = count + #items + 1
                if count > MOST_ITEMS then
                    cache, count = {}, #items + 1
                end
                cache[pattern] = items
            end
            return items
        end
    end

    local searched, iterated = new_cache(true), new_cache(false) -- in gmatch ^ is no anchor

    -- Whether Lua's own function may run though the text is too long to let it without a thought.
    local function is_cheap(items, subject)
        if items.refused then
            error(items.refused, 3)
        end
        breathe()
        return #subject <= items.safe or worst_in(items, subject) <= DIRECT
    end

    -- Lua's own function is asked whether it likes an argument.
    local function as_index(init)
        if init ~= nil and mtype(init) ~= "integer" then
            checked(find, "", "", init)
            init = floor(tonumber(init))
        end
        return init
    end

    local function first_index(subject, init)
        init = as_index(init) or 1
        if init < 0 then
            init = #subject + init + 1
        end
        return init < 1 and 1 or init
    end

    local function as_text(value)
        return type(value) == "number" and tostring(value) or value
    end

    local function are_numbers_too(subject, pattern)
        local left, right = type(subject), type(pattern)
        return (left == "string" or left == "number") and (right == "string" or right == "number")
    end

    -- A long text sought in a longer one: its beginning is sought piece by piece, the rest compared where that is.
    local function find_plain(subject, text, init)
        if #subject * #text <= PLAIN then
            breathe()
            return find(subject, text, as_index(init), true)
        end
        local beginning, left, at = sub(text, 1, PLAIN_START), BUDGET, first_index(subject, init)
        while at + #text <= #subject + 1 do
            breathe()
            local piece, from = sub(subject, at, at + PLAIN_PIECE + #beginning - 2), 0
            while true do
                from = find(piece, beginning, from + 1, true)
                if not from then
                    break
                end
                local here = at + from - 1
                if sub(subject, here, here + #text - 1) == text then
                    return here, here + #text - 1
                end
                left = left - 5 - #text / 50
                if left < 0 then
                    error(format(COSTLY, #text, #subject), 2)
                end
            end
            at = at + PLAIN_PIECE
        end
        return nil
    end

    local guarded = {}

    function guarded.find(subject, pattern, init, plain)
        if type(subject) == "string" and type(pattern) == "string" then
            if plain or #pattern > 64 and not find(pattern, MAGIC) then
                if #subject <= 1024 then
                    return find(subject, pattern, as_index(init), true)
                end
                return find_plain(subject, pattern, init)
            end
            local items = searched(pattern)
            if #subject <= items.free or is_cheap(items, subject) then
                return find(subject, pattern, as_index(init))
            end
            local session = new_session(items, subject, limits)
            local from, stop = search(session, first_index(subject, init))
            if not from then
                return nil
            end
            return from, stop - 1, captures_of(session)
        elseif are_numbers_too(subject, pattern) then
            return guarded.find(as_text(subject), as_text(pattern), init, plain)
        end
        return checked(find, subject, pattern, init, plain)
    end

    -- What a match hands out: its captures, or the whole of it when it has none.
    local function handed_out(session, from, stop)
        if session.items.captures == 0 then
            return sub(session.subject, from, stop - 1)
        end
        return captures_of(session)
    end

    function guarded.match(subject, pattern, init)
        if type(subject) == "string" and type(pattern) == "string" then
            local items = searched(pattern)
            if #subject <= items.free or is_cheap(items, subject) then
                return match(subject, pattern, as_index(init))
            end
            local session = new_session(items, subject, limits)
            local from, stop = search(session, first_index(subject, init))
            if not from then
                return nil
            end
            return handed_out(session, from, stop)
        elseif are_numbers_too(subject, pattern) then
            return guarded.match(as_text(subject), as_text(pattern), init)
        end
        return checked(match, subject, pattern, init)
    end

    local function slow_gmatch(items, subject, init)
        local at, last = first_index(subject, init), nil
        return function()
            local session = new_session(items, subject, limits)
            local from, stop = search(session, at, last)
            if not from then
                at = #subject + 2
                return nil
            end
            at, last = stop, stop
            return handed_out(session, from, stop)
        end
    end

    function guarded.gmatch(subject, pattern, init)
        if type(subject) == "string" and type(pattern) == "string" then
            local items = iterated(pattern)
            if #subject <= items.free or is_cheap(items, subject) then
                return gmatch(subject, pattern, as_index(init))
            end
            return slow_gmatch(items, subject, init)
        elseif are_numbers_too(subject, pattern) then
            return guarded.gmatch(as_text(subject), as_text(pattern), init)
        end
        return checked(gmatch, subject, pattern, init)
    end

    -- Matches don't overlap, so each %n of the replacement adds at most the subject once more.
    local function fits_size(subject, by)
        if (#by + 1) * (#subject + 1) <= MAX_SIZE / 32 then
            return true
        end
        local _, references = gsub(by, "%%%d", "%0")
        return #subject * (references + 1) + #by * (#subject + 1) <= MAX_SIZE
    end

    -- Whether Lua's own gsub may do all of it. A table that answers by a function may take any time.
    local function can_be_whole(items, subject, by)
        local kind = type(by)
        if kind == "function" or kind == "table" and rawmeta(by) or kind == "string" and not fits_size(subject, by) then
            return false
        elseif #subject <= items.free_in_all then
            return true
        end
        local steps, matches = worst_in(items, subject)
        local longer = kind == "string" and #by * (find(by, "%", 1, true) and 4 or 1 / 16) or MATCH
        return steps + matches * (MATCH + longer) <= DIRECT
    end

    function guarded.gsub(subject, pattern, by, limit)
        if type(subject) == "string" and type(pattern) == "string" and REPLACEMENTS[type(by)] then
            local items = searched(pattern)
            local cheap = #subject <= items.free or is_cheap(items, subject)
            if cheap and type(by) == "function" and #subject <= SHORT then
                return replace_short(items, subject, by, limit, limits)
            elseif cheap and can_be_whole(items, subject, by) then
                return checked(gsub, subject, pattern, by, limit)
            end
            return replace_all(items, subject, by, limit, limits, cheap)
        elseif are_numbers_too(subject, pattern) and (REPLACEMENTS[type(by)] or type(by) == "number") then
            return guarded.gsub(as_text(subject), as_text(pattern), as_text(by), limit)
        end
        return checked(gsub, subject, pattern, by, limit)
    end

    return guarded
end
