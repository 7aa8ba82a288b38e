-- JSON for the programs of one process: encode and decode, in pure Lua.
--
-- Made by `chunk(env)`, once per process; `env.errors` is the errors module. Expected
-- failures are values (nil, error) that name the place: a path like `items[3].name` when
-- encoding, line and column when decoding. Text is deterministic: keys come sorted.
-- An empty table is `[]`, but one that was decoded from `{}` is remembered and stays `{}`.
-- Null has no value in Lua: decoded fields and elements that are null are absent.

local byte, char, find, format, gsub, match, sub =
    string.byte, string.char, string.find, string.format, string.gsub, string.match, string.sub
local concat, remove, sort = table.concat, table.remove, table.sort
local floor, huge = math.floor, math.huge
local getmetatable, next, rawget, rawlen, setmetatable, tonumber, tostring, type =
    getmetatable, next, rawget, rawlen, setmetatable, tonumber, tostring, type
local math_type = math.type or function(n) return n == floor(n) and n > -2^53 and n < 2^53 and "integer" or "float" end
local utf8_len = utf8 and utf8.len or function() return true end

local MAX_DEPTH = 128
local MAX_SIZE = 64 * 1024 * 1024
local MAX_CACHED_KEYS = 1024
local MIXED = "a table with both string keys and others"
local SPARSE = "a sparse array (its indices are not 1 to n)"
local MAX_SEGMENTS = 8 -- of a path in a message

local ESCAPES = {
    ['"'] = '\\"', ["\\"] = "\\\\",
    ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t",
}
for code = 0, 31 do
    ESCAPES[char(code)] = ESCAPES[char(code)] or format("\\u%04x", code)
end
local UNESCAPES = { ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }
local REPLACEMENT = "\239\191\189" -- U+FFFD

-- Encoding

-- The length of the well-formed UTF-8 sequence at `at`, or nil.
local function sequence(text, at)
    for length = 1, 4 do
        if at + length - 1 > #text then return nil end
        if utf8_len(text, at, at + length - 1) == 1 then return length end
    end
    return nil
end

-- Each byte that is no part of a well-formed sequence becomes U+FFFD, so that the text is always legal JSON.
local function repaired(text)
    local pieces, count, from = {}, 0, 1
    while true do
        local ok, bad = utf8_len(text, from)
        if ok then
            pieces[count + 1] = sub(text, from)
            return concat(pieces)
        end
        local after = bad + (sequence(text, bad) or 1)
        pieces[count + 1] = sub(text, from, bad - 1)
        pieces[count + 2] = REPLACEMENT
        count = count + 2
        from = after
    end
end

local function quote(text)
    if find(text, '[\0-\31"\\\128-\255]') then
        if find(text, "[\128-\255]") and not utf8_len(text) then text = repaired(text) end
        text = gsub(text, '[\0-\31"\\]', ESCAPES)
    end
    return '"' .. text .. '"'
end

local function number_text(n)
    if math_type(n) == "integer" then return format("%d", n) end
    if n ~= n or n == huge or n == -huge then return "null" end
    if n == floor(n) and n > -1e15 and n < 1e15 then
        return n == 0 and 1 / n < 0 and "-0" or format("%d", n)
    end
    local text = format("%.15g", n)
    if tonumber(text) ~= n then
        text = format("%.16g", n)
        if tonumber(text) ~= n then text = format("%.17g", n) end
    end
    return text
end

-- A failure on its way out: {reason, segment, segment, ...}, innermost segment first.
local function fail(reason)
    return { reason }
end

local function path_of(failure)
    local parts = {}
    for index = #failure, 2, -1 do
        local segment = failure[index]
        if #failure - index > MAX_SEGMENTS then
            parts[#parts + 1] = "..."
            break
        elseif type(segment) == "number" then
            parts[#parts + 1] = format("[%d]", segment)
        elseif find(segment, "^[%a_][%w_]*$") then
            parts[#parts + 1] = (#parts > 0 and "." or "") .. segment
        else
            parts[#parts + 1] = format("[%q]", segment)
        end
    end
    return #parts > 0 and concat(parts) or "the value itself"
end

-- Makes a function that encodes one value at a time.
local function new_encoder(empty_objects)
    local out, count, size -- pieces of the text being written; bytes of its strings, roughly
    local open -- the tables on the way from the root to the one being written
    local keys, key_count = {}, 0
    local write

    local function key_text(key)
        local text = keys[key]
        if not text then
            text = quote(key) .. ":"
            if key_count >= MAX_CACHED_KEYS then keys, key_count = {}, 0 end
            keys[key] = text
            key_count = key_count + 1
        end
        return text
    end

    local function too_deep(value, depth)
        for index = 1, depth - 1 do
            for later = index + 1, depth do
                if open[index] == (open[later] or value) then return fail("a table that contains itself") end
            end
        end
        return fail(format("nesting deeper than %d levels", MAX_DEPTH))
    end

    local function write_array(value, length, depth)
        for index = 1, length do
            count = count + 1
            out[count] = index == 1 and "[" or ","
            local failure = write(rawget(value, index), depth)
            if failure then
                failure[#failure + 1] = index
                return failure
            end
        end
        count = count + 1
        out[count] = "]"
    end

    local function write_object(value, names, depth)
        sort(names)
        for index = 1, #names do
            local name = names[index]
            out[count + 1] = index == 1 and "{" or ","
            count = count + 2
            out[count] = key_text(name)
            local failure = write(rawget(value, name), depth)
            if failure then
                failure[#failure + 1] = name
                return failure
            end
        end
        count = count + 1
        out[count] = "}"
    end

    -- An array holds exactly the keys 1..length, an object only strings.
    local function write_table(value, depth)
        if getmetatable(value) == false then
            return fail("an object of the runtime, " .. tostring(value) .. " (encode its fields or its text)")
        end
        if depth > MAX_DEPTH then return too_deep(value, depth) end
        if size > MAX_SIZE then return fail(format("a text over %d MiB", MAX_SIZE / 1048576)) end
        open[depth] = value
        local key = next(value)
        if key == nil then
            count = count + 1
            out[count] = empty_objects[value] and "{}" or "[]"
            return nil
        end
        if type(key) == "string" then
            local names, named = {}, 0
            repeat
                if type(key) ~= "string" then return fail(MIXED) end
                named = named + 1
                names[named] = key
                key = next(value, key)
            until key == nil
            size = size + 8 * named
            return write_object(value, names, depth)
        end
        local length, seen = rawlen(value), 0
        repeat
            if type(key) ~= "number" then
                return fail(type(key) == "string" and MIXED or "a key that is a " .. type(key))
            end
            seen = seen + 1
            if key < 1 or key > length or key ~= floor(key) then return fail(SPARSE) end
            key = next(value, key)
        until key == nil
        if seen ~= length then return fail(SPARSE) end
        size = size + 2 * length
        return write_array(value, length, depth)
    end

    function write(value, depth)
        local kind = type(value)
        if kind == "string" then
            size = size + #value
            count = count + 1
            out[count] = quote(value)
        elseif kind == "number" then
            count = count + 1
            out[count] = number_text(value)
        elseif kind == "boolean" then
            count = count + 1
            out[count] = value and "true" or "false"
        elseif kind == "table" then
            return write_table(value, depth + 1)
        elseif kind == "nil" then
            count = count + 1
            out[count] = "null"
        else
            return fail("a " .. kind)
        end
    end

    return function(value)
        out, count, size, open = {}, 0, 0, {}
        local failure = write(value, 0)
        local pieces = out
        out, open = nil, nil
        if failure then
            return nil, format("cannot encode as JSON: %s at %s", failure[1], path_of(failure))
        end
        return concat(pieces, "", 1, count)
    end
end

-- Decoding. A reader returns the value and the index after it, or NOTHING, the reason and the index of the fault.

local NOTHING = {}

local function utf8_text(code)
    if code < 0x80 then return char(code) end
    if code < 0x800 then return char(0xC0 + floor(code / 0x40), 0x80 + code % 0x40) end
    if code < 0x10000 then
        return char(0xE0 + floor(code / 0x1000), 0x80 + floor(code / 0x40) % 0x40, 0x80 + code % 0x40)
    end
    return char(
        0xF0 + floor(code / 0x40000),
        0x80 + floor(code / 0x1000) % 0x40,
        0x80 + floor(code / 0x40) % 0x40,
        0x80 + code % 0x40
    )
end

-- Reads what follows the backslash at `at`; a half of a surrogate pair alone becomes U+FFFD.
local function read_escape(text, at)
    local simple = UNESCAPES[sub(text, at + 1, at + 1)]
    if simple then return simple, at + 2 end
    local digits = match(text, "^u(%x%x%x%x)", at + 1)
    if not digits then return NOTHING, "unknown escape sequence", at end
    local code = tonumber(digits, 16)
    if code < 0xD800 or code > 0xDFFF then return utf8_text(code), at + 6 end
    local low = code < 0xDC00 and tonumber(match(text, "^\\u([dD][c-fC-F]%x%x)", at + 6) or "", 16)
    if not low then return REPLACEMENT, at + 6 end
    return utf8_text(0x10000 + (code - 0xD800) * 0x400 + low - 0xDC00), at + 12
end

local function read_string(text, at)
    local from = at + 1
    local stop = find(text, '[\0-\31"\\]', from)
    if stop and byte(text, stop) == 34 then return sub(text, from, stop - 1), stop + 1 end
    local pieces, count = {}, 0
    while stop do
        local code = byte(text, stop)
        if code < 32 then return NOTHING, "control character in a string; write it as an escape sequence", stop end
        count = count + 1
        pieces[count] = sub(text, from, stop - 1)
        if code == 34 then return concat(pieces), stop + 1 end
        local piece, after, where = read_escape(text, stop)
        if piece == NOTHING then return NOTHING, after, where end
        count = count + 1
        pieces[count] = piece
        from = after
        stop = find(text, '[\0-\31"\\]', from)
    end
    return NOTHING, "string without an end", at
end

local function read_number(text, at)
    local digits = match(text, "^-?(%d+)", at)
    if not digits then return NOTHING, "expected a value", at end
    if #digits > 1 and byte(digits) == 48 then return NOTHING, "number with a leading zero", at end
    local after = at + #digits + (byte(text, at) == 45 and 1 or 0)
    local code = byte(text, after)
    if code == 46 or code == 101 or code == 69 then
        if code == 46 then
            after = match(text, "^%.%d+()", after)
            if not after then return NOTHING, "number without digits after the point", at end
            code = byte(text, after)
        end
        if code == 101 or code == 69 then
            after = match(text, "^[eE][+-]?%d+()", after)
            if not after then return NOTHING, "number without digits in its exponent", at end
        end
    end
    local value = tonumber(sub(text, at, after - 1))
    if value == huge or value == -huge then return NOTHING, "number too large", at end
    return value, after
end

local WORDS = { [102] = { "false", false }, [110] = { "null", nil }, [116] = { "true", true } }

local function read_word(text, at, word)
    local last = at + #word[1] - 1
    if sub(text, at, last) ~= word[1] then return NOTHING, "expected a value", at end
    return word[2], last + 1
end

local function skip_space(text, at)
    return find(text, "[^ \t\r\n]", at) or #text + 1
end

local function decoder(empty_objects)
    local read

    local function read_array(text, at, depth)
        local values, index = {}, 0
        at = skip_space(text, at + 1)
        if byte(text, at) == 93 then return values, at + 1 end
        while true do
            local value, after, where = read(text, at, depth)
            if value == NOTHING then return NOTHING, after, where end
            index = index + 1
            values[index] = value
            local code = byte(text, after)
            if code ~= 44 and code ~= 93 then
                after = skip_space(text, after)
                code = byte(text, after)
            end
            if code == 93 then return values, after + 1 end
            if code ~= 44 then return NOTHING, "expected ',' or ']' in an array", after end
            at = skip_space(text, after + 1)
        end
    end

    -- Reads a key and its colon; most keys hold no escape sequence and are read by one match.
    local function read_key(text, at)
        local key, after = match(text, '^"([^"\\%c]*)"[ \t\r\n]*:()', at)
        if key then return key, after end
        if byte(text, at) ~= 34 then return NOTHING, "expected a key in double quotes", at end
        local where
        key, after, where = read_string(text, at)
        if key == NOTHING then return NOTHING, after, where end
        after = skip_space(text, after)
        if byte(text, after) ~= 58 then return NOTHING, "expected ':' after a key", after end
        return key, after + 1
    end

    local function read_object(text, at, depth)
        local values = {}
        at = skip_space(text, at + 1)
        if byte(text, at) == 125 then
            empty_objects[values] = true
            return values, at + 1
        end
        while true do
            local key, colon, fault = read_key(text, at)
            if key == NOTHING then return NOTHING, colon, fault end
            local value, after, where = read(text, skip_space(text, colon), depth)
            if value == NOTHING then return NOTHING, after, where end
            values[key] = value
            local code = byte(text, after)
            if code ~= 44 and code ~= 125 then
                after = skip_space(text, after)
                code = byte(text, after)
            end
            if code == 125 then
                if next(values) == nil then empty_objects[values] = true end
                return values, after + 1
            end
            if code ~= 44 then return NOTHING, "expected ',' or '}' in an object", after end
            at = skip_space(text, after + 1)
        end
    end

    function read(text, at, depth)
        local code = byte(text, at)
        if code == 34 then return read_string(text, at) end
        if code == 123 or code == 91 then
            if depth >= MAX_DEPTH then return NOTHING, format("nesting deeper than %d levels", MAX_DEPTH), at end
            if code == 123 then return read_object(text, at, depth + 1) end
            return read_array(text, at, depth + 1)
        end
        local word = WORDS[code]
        if word then return read_word(text, at, word) end
        if not code then return NOTHING, "unexpected end of the text", at end
        return read_number(text, at)
    end

    local function place(text, at)
        local line, line_start = 1, 1
        for after in string.gmatch(sub(text, 1, at - 1), "\n()") do
            line, line_start = line + 1, after
        end
        return format("line %d, column %d", line, at - line_start + 1)
    end

    return function(text)
        local value, after, where = read(text, skip_space(text, 1), 0)
        if value ~= NOTHING then
            where = skip_space(text, after)
            if where > #text then return value end
            after = "unexpected text after the value"
        end
        return nil, format("invalid JSON: %s (%s)", after, place(text, where))
    end
end

return function(env)
    local errors = env.errors
    local empty_objects = setmetatable({}, { __mode = "k" })
    local decode_text = decoder(empty_objects)
    local idle = {} -- encoders; a coroutine that is pre-empted while it encodes keeps its own

    local function failed(message, kind)
        return nil, errors.new({ message = message, kind = kind, retryable = false })
    end

    local function encode(value)
        local encode_text = remove(idle) or new_encoder(empty_objects)
        local text, reason = encode_text(value)
        idle[#idle + 1] = encode_text
        if reason then return failed(reason, errors.INTERNAL) end
        return text
    end

    local function decode(text)
        if type(text) ~= "string" then
            return failed("invalid JSON: expected a string, got " .. type(text), errors.INTERNAL)
        end
        local value, reason = decode_text(text)
        if reason then return failed(reason, errors.INTERNAL) end
        return value
    end

    local function no_schemas(verb)
        return function()
            return failed("json." .. verb .. ": this node has no JSON Schema validator", errors.UNAVAILABLE)
        end
    end

    return {
        encode = encode,
        decode = decode,
        validate = no_schemas("validate"),
        validate_string = no_schemas("validate_string"),
    }
end
