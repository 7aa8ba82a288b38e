-- Guarded string functions: find, match, gmatch, gsub and rep that always come back soon.
--
-- Lua's matcher backtracks: k repetitions over n bytes can take n^k steps, in C, where no yield
-- point is seen. So each pattern is analysed once, and a call goes the first of three ways:
--   1. The worst case for a subject of this length is cheap: Lua's own function runs.
--   2. The worst case for this very subject, with the runs of each class in it, is: the same.
--   3. A matcher in Lua, with the results of Lua's own, runs on a budget of steps and raises an
--      error that names the pattern when it is spent.
-- Nearly all calls go the first way and pay a table look-up and a comparison.
--
-- The worst case counts paths. Going through a pattern's items, `visits` bounds how often the
-- search comes to an item in all, `most` how often at one place of the subject. A repetition
-- multiplies both, unless one place only can follow it (the next item starts with none of its
-- bytes) or what follows can't fail.
--
-- `chunk(string, limits)` takes Lua's string library and gives the guarded functions.

local MAX_PATTERN = 65536 -- bytes
local MAX_CACHED = 512 -- patterns, and classes
local MAX_KNOWN = 2 ^ 30 -- bytes of a subject up to which the worst case is worked out beforehand
local REPLACEMENTS = { string = true, table = true, ["function"] = true }
local MAX_RUNS = 200000 -- runs looked at to learn the facts of one subject
local VISIT = 4 -- what coming to an item costs, against going over a byte of a run
local PLAIN_WORK = 1000000000 -- bytes compared by a plain search

local error, next, pcall, setmetatable, tonumber, tostring, type =
    error, next, pcall, setmetatable, tonumber, tostring, type
local floor = math.floor
local concat, unpack = table.concat, table.unpack or unpack

return function(string, limits)
    limits = limits or {}
    local DIRECT = limits.direct or 30000000 -- steps that Lua's own matcher may need at worst
    local BUDGET = limits.budget or 250000 -- steps of the matcher in Lua
    local MAX_SIZE = limits.size or 64 * 1024 * 1024 -- bytes of a result
    local byte, char, format, sub = string.byte, string.char, string.format, string.sub
    local find, gmatch, gsub, match, rep = string.find, string.gmatch, string.gsub, string.match, string.rep

    local function bounded_table(make)
        local count = 0
        return setmetatable({}, {
            __index = function(cache, key)
                local value = make(key)
                if count >= MAX_CACHED then
                    for old in next, cache do
                        cache[old] = nil
                    end
                    count = 0
                end
                cache[key] = value
                count = count + 1
                return value
            end,
        })
    end

    -- Classes: what one item without its repetition matches (`x`, `.`, `%a`, `[^x]`), with its members by byte.

    local function new_class(text)
        local class = { text = text, run = "^" .. text .. "*()", runs = "()" .. text .. "+()", all = text == "." }
        local code = #text == 1 and text ~= "." and byte(text) or match(text, "^%%%W") and byte(text, 2)
        if code then
            class.code, class[code] = code, true
            class.gaps = "()[^" .. text .. "]+()"
            return class
        end
        local at_start = "^" .. text
        for member = 0, 255 do
            class[member] = find(char(member), at_start) ~= nil
        end
        return class
    end

    local class_of = bounded_table(new_class)

    local function overlap(a, b)
        if b.code then
            return a[b.code]
        end
        for code = 0, 255 do
            if a[code] and b[code] then
                return true
            end
        end
        return false
    end

    -- Compiling: a pattern to a list of items {op = ...}. "one" is a class and its repetition "", "?", "*", "+" or "-".

    local function malformed(reason, pattern)
        error({ refused = format("malformed pattern (%s): %q", reason, sub(pattern, 1, 60)), safe = -1 }, 0)
    end

    local function class_end(pattern, at)
        local first = byte(pattern, at)
        if first == 37 then -- %
            if at == #pattern then
                malformed("ends with '%'", pattern)
            end
            return at + 2
        elseif first ~= 91 then -- [
            return at + 1
        end
        at = at + 1
        if byte(pattern, at) == 94 then -- ^
            at = at + 1
        end
        repeat
            if at > #pattern then
                malformed("missing ']'", pattern)
            end
            at = byte(pattern, at) == 37 and at + 2 or at + 1
        until byte(pattern, at) == 93 -- ]
        return at + 1
    end

    local function one(pattern, at)
        local after = class_end(pattern, at)
        local text = sub(pattern, at, after - 1)
        if find(text, "^[%^%$%]%(%)%*%+%-%?]$") then -- stands for itself here, but would not alone
            text = "%" .. text
        end
        local repetition = match(pattern, "^[*+?-]", after) or ""
        return { op = "one", class = class_of[text], repetition = repetition }, after + #repetition
    end

    local function escaped(pattern, at, closed)
        local kind = sub(pattern, at + 1, at + 1)
        if kind == "b" then
            if at + 3 > #pattern then
                malformed("missing arguments to '%b'", pattern)
            end
            return { op = "balance", open = byte(pattern, at + 2), close = byte(pattern, at + 3) }, at + 4
        elseif kind == "f" then
            if byte(pattern, at + 2) ~= 91 then
                malformed("missing '[' after '%f'", pattern)
            end
            local after = class_end(pattern, at + 2)
            return { op = "frontier", class = class_of[sub(pattern, at + 2, after - 1)] }, after
        elseif find(kind, "^%d") then
            local slot = byte(kind) - 48
            if not closed[slot] then
                malformed("invalid capture index %" .. kind, pattern)
            end
            return { op = "back", slot = slot }, at + 2
        end
        return one(pattern, at)
    end

    local function compile(pattern, anchors)
        local items, opened, closed = { pattern = pattern, captures = 0, positions = {}, repetitions = 0 }, {}, {}
        local at = 1
        if anchors and byte(pattern) == 94 then -- ^
            items.anchored, at = true, 2
        end
        while at <= #pattern do
            local first, item = byte(pattern, at), nil
            if first == 40 then -- (
                local slot = items.captures + 1
                if slot > 32 then
                    malformed("too many captures", pattern)
                end
                items.captures = slot
                if byte(pattern, at + 1) == 41 then
                    item, at = { op = "position", slot = slot }, at + 2
                    items.positions[slot], closed[slot] = true, true
                else
                    item, at = { op = "open", slot = slot }, at + 1
                    opened[#opened + 1] = slot
                end
            elseif first == 41 then -- )
                local slot = opened[#opened]
                if not slot then
                    malformed("')' without '('", pattern)
                end
                item, at = { op = "close", slot = slot }, at + 1
                opened[#opened], closed[slot] = nil, true
            elseif first == 36 and at == #pattern then -- $
                item, at = { op = "stop" }, at + 1
            elseif first == 37 then -- %
                item, at = escaped(pattern, at, closed)
            else
                item, at = one(pattern, at)
            end
            if item.op == "balance" or item.op == "back" or item.repetition and item.repetition ~= "" then
                items.repetitions = items.repetitions + 1
            end
            items[#items + 1] = item
        end
        if #opened > 0 then
            malformed("unfinished capture", pattern)
        end
        return items
    end

    -- Analysis: what can follow. `sure`: the rest can't fail. `starts`: the class the rest begins with (false: it
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
            elseif op == "balance" or op == "frontier" or op == "back" then
                sure, starts, beyond, ends = false, nil, false, false
            end
            item.sure = sure
            if repetition and repetition ~= "" then
                item.decided = item.rest_sure or item.starts == false
                    or item.starts ~= nil and not overlap(item.class, item.starts)
                item.stops = repetition == "-" and item.class.all and item.beyond and item.starts.gaps ~= nil
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

    -- Steps in the worst case. `facts_of(class)` gives count, longest run and sum of the squared runs of a class.
    local function worst_case(items, length, facts_of)
        if items.linear then
            return (#items + 2) * (length + 1)
        end
        local starts = items.anchored and 1.0 or length + 1.0
        local visits, most, steps = starts, 1.0, 0.0 -- floats: these numbers outgrow any integer
        for index = 1, #items do
            local item = items[index]
            local repetition = item.repetition
            if item.sure then
                visits = least(visits, starts)
            end
            most = least(most, visits)
            steps = steps + VISIT * visits
            if repetition == "" then
                visits = least(visits, most * facts_of(item.class).count)
            elseif repetition == "?" then
                most = 2 * most
                visits = item.decided and visits or 2 * visits
            elseif repetition == "-" and item.rest_sure then
                steps = steps + visits
            elseif repetition then
                local facts = item.stops and facts_of(item.starts, "gaps") or facts_of(item.class)
                local reached = least(visits * (facts.longest + 1), most * (facts.squares + length + 1))
                steps = steps + 2 * reached
                visits = (item.decided or item.stops) and visits or reached
                most = most * (facts.longest + 1)
            elseif item.op == "balance" or item.op == "back" then
                steps = steps + visits * length
                most = visits
            end
        end
        return steps + VISIT * visits
    end

    -- The length up to which any subject is cheap.
    local function safe_length(items)
        local function fits(length)
            local facts = { count = length, longest = length, squares = length * length }
            return worst_case(items, length, function() return facts end) <= DIRECT
        end
        local length = 1
        while length <= MAX_KNOWN and fits(length) do
            length = length * 2
        end
        local low = floor(length / 2)
        for _ = 1, 4 do
            local middle = floor((low + length) / 2)
            if fits(middle) then
                low = middle
            else
                length = middle
            end
        end
        return low
    end

    local function prepare(pattern, anchors)
        if #pattern > MAX_PATTERN then
            local refused = format("a pattern of %d bytes is over the limit of %d", #pattern, MAX_PATTERN)
            return { refused = refused, safe = -1 }
        end
        local ok, items = pcall(compile, pattern, anchors)
        if not ok then
            return type(items) == "table" and items or error(items, 0)
        end
        analyse(items)
        items.linear = is_linear(items)
        items.plain = not find(pattern, "[%^%$%*%+%?%.%(%)%[%]%%%-]")
        items.safe = safe_length(items)
        return items
    end

    local searched = bounded_table(function(pattern) return prepare(pattern, true) end)
    local iterated = bounded_table(function(pattern) return prepare(pattern, false) end) -- in gmatch ^ is no anchor

    -- Facts of the last subject that needed them: a loop that searches on in one text asks again and again.
    local known = { subject = "", runs_left = 0 }

    local function measured(subject, runs)
        local facts, left = { count = 0, longest = 0, squares = 0 }, known.runs_left
        for from, after in gmatch(subject, runs) do
            local run = after - from
            facts.count = facts.count + run
            facts.squares = facts.squares + run * run
            if run > facts.longest then
                facts.longest = run
            end
            left = left - 1
            if left < 0 then
                facts = nil
                break
            end
        end
        known.runs_left = left
        return facts
    end

    local function facts_about(subject)
        if subject ~= known.subject then
            known = { subject = subject, runs_left = MAX_RUNS }
        end
        local length = #subject
        local anything = { count = length, longest = length, squares = length * length }
        return function(class, gaps)
            local runs = gaps and class.gaps or class.runs
            if class.all and not gaps or known.runs_left < 0 and not known[runs] then
                return anything
            end
            local facts = known[runs] or measured(subject, runs) or anything
            known[runs] = facts
            return facts
        end
    end

    -- Whether Lua's own function may run though the subject is longer than any safe one.
    local function is_cheap(items, subject)
        if items.refused then
            error(items.refused, 3)
        end
        return worst_case(items, #subject, facts_about(subject)) <= DIRECT
    end

    -- The matcher in Lua. A session holds the subject, the captures and the steps left of one call.

    local SPENT = {}

    local function too_costly(pattern, length, level)
        local message = "pattern %q is too costly on a text of %d bytes: it takes over %d steps; "
            .. "use fewer repetitions, anchor it with ^ or match shorter texts"
        error(format(message, sub(pattern, 1, 60), length, BUDGET), level + 1)
    end

    local function spend(session, steps)
        local left = session.left - steps
        session.left = left
        if left < 0 then
            error(SPENT, 0)
        end
    end

    local run

    local function run_greedy(session, item, index, at, fewest)
        local subject, class = session.subject, item.class
        local after = class.all and #subject + 1 or match(subject, class.run, at)
        spend(session, (after - at) / 50)
        for here = after, at + fewest, -1 do
            local stop = run(session, index + 1, here)
            if stop then
                return stop
            end
        end
        return nil
    end

    local function run_lazy(session, item, index, at)
        local subject, class, starts = session.subject, item.class, item.starts
        while true do
            if class.all and starts then
                local here = find(subject, starts.text, at)
                spend(session, ((here or #subject) - at) / 50)
                if not here then
                    return nil
                end
                at = here
            end
            local stop = run(session, index + 1, at)
            if stop then
                return stop
            end
            local code = byte(subject, at)
            if not code or not class[code] and not class.all then
                return nil
            end
            at = at + 1
        end
    end

    local function run_balance(session, item, at)
        local subject, open, close = session.subject, item.open, item.close
        if byte(subject, at) ~= open then
            return nil
        end
        local depth = 1
        for here = at + 1, #subject do
            spend(session, 0.5)
            local code = byte(subject, here)
            if code == close then
                depth = depth - 1
                if depth == 0 then
                    return here + 1
                end
            elseif code == open then
                depth = depth + 1
            end
        end
        return nil
    end

    -- A capture is undone when what follows fails.
    local function run_capture(session, item, index, at)
        local ends = item.op == "close" and session.to or session.from
        local slot = item.slot
        local old = ends[slot]
        ends[slot] = item.op == "close" and at - 1 or at
        local stop = run(session, index + 1, at)
        if not stop then
            ends[slot] = old
        end
        return stop
    end

    local function captured(session, slot)
        local from = session.from[slot]
        if session.items.positions[slot] then
            return from
        end
        return sub(session.subject, from, session.to[slot])
    end

    -- In a back reference a position capture stands for no text at all.
    local function run_back(session, item, at)
        local subject = session.subject
        if session.items.positions[item.slot] then
            return nil
        end
        local text = captured(session, item.slot)
        spend(session, #text / 50)
        return sub(subject, at, at + #text - 1) == text and at + #text or nil
    end

    local function is_frontier(subject, class, at)
        return not class[byte(subject, at - 1) or 0] and class[byte(subject, at) or 0]
    end

    -- The index after the match of the items from `index` on, at `at`, or nil.
    function run(session, index, at)
        local subject, items = session.subject, session.items
        while true do
            spend(session, 1)
            local item = items[index]
            if not item then
                return at
            end
            local op, repetition = item.op, item.repetition
            if repetition == "*" then
                return run_greedy(session, item, index, at, 0)
            elseif repetition == "+" then
                return run_greedy(session, item, index, at, 1)
            elseif repetition == "-" then
                return run_lazy(session, item, index, at)
            elseif repetition then
                local code = byte(subject, at)
                local fits = code and (item.class.all or item.class[code])
                if repetition == "" then
                    if not fits then
                        return nil
                    end
                    at = at + 1
                else
                    local stop = fits and run(session, index + 1, at + 1)
                    if stop then
                        return stop
                    end
                end
            elseif op == "stop" then
                if at ~= #subject + 1 then
                    return nil
                end
            elseif op == "frontier" then
                if not is_frontier(subject, item.class, at) then
                    return nil
                end
            elseif op == "balance" or op == "back" then
                at = op == "balance" and run_balance(session, item, at) or op == "back" and run_back(session, item, at)
                if not at then
                    return nil
                end
            else
                return run_capture(session, item, index, at)
            end
            index = index + 1
        end
    end

    local function new_session(items, subject)
        return { items = items, subject = subject, left = BUDGET, from = {}, to = {} }
    end

    local function search_from(session, at, last)
        local items, subject = session.items, session.subject
        local first = items.starts
        while at <= #subject + 1 do
            if first and not items.anchored then
                local here = find(subject, first.text, at)
                spend(session, ((here or #subject) - at) / 50)
                if not here then
                    return nil
                end
                at = here
            end
            local stop = run(session, 1, at)
            if stop and stop ~= last then
                return at, stop
            elseif items.anchored then
                return nil
            end
            at = at + 1
        end
        return nil
    end

    -- The next match that begins at `at` or later: its first index and the one after its last, or nil. As Lua
    -- does, it passes over one that ends at `last`, where the match before ended. To be called by what user code calls.
    local function search(session, at, last)
        local ok, from, stop = pcall(search_from, session, at, last)
        if ok then
            return from, stop
        elseif from == SPENT then
            too_costly(session.items.pattern, #session.subject, 3)
        end
        error(from, 0)
    end

    local function captures_of(session)
        local values, count = {}, session.items.captures
        for slot = 1, count do
            values[slot] = captured(session, slot)
        end
        return values, count
    end

    -- What a match hands out: its captures, or the whole of it when it has none.
    local function results(session, from, stop)
        local values, count = captures_of(session)
        if count == 0 then
            return sub(session.subject, from, stop - 1)
        end
        return unpack(values, 1, count)
    end

    local function first_index(subject, init)
        init = tonumber(init) or 1
        if init < 0 then
            init = #subject + init + 1
        end
        return init < 1 and 1 or init
    end

    local function slow_find(items, subject, init)
        local session = new_session(items, subject)
        local from, stop = search(session, first_index(subject, init))
        if not from then
            return nil
        end
        local values, count = captures_of(session)
        return from, stop - 1, unpack(values, 1, count)
    end

    local function slow_match(items, subject, init)
        local session = new_session(items, subject)
        local from, stop = search(session, first_index(subject, init))
        if not from then
            return nil
        end
        return results(session, from, stop)
    end

    local function slow_gmatch(items, subject, init)
        local session = new_session(items, subject)
        local at, last = first_index(subject, init), nil
        return function()
            session.left = BUDGET
            local from, stop = search(session, at, last)
            if not from then
                at = #subject + 2
                return nil
            end
            at, last = stop, stop
            return results(session, from, stop)
        end
    end

    local function expand(session, template, from, stop)
        local whole = sub(session.subject, from, stop - 1)
        return (gsub(template, "%%(.?)", function(kind)
            if kind == "%" then
                return "%"
            elseif not find(kind, "^%d") then
                error("invalid use of '%' in replacement string", 5)
            end
            local slot = byte(kind) - 48
            if slot == 0 or slot == 1 and session.items.captures == 0 then
                return whole
            elseif slot > session.items.captures then
                error(format("invalid capture index %%%d in replacement string", slot), 5)
            end
            return tostring(captured(session, slot))
        end))
    end

    -- What takes the place of a match; `template` says whether a text holds references.
    local function replacement(session, by, template, from, stop)
        local value
        if template then
            return expand(session, by, from, stop)
        elseif type(by) == "string" then
            return by
        elseif type(by) == "function" then
            value = by(results(session, from, stop))
        else
            value = by[(results(session, from, stop))]
        end
        if not value then
            return sub(session.subject, from, stop - 1)
        elseif type(value) ~= "string" and type(value) ~= "number" then
            error("invalid replacement value (a " .. type(value) .. ")", 3)
        end
        return tostring(value)
    end

    local function too_large(size)
        error(format("resulting string too large: %.0f bytes, the limit is %d", size, MAX_SIZE), 3)
    end

    local function slow_gsub(items, subject, by, limit)
        local session = new_session(items, subject)
        local out, pieces, size, count = {}, 0, 0, 0
        local at, last, copied = 1, nil, 1
        limit = tonumber(limit) or #subject + 1
        local template = type(by) == "string" and find(by, "%", 1, true) ~= nil
        while count < limit do
            local from, stop = search(session, at, last)
            if not from then
                break
            end
            count = count + 1
            out[pieces + 1] = sub(subject, copied, from - 1)
            out[pieces + 2] = replacement(session, by, template, from, stop)
            size = size + #out[pieces + 1] + #out[pieces + 2]
            if size > MAX_SIZE then
                too_large(size)
            end
            pieces = pieces + 2
            at, last, copied = stop, stop, stop
            if items.anchored then
                break
            end
        end
        out[pieces + 1] = sub(subject, copied)
        return concat(out), count
    end

    -- The guarded functions. Arguments that are no texts go to Lua's own functions, which say so.

    local function as_text(value)
        return type(value) == "number" and tostring(value) or value
    end

    local function are_numbers_too(subject, pattern)
        local left, right = type(subject), type(pattern)
        return (left == "string" or left == "number") and (right == "string" or right == "number")
    end

    -- A long text sought in a longer one: its beginning is sought, the rest compared where that is found.
    local function find_plain(subject, text, init)
        if #subject * #text <= PLAIN_WORK then
            return find(subject, text, init, true)
        end
        local beginning, left = sub(text, 1, 64), BUDGET
        local at = first_index(subject, init)
        while true do
            local from = find(subject, beginning, at, true)
            if not from then
                return nil
            elseif sub(subject, from, from + #text - 1) == text then
                return from, from + #text - 1
            end
            left = left - 1 - #text / 50
            if left < 0 then
                too_costly(text, #subject, 2)
            end
            at = from + 1
        end
    end

    local guarded = {}

    function guarded.find(subject, pattern, init, plain)
        if type(subject) == "string" and type(pattern) == "string" then
            if plain then
                if #subject * #pattern <= PLAIN_WORK then
                    return find(subject, pattern, init, true)
                end
                return find_plain(subject, pattern, init)
            end
            local items = searched[pattern]
            if #subject <= items.safe then
                return find(subject, pattern, init)
            elseif items.plain then
                return find_plain(subject, pattern, init)
            elseif is_cheap(items, subject) then
                return find(subject, pattern, init)
            end
            return slow_find(items, subject, init)
        elseif are_numbers_too(subject, pattern) then
            return guarded.find(as_text(subject), as_text(pattern), init, plain)
        end
        return find(subject, pattern, init, plain)
    end

    function guarded.match(subject, pattern, init)
        if type(subject) == "string" and type(pattern) == "string" then
            local items = searched[pattern]
            if #subject <= items.safe or is_cheap(items, subject) then
                return match(subject, pattern, init)
            end
            return slow_match(items, subject, init)
        elseif are_numbers_too(subject, pattern) then
            return guarded.match(as_text(subject), as_text(pattern), init)
        end
        return match(subject, pattern, init)
    end

    function guarded.gmatch(subject, pattern, init)
        if type(subject) == "string" and type(pattern) == "string" then
            local items = iterated[pattern]
            if #subject <= items.safe or is_cheap(items, subject) then
                return gmatch(subject, pattern, init)
            end
            return slow_gmatch(items, subject, init)
        elseif are_numbers_too(subject, pattern) then
            return guarded.gmatch(as_text(subject), as_text(pattern), init)
        end
        return gmatch(subject, pattern, init)
    end

    -- Matches don't overlap, so each %n of the replacement adds at most the subject once more.
    local function fits_size(subject, by)
        if (#by + 1) * (#subject + 1) <= MAX_SIZE / 32 then
            return true
        end
        local _, references = gsub(by, "%%%d", "%0")
        return #subject * (references + 1) + #by * (#subject + 1) <= MAX_SIZE
    end

    function guarded.gsub(subject, pattern, by, limit)
        local kind = type(by)
        if type(subject) == "string" and type(pattern) == "string" and REPLACEMENTS[kind] then
            local items = searched[pattern]
            local fits = kind ~= "string" or fits_size(subject, by)
            if fits and (#subject <= items.safe or is_cheap(items, subject)) then
                return gsub(subject, pattern, by, limit)
            end
            return slow_gsub(items, subject, by, limit)
        elseif are_numbers_too(subject, pattern) and (REPLACEMENTS[kind] or kind == "number") then
            return guarded.gsub(as_text(subject), as_text(pattern), as_text(by), limit)
        end
        return gsub(subject, pattern, by, limit)
    end

    -- Built from blocks: Lua's own loop copies piece by piece, a million times for a million bytes.
    function guarded.rep(text, count, separator)
        if type(text) ~= "string" or type(count) ~= "number" or count ~= floor(count) or count < 2 then
            return rep(text, count, separator)
        end
        separator = as_text(separator) or ""
        local unit = text .. separator
        local size = #unit * (count + 0.0) - #separator
        if size > MAX_SIZE then
            too_large(size)
        elseif size == 0 then
            return ""
        elseif count <= 1024 then
            return rep(text, count, separator)
        end
        local left = (count - 1) % 512
        return rep(rep(unit, 512), (count - 1 - left) / 512) .. rep(unit, left) .. text
    end

    return guarded
end
