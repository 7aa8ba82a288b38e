local time = require("time")

local SLICES = 10

--- Sends each of the processes the next number every `every` milliseconds, a tenth of them at a time, and takes the
--- answers. What it notes of each: how long an answer was waited for at most, and answers that are not the next ones.
---
---   begin    the waits are noted anew
---   stop     sends nothing more and, when all is answered or after 20 seconds, tells {sent, missing, wrong, waits}
local function main(pids: {string}, every: integer)
    local inbox, answers = process.inbox(), process.listen("n", { message = true })
    local sent, answered, waits = {}, {}, {}
    local asked_at = {} -- PID -> number -> when it was sent
    local total, missing, wrong, refused = 0, 0, 0, 0
    local stopping, late = nil, nil
    for _, pid in ipairs(pids) do
        sent[pid], answered[pid], waits[pid], asked_at[pid] = 0, 0, 0, {}
    end
    local beat = time.ticker(every * 1000000 // SLICES):channel()
    local slice = 0

    local function talk()
        slice = slice % SLICES + 1
        local now = time.now():unix_nano()
        for i = slice, #pids, SLICES do
            local pid = pids[i]
            local number = sent[pid] + 1
            if process.send(pid, "n", number) then
                sent[pid], asked_at[pid][number] = number, now
                total, missing = total + 1, missing + 1
            else
                refused = refused + 1
            end
        end
    end

    local function take(message)
        local pid, number = message:from(), message:payload():data()
        local asked = asked_at[pid][number]
        if number ~= answered[pid] + 1 then
            wrong = wrong + 1
        end
        answered[pid] = number
        if asked then
            waits[pid] = math.max(waits[pid], (time.now():unix_nano() - asked) // 1000)
            asked_at[pid][number] = nil
            missing = missing - 1
        end
    end

    local function told()
        local list = {}
        for i, pid in ipairs(pids) do
            list[i] = waits[pid]
        end
        return { sent = total, missing = missing, wrong = wrong, refused = refused, waits = list }
    end

    while not (stopping and missing == 0) do
        local cases = { answers:case_receive(), inbox:case_receive() }
        cases[3] = (late or beat):case_receive()
        local r = channel.select(cases)
        if r.channel == answers then
            take(r.value)
        elseif r.channel == beat then
            talk()
        elseif r.channel == late then
            break
        elseif r.value:topic() == "begin" then
            process.send(r.value:from(), "begun", told())
            for _, pid in ipairs(pids) do
                waits[pid] = 0
            end
        else
            stopping, late = r.value:from(), time.after("20s")
        end
    end
    process.send(stopping, "told", told())
end

return { main = main }
