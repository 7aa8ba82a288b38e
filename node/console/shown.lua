-- Values as a prompt shows them: with a bound on everything, in an order that is the same in every run.
--
-- Nothing of the user's is called but a __tostring, which runs in the thread of the line and can be stopped with it.
local K = ...
local errors, mailbox, values = K.errors, K.mailbox, K.values
local rawmeta = K.rawmeta
local concat, sort = table.concat, table.sort

local DEEPEST = 8
local MOST_ENTRIES = 100 -- of one table
local MOST_ROWS = 200
local LONGEST_STRING = 2000
local LONGEST_ALL = 32768
local WIDTH = 80
local LONGEST_CELL = 60
local ESCAPES = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\\"] = "\\\\", ['"'] = '\\"' }

local ROWS = { __name = "rows" } -- marks a list of maps that is shown as a table
local columns_of = setmetatable({}, { __mode = "k" })

local function escaped(char)
    return ESCAPES[char] or string.format("\\x%02x", string.byte(char))
end

-- Text that a terminal may have: control characters are escaped, and every byte of what is not UTF-8.
local function visible(text)
    local pattern = utf8.len(text) and "[%c]" or "[%c\128-\255]"
    return (string.gsub(text, pattern, escaped))
end

local function quoted(text)
    local more = ""
    if #text > LONGEST_STRING then
        more = "… (" .. #text .. " bytes)"
        text = string.sub(text, 1, LONGEST_STRING)
        while #text > 0 and not utf8.len(text) and #text > LONGEST_STRING - 4 do
            text = string.sub(text, 1, -2)
        end
    end
    local pattern = utf8.len(text) and '[%c\\"]' or '[%c\\"\128-\255]'
    return '"' .. string.gsub(text, pattern, escaped) .. '"' .. more
end

local function is_name(text)
    return #text <= 60 and string.find(text, "^[%a_][%w_]*$") ~= nil
end

local function by_kind(a, b)
    local kind_a, kind_b = type(a), type(b)
    if kind_a ~= kind_b then
        return kind_a < kind_b
    elseif kind_a == "number" or kind_a == "string" then
        return a < b
    end
    return false
end

local show -- (value, state, depth) -> text of one or several lines

local function entries_of(value, state, depth)
    local parts, keys, total = {}, {}, 0
    local length = rawlen(value)
    for i = 1, length < MOST_ENTRIES and length or MOST_ENTRIES do
        parts[i] = show(rawget(value, i), state, depth + 1)
    end
    local key = next(value)
    while key ~= nil do
        total = total + 1
        local in_list = math.type(key) == "integer" and key >= 1 and key <= length
        if not in_list and #keys <= 1000 then
            keys[#keys + 1] = key
        end
        key = next(value, key)
    end
    sort(keys, by_kind)
    for i = 1, #keys do
        if #parts >= MOST_ENTRIES or state.left <= 0 then
            break
        end
        key = keys[i]
        local name = type(key) == "string" and is_name(key) and key or "[" .. show(key, state, DEEPEST) .. "]"
        parts[#parts + 1] = name .. " = " .. show(rawget(value, key), state, depth + 1)
    end
    if total > #parts then
        parts[#parts + 1] = "… " .. total - #parts .. " more"
    end
    return parts
end

local function layed_out(parts)
    if #parts == 0 then
        return "{}"
    end
    local one = "{ " .. concat(parts, ", ") .. " }"
    if #one <= WIDTH and not string.find(one, "\n", 1, true) then
        return one
    end
    for i = 1, #parts do
        parts[i] = "  " .. string.gsub(parts[i], "\n", "\n  ")
    end
    return "{\n" .. concat(parts, ",\n") .. "\n}"
end

local function shown_error(err, state)
    local kind, message, details = err[errors.KIND], err[errors.MESSAGE], err[errors.DETAILS]
    local text = "error " .. (kind ~= "" and kind .. ": " or "") .. visible(tostring(message))
    return details == nil and text or text .. " " .. show(details, state, DEEPEST - 2)
end

local function shown_message(message, state, depth)
    local value, count = message[1], message[mailbox.COUNT]
    local text = visible(tostring(message[2])) .. " from " .. visible(tostring(message[3]))
    if count == 0 then
        return text
    end
    return text .. ": " .. show(value, state, depth)
end

local function shown_object(value, meta, state, depth)
    local special = values.special[meta] or values.special[rawget(meta, "__index")]
    if errors.is_error(value) then
        return shown_error(value, state)
    elseif meta == mailbox.message_meta then
        return "message " .. shown_message(value, state, depth)
    elseif special and special.unwrap then
        return show(special.unwrap(value), state, depth)
    elseif special and special.what then
        return "<" .. special.what .. ">"
    elseif rawget(meta, "__tostring") then
        return visible(string.sub(tostring(value), 1, LONGEST_STRING))
    end
    return nil
end

local function show_table(value, state, depth)
    local meta = rawmeta(value)
    local text = meta and shown_object(value, meta, state, depth)
    if text then
        return text
    elseif state.above[value] then
        return "{ … a table above }"
    elseif depth >= DEEPEST then
        return next(value) == nil and "{}" or "{ … }"
    end
    state.above[value] = true
    text = layed_out(entries_of(value, state, depth))
    state.above[value] = nil
    return text
end

function show(value, state, depth)
    if state.left <= 0 then
        return "…"
    end
    local kind, text = type(value), nil
    if kind == "table" then
        state.left = state.left - 4
        return show_table(value, state, depth)
    elseif kind == "string" then
        text = quoted(value)
    elseif kind == "function" or kind == "thread" then
        text = "<" .. (kind == "thread" and "a coroutine" or "a function") .. ">"
    else
        text = tostring(value)
    end
    state.left = state.left - #text
    return text
end

local function new_state()
    return { left = LONGEST_ALL, above = {} }
end

local function cell(value)
    if value == nil then
        return "-"
    end
    local text = type(value) == "string" and visible(value) or show(value, { left = 400, above = {} }, DEEPEST - 1)
    if utf8.len(text) and utf8.len(text) > LONGEST_CELL then
        return string.sub(text, 1, utf8.offset(text, LONGEST_CELL) - 1) .. "…"
    end
    return text
end

local function padded(text, width)
    return text .. string.rep(" ", width - (utf8.len(text) or #text))
end

local function shown_rows(rows)
    local columns = columns_of[rows] or {}
    if #rows == 0 then
        return "none"
    end
    local lines, widths = { {} }, {}
    for column = 1, #columns do
        lines[1][column] = string.upper(columns[column])
    end
    for i = 1, #rows < MOST_ROWS and #rows or MOST_ROWS do
        local line = {}
        for column = 1, #columns do
            line[column] = cell(rows[i][columns[column]])
        end
        lines[i + 1] = line
    end
    for column = 1, #columns do
        widths[column] = 0
        for i = 1, #lines do
            local width = utf8.len(lines[i][column]) or #lines[i][column]
            widths[column] = width > widths[column] and width or widths[column]
        end
    end
    for i = 1, #lines do
        for column = 1, #columns - 1 do
            lines[i][column] = padded(lines[i][column], widths[column])
        end
        lines[i] = concat(lines[i], "  ")
    end
    if #rows > MOST_ROWS then
        lines[#lines + 1] = "… " .. #rows - MOST_ROWS .. " more"
    end
    return concat(lines, "\n")
end

local shown = {}

-- A list of maps that shows as a table with these columns; it is a list all the same.
function shown.rows(list, columns)
    columns_of[list] = columns
    return setmetatable(list, ROWS)
end

function shown.value(value)
    if type(value) == "table" and rawmeta(value) == ROWS then
        return shown_rows(value)
    end
    return show(value, new_state(), 0)
end

-- All values of a line, one per line; at most ten.
function shown.values(results)
    local parts = {}
    for i = 1, results.n < 10 and results.n or 10 do
        parts[i] = shown.value(results[i])
    end
    if results.n > 10 then
        parts[11] = "… " .. results.n - 10 .. " more values"
    end
    return concat(parts, "\n")
end

function shown.message(message)
    return shown_message(message, new_state(), 0)
end

-- What events() told: an exit, a link that went down, newer code.
function shown.event(event)
    local state = new_state()
    local from, result = visible(tostring(event.from or "")), event.result
    if event.kind == "pid.exit" or event.kind == "pid.link.down" then
        local text = (event.kind == "pid.exit" and "exit of " or "link down to ") .. from
        if type(result) == "table" and result.error ~= nil then
            return text .. ": " .. show(result.error, state, 0)
        elseif type(result) == "table" and result.value ~= nil then
            return text .. " with " .. show(result.value, state, 0)
        end
        return text
    end
    return show(event, state, 0)
end

-- An error that ended a line: kind, message, and the lines it came from.
function shown.failure(failure)
    local err, raised, frames = failure.err, failure.raised, failure.frames
    local is_plain = type(raised) == "table" and rawmeta(raised) == nil and type(rawget(raised, "message")) ~= "string"
    local text
    if is_plain then
        text = "Internal: " .. shown.value(raised)
    else
        local kind = err[errors.KIND]
        text = (kind ~= "" and kind or "Unknown") .. ": " .. visible(tostring(err[errors.MESSAGE]))
        if err[errors.DETAILS] ~= nil then
            text = text .. " " .. show(err[errors.DETAILS], new_state(), DEEPEST - 2)
        end
    end
    local only = #frames == 1 and frames[1].source .. ":" .. frames[1].line .. ":"
    for i = 1, only and string.find(text, only, 1, true) and 0 or #frames do
        local frame = frames[i]
        text = text .. "\n  at " .. frame.source .. ":" .. frame.line .. (frame.name and " in " .. frame.name or "")
    end
    return text
end

shown.visible = visible

return function()
    return shown
end
