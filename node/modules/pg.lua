-- Module pg: process groups. A scope is opened by its entry; all else are methods of what that gives.
local K = ...
local turns = K.turns

return function(env)
    local call, channel, stream, errors = env.call, env.channel, env.stream, env.errors
    local error, setmetatable, type = error, setmetatable, type
    local pg = {}

    local function invalid(message)
        return nil, errors.new({ message = message, kind = errors.INVALID, retryable = false })
    end

    local function check_text(value, position, name)
        if value ~= nil and type(value) ~= "string" then
            error("bad argument #" .. position .. " to '" .. name .. "' (string expected, got " .. type(value) .. ")", 3)
        end
    end

    local Subscription = {}
    Subscription.__index = Subscription
    Subscription.__metatable = false

    function Subscription:channel()
        return self._channel
    end

    -- With {flush = true} what waits in the channel can still be received.
    function Subscription:close(options)
        if self._closed then
            return true
        end
        self._closed = true
        self._group._open[self] = nil
        call("pg", "close", self._stream)
        if type(options) ~= "table" or not options.flush then
            repeat
                local r = channel.select({ self._channel:case_receive(), default = true })
            until r.default or not r.ok
        end
        return true
    end

    local Group = {}
    Group.__index = Group
    Group.__metatable = false

    function pg.open(id)
        check_text(id, 1, "open")
        if id == nil or id == "" then
            return invalid("scope id is empty; expected ns:name of a pg.scope")
        end
        local _, err = call("pg", "open", id)
        if err then
            return nil, err
        end
        return setmetatable({ _id = id, _released = false, _open = {} }, Group)
    end

    local function released(self)
        return invalid("the instance of " .. self._id .. " was released; open the scope again")
    end

    local function run(self, fn, ...)
        if self._released then
            return released(self)
        end
        return call("pg", fn, self._id, ...)
    end

    local function flag(value, err)
        if err then
            return false, err
        end
        return value
    end

    -- To whomever the group has as members: what the process sent by name before must not come to them later.
    local function spread(self, ...)
        local order = turns.current.process.order
        if order then
            K.sendorder.note_all(order)
        end
        return flag(run(self, ...))
    end

    local function check_groups(groups, name)
        if groups ~= nil and type(groups) ~= "string" and type(groups) ~= "table" then
            error("bad argument #1 to '" .. name .. "' (string or table expected, got " .. type(groups) .. ")", 3)
        end
    end

    function Group:join(groups)
        check_groups(groups, "join")
        turns.current.process.named = true -- the node is told of its end, and takes it out of its groups
        return flag(run(self, "join", groups))
    end

    function Group:leave(groups)
        check_groups(groups, "leave")
        return flag(run(self, "leave", groups))
    end

    function Group:get_members(group)
        check_text(group, 1, "get_members")
        return run(self, "get_members", group)
    end

    function Group:get_local_members(group)
        check_text(group, 1, "get_local_members")
        return run(self, "get_local_members", group)
    end

    function Group:which_groups()
        return run(self, "which_groups")
    end

    function Group:which_local_groups()
        return run(self, "which_local_groups")
    end

    function Group:broadcast(group, topic, ...)
        check_text(group, 1, "broadcast")
        check_text(topic, 2, "broadcast")
        return spread(self, "broadcast", group, topic, ...)
    end

    function Group:broadcast_local(group, topic, ...)
        check_text(group, 1, "broadcast_local")
        check_text(topic, 2, "broadcast_local")
        return spread(self, "broadcast_local", group, topic, ...)
    end

    -- A subscription, and who was a member when it began.
    local function watch(self, fn, group)
        if self._released then
            local _, err = released(self)
            return nil, nil, err
        end
        local fed, number, members = stream("pg", fn, self._id, group)
        if not fed then
            return nil, nil, number
        end
        local subscription = setmetatable({ _channel = fed, _stream = number, _group = self, _closed = false }, Subscription)
        self._open[subscription] = true
        return subscription, members
    end

    function Group:monitor(group)
        check_text(group, 1, "monitor")
        return watch(self, "monitor", group)
    end

    function Group:events()
        return watch(self, "events")
    end

    function Group:release()
        if not self._released then
            for subscription in next, self._open do
                subscription:close()
            end
            self._released = true
        end
        return true
    end

    return pg
end
