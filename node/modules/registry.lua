-- Module registry: entries, snapshots, changesets and versions of the cluster's registry.

return function(env)
    local call, errors = env.call, env.errors
    local error, ipairs, setmetatable, type = error, ipairs, setmetatable, type
    local registry = {}
    local Snapshot, Changes, Version, History = {}, {}, {}, {}
    for _, class in ipairs({ Snapshot, Changes, Version, History }) do
        class.__index = class
        class.__metatable = false
    end

    local function bad_argument(position, name, expected, value)
        error("bad argument #" .. position .. " to '" .. name .. "' (" .. expected .. " expected, got " .. type(value) .. ")", 3)
    end

    local function invalid(message)
        return errors.new({ message = message, kind = errors.INVALID, retryable = false })
    end

    local function new_version(number)
        return setmetatable({ _number = number }, Version)
    end

    local function new_snapshot(number)
        return setmetatable({ _version = number }, Snapshot)
    end

    local function to_versions(numbers)
        local versions = {}
        for position, number in ipairs(numbers) do
            versions[position] = new_version(number)
        end
        return versions
    end

    -- "ns:name" of a string, {ns, name} or a whole entry; nil for anything else.
    local function id_of(value)
        if type(value) == "string" then
            return value
        end
        if type(value) ~= "table" then
            return nil
        end
        if value.id ~= nil then
            return id_of(value.id)
        end
        if type(value.name) == "string" then
            return (value.ns or "") .. ":" .. value.name
        end
        return nil
    end

    -- The number of a Version, or a number itself.
    local function number_of(value)
        if type(value) == "number" then
            return value
        end
        return type(value) == "table" and value._number or nil
    end

    local function get(id, version, name)
        local text = id_of(id)
        if not text then
            bad_argument(1, name, "string or {ns, name}", id)
        end
        if text == "" then
            return nil, invalid("entry id is empty; expected ns:name")
        end
        return call("registry", "get", text, version)
    end

    local function find(filter, version, name)
        if filter ~= nil and type(filter) ~= "table" then
            bad_argument(1, name, "table", filter)
        end
        return call("registry", "find", filter or {}, version)
    end

    function registry.get(id)
        return get(id, nil, "get")
    end

    function registry.find(filter)
        return find(filter, nil, "find")
    end

    function registry.parse_id(id)
        if type(id) ~= "string" then
            bad_argument(1, "parse_id", "string", id)
        end
        local ns, name = id:match("^([^:]*):(.*)$")
        if not ns then
            return { ns = "", name = id }
        end
        return { ns = ns, name = name }
    end

    function registry.snapshot()
        local number, err = call("registry", "snapshot")
        if err then
            return nil, err
        end
        return new_snapshot(number)
    end

    function registry.snapshot_at(version)
        local wanted = number_of(version)
        if not wanted then
            bad_argument(1, "snapshot_at", "number or Version", version)
        end
        local number, err = call("registry", "snapshot_at", wanted)
        if err then
            return nil, err
        end
        return new_snapshot(number)
    end

    function registry.current_version()
        local number, err = call("registry", "current_version")
        if err then
            return nil, err
        end
        return new_version(number)
    end

    function registry.versions()
        local numbers, err = call("registry", "versions")
        if err then
            return nil, err
        end
        return to_versions(numbers)
    end

    function registry.history()
        return setmetatable({}, History)
    end

    function registry.apply_version(version)
        local number = number_of(version)
        if not number then
            bad_argument(1, "apply_version", "Version or number", version)
        end
        local _, err = call("registry", "apply_version", number)
        if err then
            return false, err
        end
        return true
    end

    function registry.build_delta(from, to)
        if type(from) ~= "table" then
            bad_argument(1, "build_delta", "table", from)
        end
        if type(to) ~= "table" then
            bad_argument(2, "build_delta", "table", to)
        end
        return call("registry", "build_delta", from, to)
    end

    function Snapshot:get(id)
        return get(id, self._version, "get")
    end

    function Snapshot:find(filter)
        return find(filter, self._version, "find")
    end

    function Snapshot:entries()
        return call("registry", "find", {}, self._version)
    end

    function Snapshot:namespace(ns)
        if type(ns) ~= "string" then
            bad_argument(1, "namespace", "string", ns)
        end
        return call("registry", "find", { [".ns"] = ns }, self._version)
    end

    function Snapshot:version()
        return new_version(self._version)
    end

    function Snapshot:changes()
        return setmetatable({ _base = self._version, _ops = {} }, Changes)
    end

    local function add(changes, kind, entry)
        changes._ops[#changes._ops + 1] = { kind = kind, entry = entry }
        return changes
    end

    local function entry_of(value, name)
        if type(value) ~= "table" then
            bad_argument(1, name, "table", value)
        end
        return { id = id_of(value), kind = value.kind, meta = value.meta, data = value.data }
    end

    function Changes:create(entry)
        return add(self, "entry.create", entry_of(entry, "create"))
    end

    function Changes:update(entry)
        return add(self, "entry.update", entry_of(entry, "update"))
    end

    function Changes:delete(id)
        local text = id_of(id)
        if not text then
            bad_argument(1, "delete", "string or {ns, name}", id)
        end
        return add(self, "entry.delete", { id = text })
    end

    function Changes:ops()
        local copy = {}
        for position, op in ipairs(self._ops) do
            copy[position] = op
        end
        return copy
    end

    -- Whole or not at all; this node has the new version when it returns.
    function Changes:apply()
        if #self._ops == 0 then
            return nil, invalid("no changes to apply")
        end
        local number, err = call("registry", "apply", self._ops, self._base)
        if err then
            return nil, err
        end
        self._ops = {}
        self._base = number
        return new_version(number)
    end

    function Version:id()
        return self._number
    end

    function Version:string()
        return "v" .. self._number
    end

    Version.__tostring = Version.string

    function Version.__eq(left, right)
        return left._number == right._number
    end

    local function version_at(number)
        local found, err = call("registry", "get_version", number)
        if not found then
            return nil, err
        end
        return new_version(found)
    end

    function Version:previous()
        if self._number == 0 then
            return nil
        end
        return (version_at(self._number - 1))
    end

    function Version:next()
        return (version_at(self._number + 1))
    end

    function History:versions()
        return registry.versions()
    end

    function History:get_version(number)
        if type(number) ~= "number" then
            bad_argument(1, "get_version", "number", number)
        end
        return version_at(number)
    end

    function History:snapshot_at(version)
        return registry.snapshot_at(version)
    end

    return registry
end
