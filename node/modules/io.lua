-- Module io: the terminal. Writes go out without waiting; every 64 KiB the writer waits for the terminal.

local FLUSH_EVERY = 65536

return function(env)
    local call, cast, errors = env.call, env.cast, env.errors
    local concat, select, tostring, type = table.concat, select, tostring, type
    local io = {}
    local opened = false
    local unflushed = 0

    local function check_open(name)
        if opened then
            return true
        end
        local ok, err = call("io", "open", name)
        opened = ok == true
        return ok, err
    end

    local function put(fn, text)
        local ok, err = check_open(fn)
        if not ok then
            return nil, err
        end
        cast("io", fn, text)
        unflushed = unflushed + #text
        if unflushed >= FLUSH_EVERY then
            unflushed = 0
            return call("io", "flush")
        end
        return true
    end

    local function join(separator, ...)
        local count = select("#", ...)
        if count == 1 then
            return tostring((...))
        end
        local parts = { ... }
        for i = 1, count do
            parts[i] = tostring(parts[i])
        end
        return concat(parts, separator, 1, count)
    end

    function io.write(...)
        return put("write", join("", ...))
    end

    function io.print(...)
        return put("write", join("\t", ...) .. "\n")
    end

    function io.eprint(...)
        return put("eprint", join("\t", ...) .. "\n")
    end

    function io.flush()
        return call("io", "flush")
    end

    function io.read(count)
        if count ~= nil and type(count) ~= "number" then
            error("bad argument #1 to 'read' (number expected, got " .. type(count) .. ")", 2)
        end
        return call("io", "read", count)
    end

    -- At the end of input: nil and no error.
    function io.readline()
        return call("io", "readline")
    end

    function io.raw(enable)
        return call("io", "raw", enable ~= false)
    end

    function io.args()
        local args, err = call("io", "args")
        if err then
            return {}, err
        end
        return args
    end

    return io
end
