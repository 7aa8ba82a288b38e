-- Pattern items: what a Lua pattern says, as a list that the other pattern files work on.
--
-- An item is {op = ...}: "one" (a class and its repetition "", "?", "*", "+" or "-"), "open" and
-- "close" of a capture, "position", "balance" (%b), "frontier" (%f), "back" (%1) and "stop" ($).
-- What is malformed anywhere is refused before a match comes to it, and so is what Lua's own
-- matcher might give up in the middle: more repetitions and captures than it nests.
local byte, char, find, format, gmatch, gsub, match, sub =
    string.byte, string.char, string.find, string.format, string.gmatch, string.gsub, string.match, string.sub
local concat, error, pcall, type = table.concat, error, pcall, type

local LONGEST = 2048 -- bytes of a pattern that is more than a plain text
local MOST_NESTED = 190 -- Lua gives up at 200
local MOST_CLASSES = 512 -- kept
local WIDE = 24 -- bytes; the text of a wider class is made shorter if that helps

local EVERY = {}
for code = 0, 255 do
    EVERY[code + 1] = char(code)
end
EVERY = concat(EVERY)

-- A text for the same class, of ranges: a class of thousands of bytes has at most 256 members.
local function shortened(text)
    local parts, from, last = { "[" }, nil, nil
    local function close_range()
        if from then
            parts[#parts + 1] = from == last and "%" .. char(from) or char(from) .. "-" .. char(last)
        end
    end
    for member in gmatch(EVERY, text) do
        local code = byte(member)
        if last ~= code - 1 then
            close_range()
            from = code
        end
        last = code
    end
    close_range()
    parts[#parts + 1] = "]"
    local short = concat(parts)
    local is_same = #short > 2 and #short < #text and pcall(find, "", short)
        and gsub(EVERY, short, "") == gsub(EVERY, text, "")
    return is_same and short or text
end

local function comparisons(text)
    return byte(text) == 91 and 1 + #text * 0.7 or 1
end

-- What one item without its repetition matches: `x`, `.`, `%a`, `[^x]`. `weight`: the steps a byte costs as the
-- class is written, `cost`: as it is kept.
local function new_class(text)
    local class = { all = text == ".", weight = comparisons(text) }
    local code = #text == 1 and not class.all and byte(text) or match(text, "^%%%W") and byte(text, 2)
    if code then
        class.code = code
        class.beyond = "()[^" .. text .. "]+()" -- runs of all other bytes
    elseif #text > WIDE then
        text = shortened(text)
    end
    class.text = text
    class.cost = comparisons(text)
    class.ahead = "^" .. text .. "*()"
    class.runs = "()" .. text .. "+()"
    return class
end

local classes, class_count = {}, 0

local function class_of(text)
    local class = classes[text]
    if not class then
        class = new_class(text)
        if class_count >= MOST_CLASSES then
            classes, class_count = {}, 0
        end
        classes[text] = class
        class_count = class_count + 1
    end
    return class
end

-- The members of a class by their codes.
local function set_of(class)
    local set = class.set
    if not set then
        set = {}
        if class.code then
            set[class.code] = true
        else
            for member in gmatch(EVERY, class.text) do
                set[byte(member)] = true
            end
        end
        class.set = set
    end
    return set
end

local function overlap(a, b)
    if a.code or b.code then
        return set_of(a.code and b or a)[a.code or b.code] == true
    end
    a, b = set_of(a), set_of(b)
    for code = 0, 255 do
        if a[code] and b[code] then
            return true
        end
    end
    return false
end

-- Refusals are tables: a malformed pattern is remembered as one.
local function refuse(message)
    error({ refused = message, free = -1, free_in_all = -1, safe = -1 }, 0)
end

local function malformed(reason, pattern)
    refuse(format("malformed pattern (%s): %q", reason, sub(pattern, 1, 60)))
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
    return { op = "one", class = class_of(text), repetition = repetition }, after + #repetition
end

local function escaped(pattern, at, closed)
    local kind = sub(pattern, at + 1, at + 1)
    if kind == "b" then
        if at + 3 > #pattern then
            malformed("missing arguments to '%b'", pattern)
        end
        local open, close = byte(pattern, at + 2, at + 3)
        local class = class_of(find(char(open), "%w") and char(open) or "%" .. char(open))
        return { op = "balance", open = open, close = close, class = class }, at + 4
    elseif kind == "f" then
        if byte(pattern, at + 2) ~= 91 then
            malformed("missing '[' after '%f'", pattern)
        end
        local after = class_end(pattern, at + 2)
        return { op = "frontier", class = class_of(sub(pattern, at + 2, after - 1)) }, after
    elseif find(kind, "^%d") then
        local slot = byte(kind) - 48
        if not closed[slot] then
            malformed("invalid capture index %" .. kind, pattern)
        end
        return { op = "back", slot = slot }, at + 2
    end
    return one(pattern, at)
end

local function open_capture(items, pattern, at, opened, closed)
    local slot = items.captures + 1
    if slot > 32 then
        malformed("too many captures", pattern)
    end
    items.captures = slot
    if byte(pattern, at + 1) == 41 then
        items.positions[slot], closed[slot] = true, true
        return { op = "position", slot = slot }, at + 2
    end
    opened[#opened + 1] = slot
    return { op = "open", slot = slot }, at + 1
end

local function close_capture(pattern, at, opened, closed)
    local slot = opened[#opened]
    if not slot then
        malformed("')' without '('", pattern)
    end
    opened[#opened], closed[slot] = nil, true
    return { op = "close", slot = slot }, at + 1
end

local NESTING = { open = true, close = true, position = true }

-- The items of a pattern; `anchors` says whether a ^ at its beginning is one. Raises a refusal.
local function compile(pattern, anchors)
    if #pattern > LONGEST then
        local text = "a pattern of %d bytes is over the limit of %d; look for a plain text with find(s, text, 1, true)"
        refuse(format(text, #pattern, LONGEST))
    end
    local items = { pattern = pattern, captures = 0, positions = {}, repetitions = 0 }
    local opened, closed, nested, at = {}, {}, 0, 1
    if anchors and byte(pattern) == 94 then -- ^
        items.anchored, at = true, 2
    end
    while at <= #pattern do
        local first, item = byte(pattern, at), nil
        if first == 40 then -- (
            item, at = open_capture(items, pattern, at, opened, closed)
        elseif first == 41 then -- )
            item, at = close_capture(pattern, at, opened, closed)
        elseif first == 36 and at == #pattern then -- $
            item, at = { op = "stop" }, at + 1
        elseif first == 37 then -- %
            item, at = escaped(pattern, at, closed)
        else
            item, at = one(pattern, at)
        end
        local repeats = item.repetition and item.repetition ~= ""
        if item.op == "balance" or item.op == "back" or repeats then
            items.repetitions = items.repetitions + 1
        end
        if repeats or NESTING[item.op] then
            nested = nested + 1
        end
        items.has_back = items.has_back or item.op == "back"
        items[#items + 1] = item
    end
    if #opened > 0 then
        malformed("unfinished capture", pattern)
    elseif nested > MOST_NESTED then
        local text = "pattern too complex (%d repetitions and captures, the limit is %d): %q"
        refuse(format(text, nested, MOST_NESTED, sub(pattern, 1, 60)))
    end
    return items
end

-- Like `compile`; gives the refusal instead of raising it.
local function items_of(pattern, anchors)
    local ok, items = pcall(compile, pattern, anchors)
    if not ok and type(items) ~= "table" then
        error(items, 0)
    end
    return items
end

return { items_of = items_of, set_of = set_of, overlap = overlap }
