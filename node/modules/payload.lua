-- Module payload: values with a format, as messages and calls carry them.
local K = ...
local kernel, mailbox, values = K.errors, K.mailbox, K.values
local rawmeta = K.rawmeta
local payload = {
    format = {
        JSON = "json/plain",
        YAML = "yaml/plain",
        STRING = "text/plain",
        BYTES = "application/octet-stream",
        MSGPACK = "application/msgpack",
        LUA = "lua/any",
        GOLANG = "golang/any",
        ERROR = "golang/error",
    },
}
local VALUE, FORMAT = 1, 2 -- in a payload
local ARRIVED, COUNT = mailbox.ARRIVED, mailbox.COUNT -- in a message; the count only where it is not one
local payload_meta, message_meta = mailbox.payload_meta, mailbox.message_meta
local methods = {}

local function check_self(value, name)
    local meta = rawmeta(value)
    if meta ~= payload_meta and meta ~= message_meta then
        error("expected a payload: call it as payload:" .. name .. "()", 3)
    end
end

-- The format of a payload that has one of its own; a message has other things there.
local function own_format(value)
    return rawmeta(value) == payload_meta and value[FORMAT] or nil
end

function payload.new(value)
    local copied, problem = values.copy(value)
    if problem then
        error("bad argument #1 to 'new' (" .. problem .. ")", 2)
    end
    return mailbox.new_payload(copied)
end

function methods.get_format(self)
    check_self(self, "get_format")
    return own_format(self) or kernel.is_error(self[VALUE]) and payload.format.ERROR or payload.format.LUA
end

-- One result, not ``value, nil``: programs pass it on as the last argument of another call.
function methods.data(self)
    check_self(self, "data")
    return self[VALUE]
end

local function internal(message)
    return nil, kernel.new("Internal", message, false)
end

local function json()
    return K.sandbox.module_for(K.turns.current.process, "json")
end

local function with_format(value, format)
    local made = mailbox.new_payload(value)
    made[FORMAT] = format
    return made
end

-- From a Lua value to text in ``format``.
local function encode(value, format)
    if format == payload.format.JSON then
        local text, err = json().encode(value)
        if err then
            return nil, err
        end
        return with_format(text, format)
    elseif format == payload.format.STRING or format == payload.format.BYTES then
        if type(value) ~= "string" and type(value) ~= "number" then
            return internal("a " .. type(value) .. " can't be transcoded to " .. format)
        end
        return with_format(tostring(value), format)
    end
    return internal("transcoding to " .. tostring(format) .. " is not in this version")
end

function methods.unmarshal(self)
    check_self(self, "unmarshal")
    if own_format(self) == payload.format.JSON then
        return json().decode(self[VALUE])
    end
    return self[VALUE], nil
end

function methods.transcode(self, format)
    check_self(self, "transcode")
    if format == self:get_format() then
        return self
    end
    local value, err = self:unmarshal()
    if err then
        return nil, err
    elseif format == payload.format.LUA then
        return mailbox.new_payload(value)
    end
    return encode(value, format)
end

for name, method in pairs(methods) do
    mailbox.payload_methods[name] = method
    mailbox.message_methods[name] = method
end

-- The way of nearly every message. Whatever only looks like one shows what it has itself.
function mailbox.message_methods.data(self)
    if self and self[ARRIVED] and not self[COUNT] then
        return self[VALUE]
    end
    return methods.data(self)
end

return payload
