-- Changes the registry as a program does; says what came of it, with the kind of a refusal.
local registry = require("registry")

local function done(version, err)
    if err then
        return { kind = err:kind(), message = tostring(err), details = err:details() }
    end
    return { version = version:id() }
end

local function main(what, ...)
    if what == "back" then
        local ok, err = registry.apply_version((...))
        return ok and { version = registry.current_version():id() } or done(nil, err)
    end
    local changes = registry.snapshot():changes()
    for _, entry in ipairs({ ... }) do
        changes[what](changes, entry)
    end
    return done(changes:apply())
end

return { main = main }
