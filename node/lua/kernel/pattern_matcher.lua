-- Pattern matcher: Lua's matcher once more, in Lua, for what is not known to be cheap.
--
-- Its results are those of Lua's own, but it counts its steps: it gives way to other processes
-- every SLICE of them and refuses to go on when its budget is spent. Long runs of bytes are
-- still gone over by Lua's own functions, a piece at a time.
--
-- Each item becomes a function(session, at) that gives the index after the match of it and all
-- that follow, or nil. A session holds the subject, the captures and the budget of one call.
local K = ...
local set_of = K.parts.pattern_items.set_of
local byte, find, format, match, sub = string.byte, string.find, string.format, string.match, string.sub
local error, unpack = error, table.unpack

local SLICE = 2000 -- steps between two chances for others; a step is about 50 ns where nothing else runs
local WHOLE, FIRST, LATER = 500000, 256, 16384 -- bytes: a longer subject is gone over in pieces
local CALL, NATIVE = 3, 1 / 16 -- steps: what a call of Lua's own functions costs, and each byte it goes over

local function refuse(session)
    local text = "pattern %q is too costly on a text of %d bytes: use fewer repetitions, anchor it with ^, "
        .. "look for plain text with find(s, text, 1, true), or split the text"
    error(format(text, sub(session.items.pattern, 1, 60), #session.subject), 2)
end

-- The slice is over.
local function go_on(session)
    local budget = session.budget + session.left - SLICE
    session.budget, session.left = budget, SLICE
    if budget < 0 then
        refuse(session)
    end
    session.charge()
end

local function spend(session, steps)
    local left = session.left - steps
    session.left = left
    if left < 0 then
        go_on(session)
    end
end

-- The index after the run of members of `class` that begins at `at`.
local function run_end(session, class, at)
    local subject, length = session.subject, session.length
    if class.all then
        return length + 1
    end
    local piece = FIRST
    while (length - at) * class.cost > WHOLE do
        local count = match(sub(subject, at, at + piece - 1), class.ahead) - 1
        spend(session, CALL + count * NATIVE * class.cost)
        at = at + count
        if count < piece then
            return at
        end
        piece = LATER
    end
    local after = match(subject, class.ahead, at)
    spend(session, CALL + (after - at) * NATIVE * class.cost)
    return after
end

-- The first index from `at` on with a member of `class`, or nil.
local function seek(session, class, at)
    local subject, length, piece = session.subject, session.length, FIRST
    while (length - at) * class.cost > WHOLE do
        local here = find(sub(subject, at, at + piece - 1), class.text)
        spend(session, CALL + (here or piece) * NATIVE * class.cost)
        if here then
            return at + here - 1
        end
        at, piece = at + piece, LATER
    end
    local here = find(subject, class.text, at)
    spend(session, CALL + ((here or length) - at) * NATIVE * class.cost)
    return here
end

local builders = {}

function builders.greedy(item, rest)
    local class, fewest, is_leading = item.class, item.repetition == "+" and 1 or 0, item.is_leading
    if item.decided then -- what follows can only be where the run ends
        return function(session, at)
            spend(session, 1)
            local after = run_end(session, class, at)
            if is_leading then
                session.after = after
            end
            return after >= at + fewest and rest(session, after) or nil
        end
    end
    return function(session, at)
        for here = run_end(session, class, at), at + fewest, -1 do
            spend(session, 1)
            local stop = rest(session, here)
            if stop then
                return stop
            end
        end
        return nil
    end
end

function builders.lazy(item, rest)
    local class, set, starts = item.class, set_of(item.class), item.class.all and item.starts
    return function(session, at)
        local subject = session.subject
        while true do
            spend(session, 1)
            if starts then
                at = seek(session, starts, at)
                if not at then
                    return nil
                end
            end
            local stop = rest(session, at)
            if stop then
                return stop
            elseif not set[byte(subject, at)] then
                return nil
            end
            at = at + 1
        end
    end
end

function builders.optional(item, rest)
    local set = set_of(item.class)
    return function(session, at)
        spend(session, 1)
        if set[byte(session.subject, at)] then
            local stop = rest(session, at + 1)
            if stop then
                return stop
            end
        end
        return rest(session, at)
    end
end

function builders.single(item, rest)
    local set = set_of(item.class)
    return function(session, at)
        local left = session.left - 1
        session.left = left
        if left < 0 then
            go_on(session)
        end
        return set[byte(session.subject, at)] and rest(session, at + 1) or nil
    end
end

function builders.one(item, rest)
    local repetition = item.repetition
    if repetition == "" then
        return builders.single(item, rest)
    elseif repetition == "?" then
        return builders.optional(item, rest)
    elseif repetition == "-" then
        return builders.lazy(item, rest)
    end
    return builders.greedy(item, rest)
end

-- A capture is undone when what follows fails.
function builders.open(item, rest)
    local slot = item.slot
    return function(session, at)
        local from = session.from
        local old = from[slot]
        from[slot] = at
        local stop = rest(session, at)
        if not stop then
            from[slot] = old
        end
        return stop
    end
end

builders.position = builders.open

function builders.close(item, rest)
    local slot = item.slot
    return function(session, at)
        local to = session.to
        local old = to[slot]
        to[slot] = at - 1
        local stop = rest(session, at)
        if not stop then
            to[slot] = old
        end
        return stop
    end
end

function builders.stop(_, rest)
    return function(session, at)
        return at == session.length + 1 and rest(session, at) or nil
    end
end

function builders.frontier(item, rest)
    local set = set_of(item.class)
    return function(session, at)
        spend(session, 1)
        local subject = session.subject
        if set[at > 1 and byte(subject, at - 1) or 0] or not set[byte(subject, at) or 0] then
            return nil
        end
        return rest(session, at)
    end
end

function builders.balance(item, rest)
    local open, close = item.open, item.close
    return function(session, at)
        local subject = session.subject
        if byte(subject, at) ~= open then
            return nil
        end
        local depth = 1
        for here = at + 1, session.length do
            spend(session, 1)
            local code = byte(subject, here)
            if code == close then
                depth = depth - 1
                if depth == 0 then
                    return rest(session, here + 1)
                end
            elseif code == open then
                depth = depth + 1
            end
        end
        return nil
    end
end

-- A back reference to a position stands for no text at all.
function builders.back(item, rest, items)
    local slot = item.slot
    if items.positions[slot] then
        return function() return nil end
    end
    return function(session, at)
        local subject = session.subject
        local text = sub(subject, session.from[slot], session.to[slot])
        spend(session, CALL + #text * NATIVE)
        if sub(subject, at, at + #text - 1) ~= text then
            return nil
        end
        return rest(session, at + #text)
    end
end

local function matched(_, at)
    return at
end

-- When a leading repetition that is decided fails, it fails alike wherever else in its run it begins.
local function mark_leading(items)
    local first = 1
    while items[first] and (items[first].op == "open" or items[first].op == "position") do
        first = first + 1
    end
    local item = items[first]
    local is_greedy = item and (item.repetition == "*" or item.repetition == "+")
    if is_greedy and item.decided and not items.has_back then
        item.is_leading = true
    end
end

local function build(items)
    mark_leading(items)
    local rest = matched
    for index = #items, 1, -1 do
        rest = builders[items[index].op](items[index], rest, items)
    end
    return rest
end

-- `limits`: budget (steps of a call, and a third of one for each byte) and charge (called after each slice).
local function new_session(items, subject, limits)
    if not items.run then
        items.run = build(items)
    end
    return {
        items = items,
        subject = subject,
        length = #subject,
        budget = limits.budget + #subject / 3,
        left = SLICE,
        after = 0, -- where the run that a leading repetition took ends
        charge = limits.charge,
        from = {},
        to = {},
    }
end

-- The next match that begins at `at` or later: its first index and the one after its last, or nil. As Lua
-- does, it passes over one that ends at `last`, where the match before ended.
local function search(session, at, last)
    local items, length = session.items, session.length
    local run, starts = items.run, items.starts
    while at <= length + 1 do
        spend(session, 1)
        if starts and not items.anchored then
            at = seek(session, starts, at)
            if not at then
                return nil
            end
        end
        local stop = run(session, at)
        if stop and stop ~= last then
            return at, stop
        elseif items.anchored then
            return nil
        end
        local after = session.after
        at = not stop and after > at and after + 1 or at + 1
    end
    return nil
end

-- The captures of the last match.
local function captures_of(session)
    local items, subject, values = session.items, session.subject, {}
    for slot = 1, items.captures do
        local from = session.from[slot]
        values[slot] = items.positions[slot] and from or sub(subject, from, session.to[slot])
    end
    return unpack(values, 1, items.captures)
end

return { new_session = new_session, search = search, captures_of = captures_of }
