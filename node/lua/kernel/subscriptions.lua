-- Subscriptions: the globals ``subscribe`` and ``unsubscribe``.
--
-- ``subscribe(topic)`` is the channel of a topic, as process.listen gives it. With a channel of the
-- program, what arrives on the topic is handed on to that one, as fast as it takes it: several
-- topics can share a channel, and its size is the buffer. What it did not take stays in the mailbox.
local K = ...
local channels, errors, mailbox, turns = K.channels, K.errors, K.mailbox, K.turns
local rawmeta, rawpcall = debug.getmetatable, pcall
local error, next, type = error, next, type

local methods = channels.methods

-- The state of a channel that a program made; its own reads and writes go on as before.
local function state_of(channel, position, name)
    local state = type(channel) == "table" and rawmeta(channel)
    if not state or state.__index ~= methods then
        error("bad argument #" .. position .. " to '" .. name .. "' (channel expected, got " .. type(channel) .. ")", 3)
    end
    return state
end

-- Hand on from ``feed`` to ``channel`` until one of them is closed.
local function hand_on(feed, channel)
    return function()
        local value, open = methods.receive(feed)
        while open and rawpcall(methods.send, channel, value) do
            value, open = methods.receive(feed)
        end
        methods.close(feed)
        return turns.ENDED
    end
end

local function check_topic(topic)
    if type(topic) ~= "string" then
        error("bad argument #1 to 'subscribe' (string expected, got " .. type(topic) .. ")", 3)
    elseif topic == "" or topic:sub(1, 1) == "@" then
        return errors.new("Invalid", "topic '" .. topic .. "': expected a name that doesn't begin with '@'", false)
    end
    return nil
end

-- Returns the channel, or nil and an error object.
local function subscribe(topic, channel)
    local err = check_topic(topic)
    if err then
        return nil, err
    end
    local process = turns.current.process
    if channel == nil then
        return mailbox.listen(process, topic, false)
    end
    local state = state_of(channel, 2, "subscribe")
    local listeners = process.listeners
    if state.fed then
        return nil, errors.new("Invalid", "a channel of the runtime can't be given another topic", false)
    elseif state.closed then
        return nil, errors.new("Invalid", "the channel is closed", false)
    elseif listeners and listeners[topic] then
        return nil, errors.new("AlreadyExists", "topic '" .. topic .. "' has a channel already", false)
    end
    local feed = mailbox.listen(process, topic, false)
    local feeds = state.feeds or {}
    state.feeds = feeds
    feeds[#feeds + 1] = feed
    turns.new_thread(process, hand_on(feed, channel))
    return channel
end

-- End the subscriptions behind ``channel`` and close it. Returns true, or false and an error object.
local function unsubscribe(channel)
    local state = state_of(channel, 1, "unsubscribe")
    if mailbox.unlisten(channel) then
        return true
    elseif not state.feeds then
        return false, errors.new("NotFound", "the channel has no subscription", false)
    end
    for _, feed in next, state.feeds do
        methods.close(feed)
    end
    state.feeds = nil
    methods.close(channel)
    return true
end

K.subscriptions = { subscribe = subscribe, unsubscribe = unsubscribe }
