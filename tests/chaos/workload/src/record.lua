local json = require("json")

--- Records of a history. They leave the process before anything it does afterwards.
local record = {}
local last = 0

local function write(fields)
    print("@" .. json.encode(fields))
end

--- An operation begins; returns its number.
function record.invoke(f, fields)
    last = last + 1
    fields = fields or {}
    fields.f, fields.op = f, last
    write(fields)
    return last
end

--- It has ended: with ``err``, or not.
function record.complete(op, err, fields)
    fields = fields or {}
    fields.done = op
    if err then
        fields.kind, fields.error, fields.details = err:kind(), err:message(), err:details()
    end
    write(fields)
end

--- Something happened to this process.
function record.told(f, fields)
    fields = fields or {}
    fields.f = f
    write(fields)
end

return record
