-- Running one line: in a thread of its own, which can be stopped wherever it is.
--
-- To stop a thread is to let it never go on: its coroutine is replaced by one that does nothing. Whoever was to wake
-- it (a timer, a channel, an answer) may still do so; a message that it gets that way goes back into the inbox.
local K = ...
local channels, code, errors, guards, mailbox, turns =
    K.channels, K.code, K.errors, K.guards, K.mailbox, K.turns

local MODULE = "node.console"

return function(env)
    local shown = K.sandbox.module_for(turns.current.process, MODULE .. ".shown")
    local running = {}

    local function is_message(value)
        return type(value) == "table" and K.rawmeta(value) == mailbox.message_meta
    end

    -- A stopped thread was handed something.
    local function give_back(prompt, value)
        if type(value) == "table" and K.rawmeta(value) == nil and is_message(rawget(value, "value")) then
            value = value.value -- of a select
        end
        if not is_message(value) then
            return
        elseif prompt.inbox_state.receiver then
            channels.push(prompt.inbox_state, value)
        else
            mailbox.put_back(prompt.inbox_state, value)
        end
    end

    -- Where an error was raised, and by whom it was called.
    local function traced(raised)
        local err = errors.is_error(raised) and raised or errors.from_raised(raised)
        local frames = errors.frames_of(3)
        return { err = err, raised = raised, frames = frames }
    end

    local function keep_values(prompt, results)
        local environment = prompt.environment
        if results.n > 0 then
            environment._ = results[1]
        end
    end

    function running.start(prompt, open, number, say)
        local run = { number = number }

        local function work()
            local results = table.pack(open(prompt.environment, K.types.declare))
            keep_values(prompt, results)
            if results.n > 0 then
                say("value", shown.values(results))
            end
        end

        local function body()
            local ok, failure = guards.xpcall(work, traced)
            if not ok then
                say("error", shown.failure(failure))
            end
            prompt.finished:send({ number = number, ok = ok })
            return turns.ENDED
        end

        run.thread = turns.new_thread(prompt.process, body)
        return run
    end

    -- Whether a thread was woken and has not gone on yet.
    local function is_ready(process, thread)
        local one = process.first
        while one and one ~= thread do
            one = one.next
        end
        return one == thread
    end

    function running.stop(prompt, run)
        local thread, state = run.thread, prompt.inbox_state
        if is_ready(prompt.process, thread) then -- with what it waited for, maybe
            give_back(prompt, thread.a)
            thread.a = nil
        end
        thread.co = coroutine.create(function(value)
            while true do
                give_back(prompt, value)
                value = turns.park()
            end
        end)
        thread.depth, thread.pinned = 0, false
        local receiver = state.receiver -- a thread, or a select of one
        if receiver and (receiver == thread or receiver.thread == thread) and not state.receivers then
            state.receiver = false -- else what it is handed would come back behind what arrived after it
        end
    end

    return running
end
