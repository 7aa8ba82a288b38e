-- The prompt: the loop of a console's process.
--
-- Lines come through a stream that only the node feeds; a message can't be one. A line runs in a thread of its own,
-- one at a time, in the environment of the process, which is what stays from line to line. Between lines the inbox
-- and the events are shown as they arrive. Messages that were shown are put back before a line runs, so that it can
-- receive them like any program; those it leaves are not shown twice.
local K = ...
local mailbox, turns = K.mailbox, K.turns

local MODULE = "node.console"
local MOST_SHOWN = 1000 -- messages that are held between lines; more wait in the mailbox

return function(env)
    local cast = env.cast
    local module_for = K.sandbox.module_for
    local console = {}

    local function say(kind, text)
        cast(MODULE, "say", kind, text)
    end

    -- The state of one prompt: its channels, what runs, the messages it holds.
    local function open_prompt(environment)
        local lines, problem = env.stream(MODULE, "attach")
        if not lines then
            return nil, problem
        end
        local process = turns.current.process
        process.trap_links = true -- what is linked at the prompt must not end it
        local inbox = mailbox.inbox(process)
        return {
            process = process,
            environment = environment,
            lines = lines,
            inbox = inbox,
            inbox_state = K.rawmeta(inbox),
            events = mailbox.events(process),
            finished = env.channel.new(1),
            held = {},
            known = setmetatable({}, { __mode = "k" }),
            running = nil,
        }
    end

    local function put_back_held(prompt)
        local held = prompt.held
        prompt.held = {}
        for i = #held, 1, -1 do
            mailbox.put_back(prompt.inbox_state, held[i])
        end
    end

    local function hold(prompt, message, shown)
        prompt.held[#prompt.held + 1] = message
        if not prompt.known[message] then
            prompt.known[message] = true
            say("message", shown.message(message))
            if #prompt.held == MOST_SHOWN then
                say("note", MOST_SHOWN .. " messages wait; flush() takes them, and more are shown then")
            end
        end
    end

    function console.run(environment)
        local prompt, problem = open_prompt(environment)
        if not prompt then
            return nil, problem
        end
        local shown = module_for(prompt.process, MODULE .. ".shown")
        local running = module_for(prompt.process, MODULE .. ".running")
        local helpers = module_for(prompt.process, MODULE .. ".helpers")
        helpers.install(prompt, say)

        local ops = {}

        function ops.line(order)
            local open, wrong = K.code.open_of(order.text, "=prompt")
            if not open then
                say("error", "Syntax: " .. wrong)
                cast(MODULE, "done", false)
                return
            end
            put_back_held(prompt)
            prompt.running = running.start(prompt, open, order.n, say)
        end

        function ops.stop(order)
            local run = prompt.running
            if run and run.number == order.n then
                running.stop(prompt, run)
                prompt.running = nil
                say("error", "Canceled: the line was stopped")
                cast(MODULE, "done", false)
            end
        end

        function ops.complete(order)
            cast(MODULE, "completed", order.n, helpers.complete(prompt, order.text))
        end

        while true do
            local cases = { prompt.lines }
            if prompt.running then
                cases[2] = prompt.finished
            else
                cases[2] = prompt.events
                cases[3] = #prompt.held < MOST_SHOWN and prompt.inbox or nil
            end
            local got = env.channel.select(cases)
            if got.channel == prompt.lines then
                if not got.ok then
                    return "its session ended"
                end
                ops[got.value.op](got.value)
            elseif got.channel == prompt.finished then
                if prompt.running and got.value.number == prompt.running.number then
                    prompt.running = nil
                    cast(MODULE, "done", got.value.ok)
                end
            elseif got.channel == prompt.inbox then
                hold(prompt, got.value, shown)
            elseif got.value.kind == "pid.cancel" then
                return "it was asked to end: " .. tostring(got.value.reason or "no reason given")
            else
                say("event", shown.event(got.value))
            end
        end
    end

    return console
end
