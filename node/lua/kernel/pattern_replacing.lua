-- Pattern replacing: gsub from match to match, in Lua.
--
-- For replacing functions, which may be pre-empted and may wait here, and for what is too long to
-- do in one go. The result is put together a few thousand pieces at a time and its size bounded;
-- others get their chance in between.
local K = ...
local new_session, search, captures_of =
    K.parts.pattern_matcher.new_session, K.parts.pattern_matcher.search, K.parts.pattern_matcher.captures_of
local byte, find, format, gsub, match, sub = string.byte, string.find, string.format, string.gsub, string.match, string.sub
local concat, error, floor, select, tonumber, tostring, type, unpack =
    table.concat, error, math.floor, select, tonumber, tostring, type, table.unpack

local GATHERED = 4096 -- pieces put together at a time

-- A `work` holds the subject, what replaces, and the pieces of the result.

local function too_large(work)
    error(format("resulting string too large: %.0f bytes, the limit is %d", work.size, work.limits.size), 2)
end

local function gather(work)
    work.gathered[#work.gathered + 1] = concat(work, "", 1, work.count)
    work.count = 0
    if work.size > work.limits.size then
        too_large(work)
    end
    work.limits.charge()
end

-- A replacing text with references, as a list of texts and numbers of captures.
local function parsed(by, captures)
    local template, at = {}, 1
    while true do
        local here = find(by, "%", at, true)
        template[#template + 1] = sub(by, at, (here or 0) - 1)
        if not here then
            return template
        end
        local kind = sub(by, here + 1, here + 1)
        local slot = match(kind, "%d") and byte(kind) - 48
        if slot and slot > captures and not (slot == 1 and captures == 0) then
            error(format("invalid capture index %%%d in replacement string", slot), 2)
        elseif not slot and kind ~= "%" then
            error("invalid use of '%' in replacement string", 2)
        end
        template[#template + 1] = slot or "%"
        at = here + 2
    end
end

local function expanded(work, whole, ...)
    local template = work.template or parsed(work.by, work.captures)
    work.template = template
    local texts, size = {}, work.size
    for i = 1, #template do
        local part = template[i]
        if type(part) == "string" then
            texts[i] = part
        elseif part == 0 or work.captures == 0 then
            texts[i] = whole
        else
            texts[i] = tostring((select(part, ...)))
        end
        size = size + #texts[i]
    end
    if size > work.limits.size then
        work.size = size
        too_large(work)
    end
    return concat(texts)
end

local function answered(work, whole, ...)
    local by, value = work.by, nil
    if type(by) == "function" then
        value = by(...)
    else
        value = by[(...)]
    end
    if not value then
        return whole
    elseif type(value) == "string" then
        return value
    elseif type(value) ~= "number" then
        error("invalid replacement value (a " .. type(value) .. ")", 2)
    end
    return tostring(value)
end

-- What stands in place of a match.
local function replacement(work, whole, ...)
    if work.is_text then
        return expanded(work, whole, ...)
    elseif work.captures == 0 then
        return answered(work, whole, whole)
    end
    return answered(work, whole, ...)
end

-- Takes one match; returns whether there was one. What follows ``to`` are its captures.
local function take(work, from, to, ...)
    if not from then
        return false
    end
    local subject, at = work.subject, work.at
    local text = work.plain or replacement(work, sub(subject, from, to), ...)
    local count = work.count + 1
    if from > at then
        work[count] = sub(subject, at, from - 1)
        count = count + 1
    end
    work[count] = text
    work.count = count
    work.size = work.size + from - at + #text
    if count >= GATHERED or work.size > work.limits.size then
        gather(work)
    end
    work.at, work.last = to + 1, to + 1
    return true
end

-- As Lua does, it passes over an empty match where the one before ended.
local function other_than_last(work, from, to, ...)
    if from and to + 1 == work.last then
        if from > #work.subject then
            return nil
        end
        return find(work.subject, work.pattern, from + 1)
    end
    return from, to, ...
end

local function take_found(work, session, from, stop)
    if not from then
        return false
    end
    session.budget = session.budget + work.limits.credit * (stop - work.at)
    return take(work, from, stop - 1, captures_of(session))
end

-- Like gsub, with the items of a pattern; `cheap` says whether Lua's own find may find the matches.
local function replace_all(items, subject, by, limit, limits, cheap)
    K.arguments.checked(gsub, "", "", "", limit) -- does Lua like it?
    limit = limit and floor(tonumber(limit)) or #subject + 1
    local is_text = type(by) == "string"
    local work = {
        subject = subject,
        pattern = items.pattern,
        captures = items.captures,
        limits = limits,
        by = by,
        is_text = is_text,
        plain = is_text and not find(by, "%", 1, true) and by, -- what replaces as it is
        gathered = {},
        count = 0,
        size = 0,
        at = 1,
    }
    local session = not cheap and new_session(items, subject, limits)
    local count = 0
    while count < limit do
        local found
        if cheap then
            found = take(work, other_than_last(work, find(subject, work.pattern, work.at)))
        else
            found = take_found(work, session, search(session, work.at, work.last))
        end
        if not found then
            break
        end
        count = count + 1
        if items.anchored then
            break
        end
    end
    work.count = work.count + 1
    work[work.count] = sub(subject, work.at)
    work.size = work.size + #subject + 1 - work.at
    gather(work)
    return concat(work.gathered), count
end

-- The same for a short text and a function: Lua's own gsub collects what the matches hand out and puts the
-- answers in their place; in between the function is called from here, where it may be pre-empted and may wait.
local function replace_short(items, subject, by, limit, limits)
    local checked, pattern = K.arguments.checked, items.pattern
    local found, count, size = {}, 0, #subject
    local function collect(captured)
        count = count + 1
        found[count] = captured
    end
    local function collect_all(...)
        count = count + 1
        found[count] = { ... }
    end
    local several = items.captures > 1
    checked(gsub, subject, pattern, several and collect_all or collect, limit)
    for i = 1, count do
        local answer
        if several then
            answer = by(unpack(found[i]))
        else
            answer = by(found[i])
        end
        found[i] = answer
        if type(answer) == "string" then
            size = size + #answer
            if size > limits.size then
                too_large({ size = size, limits = limits })
            end
        end
    end
    local at = 0
    return checked(gsub, subject, pattern, function()
        at = at + 1
        return found[at]
    end, limit)
end

return { replace_all = replace_all, replace_short = replace_short }
