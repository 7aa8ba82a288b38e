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

-- Whether the channel of the program has not taken yet what ``feed`` holds.
local function is_sending(feed)
    local state, thread = feed.into, feed.thread
    local others = state.senders or { first = 1, last = 0 }
    local found = state.sender and state.sender.parked == thread
    for i = others.first, others.last do
        found = found or others[i].parked == thread
    end
    return found
end
mailbox.set_is_sending(is_sending)

-- End the subscription. ``held`` is a message the channel did not take: it is in the mailbox again, in its place.
local function stop(feed, held)
    local state = rawmeta(feed.channel)
    if held and not state.closed then
        mailbox.put_back(state, held)
    end
    methods.close(feed.channel)
end

-- Send a message on; raises when the channel is closed. A thread that waits for it wakes as one that waits for mail.
local function send_on(feed, channel, message)
    local state = feed.into
    if state.receiver then
        channels.hand_over(state, mailbox.raw(message), message)
    else
        methods.send(channel, mailbox.raw(message))
    end
end

-- Hand on from ``feed`` to ``channel`` until one of them is closed; ``feed.held`` is the last message.
local function hand_on(feed, channel)
    return function()
        local message, open = methods.receive(feed.channel)
        while open do
            feed.held = message
            if not rawpcall(send_on, feed, channel, message) then
                stop(feed, message)
                break
            end
            message, open = methods.receive(feed.channel)
        end
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
    local fed
    fed, err = mailbox.listen(process, topic, true)
    if not fed then
        return nil, err
    end
    local feed = { channel = fed, into = state, held = nil }
    rawmeta(fed).feed = feed
    local feeds = state.feeds or {}
    state.feeds = feeds
    feeds[#feeds + 1] = feed
    feed.thread = turns.new_thread(process, hand_on(feed, channel))
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
        stop(feed, is_sending(feed) and feed.held)
    end
    state.feeds = nil
    methods.close(channel)
    return true
end

K.subscriptions = { subscribe = subscribe, unsubscribe = unsubscribe }
