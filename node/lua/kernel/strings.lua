-- Strings: the string library as processes see it, bounded in time and size.
--
-- Patterns have files of their own (patterns.lua). Here is what scans or makes long texts: what
-- a call may make is at most LARGEST bytes, what it may need is charged to the process, and
-- descriptions (of formats and of packed values) are short.
local K = ...
local arguments, turns = K.arguments, K.turns
local charge_bytes, check_size, checked = arguments.charge_bytes, arguments.check_size, arguments.checked
local clock, dbgsetmeta = os.clock, debug.setmetatable
local error, pairs, select, tonumber, tostring, type = error, pairs, select, tonumber, tostring, type
local find, format, gmatch = string.find, string.format, string.gmatch
local concat, floor = table.concat, math.floor

local LONG = 4096 -- bytes from which work is charged
local PIECE = 1024 * 1024 -- bytes gone over without a chance for others
local LONGEST_DESCRIPTION = 65536
local SLICE = 0.0005 -- seconds

local strings = {}
for name, value in pairs(string) do
    strings[name] = value
end
strings.dump = nil

-- Whoever has run for a while lets others run.
local function breathe()
    if clock() - turns.slice_began > SLICE then
        turns.point()
    end
end

for name, guarded in pairs(K.parts.patterns({ charge = breathe, size = arguments.LARGEST })) do
    strings[name] = guarded
end

-- upper, lower and reverse: piece by piece; a reversed text begins with its last piece.
local function by_pieces(name)
    local original, sub = string[name], string.sub
    return function(text)
        if type(text) ~= "string" then
            return checked(original, text)
        elseif #text <= LONG then
            return original(text)
        end
        charge_bytes(#text)
        if #text <= PIECE then
            return original(text)
        end
        local pieces, count = {}, 0
        for from = 1, #text, PIECE do
            count = count + 1
            pieces[count] = original(sub(text, from, from + PIECE - 1))
            breathe()
        end
        if name == "reverse" then
            for i = 1, count // 2 do
                pieces[i], pieces[count + 1 - i] = pieces[count + 1 - i], pieces[i]
            end
        end
        return concat(pieces)
    end
end

strings.upper, strings.lower, strings.reverse = by_pieces("upper"), by_pieces("lower"), by_pieces("reverse")

local rep = string.rep

-- Built from blocks: Lua's own loop copies piece by piece, a million times for a million bytes.
local function repeated(text, count, separator)
    if count <= 1024 then
        return rep(text, count, separator)
    end
    local unit = text .. separator
    local left = (count - 1) % 512
    return rep(rep(unit, 512), (count - 1 - left) // 512) .. rep(unit, left) .. text
end

function strings.rep(text, count, separator)
    local times = tonumber(count)
    separator = type(separator) == "number" and tostring(separator) or separator
    text = type(text) == "number" and tostring(text) or text
    if type(text) ~= "string" or not times or type(separator or "") ~= "string" or times ~= floor(times) or times < 2 then
        return checked(rep, text, count, separator)
    end
    separator = separator or ""
    local size = (#text + #separator) * (times + 0.0) - #separator
    check_size(size, "rep")
    if size == 0 then
        return ""
    end
    if size > LONG then
        charge_bytes(size)
    end
    return repeated(text, times // 1 | 0, separator)
end

local function length_of(value)
    return type(value) == "string" and #value or 0
end

-- Bytes of the texts among the arguments.
local function sizes_of(...)
    local count = select("#", ...)
    if count <= 4 then
        local a, b, c, d = ...
        return length_of(a) + length_of(b) + length_of(c) + length_of(d)
    end
    local values, size = { ... }, 0
    for i = 1, count do
        size = size + length_of(values[i])
    end
    return size
end

local function check_description(text, name)
    if type(text) ~= "string" then
        return
    elseif #text > LONGEST_DESCRIPTION then
        local problem = "the format of '%s' has %d bytes, the limit is %d"
        error(format(problem, name, #text, LONGEST_DESCRIPTION), 3)
    end
end

function strings.format(template, ...)
    check_description(template, "format")
    local size = sizes_of(...)
    if size > LONG then
        check_size(size, "format")
        charge_bytes(size)
    end
    return checked(format, template, ...)
end

-- Bytes that a description pads its texts to.
local function padded(description)
    local size = 0
    for count in gmatch(description, "c(%d+)") do
        size = size + tonumber(count)
    end
    return size
end

local pack = string.pack
function strings.pack(description, ...)
    check_description(description, "pack")
    local size = sizes_of(...)
    if type(description) == "string" and find(description, "c", 1, true) then
        size = size + padded(description)
    end
    if size > LONG then
        check_size(size, "pack")
        charge_bytes(size)
    end
    return checked(pack, description, ...)
end

local unpack = string.unpack
function strings.unpack(description, text, at)
    check_description(description, "unpack")
    if length_of(text) > LONG then
        charge_bytes(#text)
    end
    return checked(unpack, description, text, at)
end

local packsize = string.packsize
function strings.packsize(description)
    check_description(description, "packsize")
    return checked(packsize, description)
end

-- Methods of strings are these, for everybody, and nobody can change them.
local function lock()
    local methods = {}
    for name, value in pairs(strings) do
        methods[name] = value
    end
    dbgsetmeta("", { __index = methods, __metatable = false })
end

K.strings = { library = strings, lock = lock }
