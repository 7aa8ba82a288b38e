-- Codec: msgpack, the form in which items enter and leave the VM.
--
-- A step's items cross as one text, made and read here while Python does other work; Python's
-- side is msgpack's own in C. Nothing but plain data has a form, so no object of the host can
-- get in. Values of users are encoded as they are: no copy is made of what leaves.
--
-- Tables whose keys are exactly 1..n are arrays, an empty one an empty array, all others maps.
-- Integers and floats stay what they are. Texts are of the str family, raw.
local K = ...
local turns, values = K.turns, K.values
local rule_for = values.rule_for
local rawmeta, rawpcall = debug.getmetatable, pcall
local byte, char, concat, pack, sub, unpack =
    string.byte, string.char, table.concat, string.pack, string.sub, string.unpack
local error, mtype, next, rawequal, rawlen, rawset, type =
    error, math.type, next, rawequal, rawlen, rawset, type

local DEEPEST = values.DEEPEST + 8 -- what the kernel puts around a value of a user
local DEEPEST_IN = 200
local KNOWN = 4096 -- short texts kept encoded: PIDs, topics, keys
local SHORT = 64
local LARGEST_BUFFER = 4096
local NULL = {} -- nil where a table needs a value

local NIL, FALSE, TRUE = "\xc0", "\xc2", "\xc3"
local TYPED = "\xc1" -- msgpack never uses it
local MOST_PIECES, LARGEST_WHOLE = 1 << 22, 64 * 1024 * 1024 -- of a process that travels
local kinds = {} -- name -> the rule of a type (values.lua)
local text_heads, array_heads, map_heads = {}, {}, {}
for length = 0, 31 do
    text_heads[length] = char(0xa0 + length)
end
for length = 0, 15 do
    array_heads[length] = char(0x90 + length)
    map_heads[length] = char(0x80 + length)
end
local small = {}
for number = 0, 127 do
    small[number] = char(number)
end
for number = -32, -1 do
    small[number] = char(256 + number)
end

-- Encoding. The pieces of one item; ``failed`` when a value has no form.
local buffer, size, failed = {}, 0, false
local whole = false -- whether values keep their types: for a process that travels
local largest = math.maxinteger -- pieces an item may have
local texts, text_count = {}, 0

local function text_head(length)
    if length < 256 then
        return pack(">BB", 0xd9, length)
    elseif length < 65536 then
        return pack(">BI2", 0xda, length)
    end
    return pack(">BI4", 0xdb, length)
end

local function put_text(text)
    local length = #text
    if length > SHORT then
        buffer[size + 1] = text_head(length)
        buffer[size + 2] = text
        size = size + 2
        return
    end
    local encoded = (text_heads[length] or text_head(length)) .. text
    if text_count >= KNOWN then
        texts, text_count = {}, 0
    end
    texts[text] = encoded
    text_count = text_count + 1
    size = size + 1
    buffer[size] = encoded
end

local function number_text(number)
    if mtype(number) == "float" then
        return pack(">Bd", 0xcb, number)
    end
    local encoded = small[number]
    if encoded then
        return encoded
    elseif number < 0 or number > 0xffffffff then
        return pack(">Bi8", 0xd3, number)
    elseif number < 65536 then
        return pack(">BI2", 0xcd, number)
    end
    return pack(">BI4", 0xce, number)
end

local function head(heads, count, byte16, byte32)
    size = size + 1
    if count < 16 then
        buffer[size] = heads[count]
    elseif count < 65536 then
        buffer[size] = pack(">BI2", byte16, count)
    else
        buffer[size] = pack(">BI4", byte32, count)
    end
end

local put_table

local function put(value, depth)
    local known = texts[value]
    if known then
        size = size + 1
        buffer[size] = known
        return
    end
    local kind = type(value)
    if kind == "string" then
        put_text(value)
    elseif kind == "number" then
        size = size + 1
        buffer[size] = number_text(value)
    elseif kind == "table" then
        put_table(value, depth)
    elseif kind == "boolean" then
        size = size + 1
        buffer[size] = value and TRUE or FALSE
    else
        failed = true
    end
end

local function put_map(value, count, depth)
    head(map_heads, count, 0xde, 0xdf)
    for key, field in next, value do
        if type(key) == "table" then
            failed = true
        end
        if failed then
            return
        end
        put(key, depth)
        put(field, depth)
    end
end

-- As an array; false when it turns out to be none.
local function put_array(value, count, depth)
    local mark = size
    head(array_heads, count, 0xdc, 0xdd)
    for position = 1, count do
        local item = value[position]
        if item == nil then
            size = mark
            return false
        end
        put(item, depth)
        if failed then
            return true
        end
    end
    return true
end

local function put_special(value, rule, depth)
    if rule.unwrap then
        local inner = rule.unwrap(value)
        put(inner == nil and NULL or inner, depth)
    elseif whole and rule.name then
        size = size + 1
        buffer[size] = TYPED
        put(rule.name, depth)
        put(rule.pack(value), depth)
    elseif rule.plain then
        local thread = turns.current
        local pinned = thread and thread.pinned
        if thread then
            thread.pinned = true -- this is the code of a module: it must not give way in here
        end
        local ok, plain = rawpcall(rule.plain, value)
        if thread then
            thread.pinned = pinned
        end
        if ok then
            put(plain, depth)
        else
            failed = true
        end
    else
        failed = true
    end
end

-- The fields of a table with a metatable that is the user's: it is never asked.
local function bare(value)
    local fields = {}
    for key, field in next, value do
        rawset(fields, key, field)
    end
    return fields
end

function put_table(value, depth)
    if rawequal(value, NULL) then -- never asks a metamethod of the value
        size = size + 1
        buffer[size] = NIL
        return
    elseif depth > DEEPEST or size > largest then
        failed = true
        return
    end
    if rawmeta(value) then
        local rule = rule_for(value)
        if rule then
            return put_special(value, rule, depth + 1)
        end
        value = bare(value)
    end
    local count = 0
    for _ in next, value do
        count = count + 1
    end
    if rawlen(value) ~= count or not put_array(value, count, depth + 1) then
        put_map(value, count, depth + 1)
    end
end

local function begin()
    if size > LARGEST_BUFFER then
        buffer = {}
    end
    size, failed = 0, false
end

-- A list that knows its length ({n = ...}) and keeps its holes.
local function put_list(list)
    local length = list.n
    head(array_heads, length, 0xdc, 0xdd)
    for i = 1, length do
        local element = list[i]
        if element == nil then
            element = NULL
        end
        put(element, 1)
    end
end

-- A text and then a list, as they stand in an item, or nil when a value has no form.
local function encode_pair(text, list)
    begin()
    put(text, 1)
    put_list(list)
    return not failed and concat(buffer, "", 1, size) or nil
end

-- One item as text, or nil when a value in it has no form. ``item[list]`` is a list that knows
-- its length.
local function encode(item, count, list)
    begin()
    head(array_heads, count, 0xdc, 0xdd)
    for position = 1, count do
        local value = item[position]
        if position == list then
            put_list(value)
        elseif value == nil then
            size = size + 1
            buffer[size] = NIL
        else
            put(value, 1)
        end
        if failed then
            return nil
        end
    end
    return concat(buffer, "", 1, size)
end

-- A value with its types as text, for ``decode_whole`` of another kernel; or nil when it has no form or is too large.
local function encode_whole(value)
    begin()
    whole, largest = true, MOST_PIECES
    local ok = rawpcall(put, value, 1)
    whole, largest = false, math.maxinteger
    local length = 0
    for position = 1, size do
        length = length + #buffer[position]
    end
    return ok and not failed and length <= LARGEST_WHOLE and concat(buffer, "", 1, size) or nil
end

-- The envelope of one message: an array of eight, of which ``pair`` is the fifth and the sixth.
local function message(to, from, pair)
    begin()
    put(to, 1)
    put(from, 1)
    return "\x98\x01" .. concat(buffer, "", 1, size) .. "\x00" .. pair .. "\xa0\x00"
end

-- A message by name, with the number its sender gave it, or nil when a value in it has no form.
local function encode_named(to, from, topic, list, name, revision, number)
    begin()
    buffer[1], size = "\x99\x01", 1
    put(to, 1)
    put(from, 1)
    size = size + 1
    buffer[size] = "\x00"
    put(topic, 1)
    put_list(list)
    put(name, 1)
    put(revision, 1)
    put(number, 1)
    return not failed and concat(buffer, "", 1, size) or nil
end

-- Many encoded items as one text.
local function join(items, count)
    return pack(">BI4", 0xdd, count) .. concat(items, "", 1, count)
end

-- Decoding. Raises on what is no msgpack of plain data.
local source, at = "", 1
local lengths = setmetatable({}, { __mode = "k" }) -- array with holes -> its length
local decode

local function take(format, width)
    local value = unpack(format, source, at)
    at = at + width
    return value
end

local function take_text(length)
    local first = at
    at = at + length
    if at > #source + 1 then
        error("text is cut short", 0)
    end
    return sub(source, first, at - 1)
end

local function take_array(count, depth)
    local array = {}
    for position = 1, count do
        local item = decode(depth)
        if item == nil then
            lengths[array] = count
        else
            array[position] = item
        end
    end
    return array
end

local function take_map(count, depth)
    local map = {}
    for _ = 1, count do
        local key = decode(depth)
        local field = decode(depth)
        if type(key) == "table" or key == nil or key ~= key then
            error("a key that no table can have", 0)
        end
        map[key] = field
    end
    return map
end

local takers = {
    [0xc0] = function() return nil end,
    [0xc2] = function() return false end,
    [0xc3] = function() return true end,
    [0xc4] = function() return take_text(take(">B", 1)) end,
    [0xc5] = function() return take_text(take(">I2", 2)) end,
    [0xc6] = function() return take_text(take(">I4", 4)) end,
    [0xca] = function() return take(">f", 4) end,
    [0xcb] = function() return take(">d", 8) end,
    [0xcc] = function() return take(">B", 1) end,
    [0xcd] = function() return take(">I2", 2) end,
    [0xce] = function() return take(">I4", 4) end,
    [0xcf] = function()
        local number = take(">i8", 8)
        return number >= 0 and number or number + 2.0 ^ 64 -- beyond 63 bits: a float
    end,
    [0xd0] = function() return take(">b", 1) end,
    [0xd1] = function() return take(">i2", 2) end,
    [0xd2] = function() return take(">i4", 4) end,
    [0xd3] = function() return take(">i8", 8) end,
    [0xd9] = function() return take_text(take(">B", 1)) end,
    [0xda] = function() return take_text(take(">I2", 2)) end,
    [0xdb] = function() return take_text(take(">I4", 4)) end,
    [0xdc] = function(depth) return take_array(take(">I2", 2), depth) end,
    [0xdd] = function(depth) return take_array(take(">I4", 4), depth) end,
    [0xde] = function(depth) return take_map(take(">I2", 2), depth) end,
    [0xdf] = function(depth) return take_map(take(">I4", 4), depth) end,
}

takers[0xc1] = function(depth)
    local kind = kinds[decode(depth)]
    if not whole or not kind then
        error("a value of an unknown type", 0)
    end
    return kind.unpack(decode(depth))
end

function decode(depth)
    local first = byte(source, at)
    at = at + 1
    if first < 0x80 then
        return first
    elseif first >= 0xa0 and first < 0xc0 then
        return take_text(first - 0xa0)
    elseif first >= 0xe0 then
        return first - 256
    end
    if depth > DEEPEST_IN then
        error("nested too deeply", 0)
    elseif first < 0x90 then
        return take_map(first - 0x80, depth + 1)
    elseif first < 0xa0 then
        return take_array(first - 0x90, depth + 1)
    end
    local taker = takers[first]
    if not taker then
        error("a value that is no plain data", 0)
    end
    return taker(depth + 1)
end

local function decode_text(text)
    source, at = text, 1
    return decode(1)
end

-- The value that begins at ``position`` of the text, and where the next one does.
local function decode_next(text, position)
    source, at = text, position
    local value = decode(1)
    return value, at
end

-- Raises on what is none of ``encode_whole``.
local function decode_whole(text)
    whole = true
    local ok, value = rawpcall(decode_text, text)
    whole = false
    if not ok then
        error(value, 0)
    end
    return value
end

-- The rule of a type whose values keep it where a process travels, as what ``pack`` makes of them.
local function register(name, rule, pack_value, unpack_value)
    rule.name, rule.pack, rule.unpack = name, pack_value, unpack_value
    kinds[name] = rule
    return rule
end

-- The same for values that are their fields and nothing else.
local function typed(name, meta, rule)
    return register(name, rule, bare, function(fields)
        return setmetatable(fields, meta)
    end)
end
typed("error", K.errors.meta, values.special[K.errors.meta])

-- The length of a decoded array, holes included.
local function length_of(array)
    return lengths[array] or #array
end

K.null = NULL
K.codec = {
    encode = encode,
    encode_pair = encode_pair,
    message = message,
    encode_named = encode_named,
    join = join,
    decode = decode_text,
    decode_next = decode_next,
    length_of = length_of,
    encode_whole = encode_whole,
    decode_whole = decode_whole,
    register = register,
    typed = typed,
}
