-- Moving: how a process leaves this VM for another, and how one arrives.
--
-- The node asks [71], and the process is told by an event. By process.upgrade it hands over its state: nothing of it
-- runs any more, and a record without threads takes its place, which still gets mail and events. Once all that it had
-- asked for is answered the node is told [62]; from then on it holds what comes. On [72] the record is packed and is
-- out of everybody's reach (``frozen``) until it is known where the process runs: here again [73], or elsewhere [74].
--
-- ``moving`` of a record is the number of the move. One that handed over its state is ``leaving``: ``arguments`` are what
-- it starts over with, ``former`` is the record whose answers it waits for. ``away`` means that it came from elsewhere or was
-- frozen: then nobody here reaches it but through the node, so that nothing comes out of order.
local K = ...
local errors, luggage, mailbox, operations, places, processes, signals, spawning, stopping =
    K.errors, K.luggage, K.mailbox, K.operations, K.places, K.processes, K.signals, K.spawning, K.stopping
local by_pid = processes.by_pid
local next, pcall = next, pcall

local frozen = {} -- PID -> record
local NO_CODE = { id = "", version = 0, stale = false, linked = {} } -- of a process that came, until its own is there

local function refuse(pid, move, reason)
    operations.put({ 61, pid, move, reason }, 4)
end

-- Why a process can't leave, or nil.
local function obstacle(process)
    if not process then
        return "it has ended"
    elseif process.is_call then
        return "it is a function: it can't be moved, its caller can"
    elseif process.owner then
        return "it is supervised: its supervisor starts it elsewhere"
    elseif not process.migratable then
        return "it has not opted in: see process.set_options({migratable = true})"
    end
    return nil
end

-- Whether a process waits to be frozen.
local function has_handed_over(process)
    return process.leaving == true
end

local function is_empty(set)
    return set == nil or next(set) == nil
end

local function tell_leaving(process)
    operations.put({ 62, process.pid, process.moving, process.entry }, 4)
end

-- Something that a process waits for before it leaves may have been the last.
local function settle(process)
    local former = process.former
    if not former or process.dead or not is_empty(former.operations) or not is_empty(former.requests) or not is_empty(former.calls)
        or not is_empty(process.awaited) then
        return
    end
    process.former, former.successor = nil, nil
    processes.forget_former(process, former)
    tell_leaving(process)
end

-- [71]
local function asked(pid, move, to, deadline)
    local process = by_pid[pid]
    local reason = obstacle(process)
    if reason then
        return refuse(pid, move, reason)
    end
    process.moving = move
    if not has_handed_over(process) then
        mailbox.migrate(process, to, deadline)
    elseif not process.former then
        tell_leaving(process)
    end
end

-- A process has set its option ``migratable``. The node is to hear of its end; and one that changed its mind stays.
local function allowed(process)
    if process.migratable then
        process.named = true
    elseif process.moving then
        refuse(process.pid, process.moving, "it has opted out")
        process.moving = nil
        mailbox.stay(process)
    end
end

-- The process that runs is asked to leave and starts over with ``entry`` wherever it comes to.
local function hand_over(process, entry, arguments)
    local fresh = processes.succeed(process, entry)
    fresh.leaving, fresh.arguments, fresh.former = true, arguments, process
    operations.end_streams(process)
    operations.take_back_calls(process)
    process.successor = fresh
    settle(fresh)
end

-- A record without threads runs from now on.
local function start_over(process)
    local arguments = process.arguments
    process.arguments = nil
    processes.begin(process, arguments)
end

-- The move is over, and it starts over here.
local function stay(process)
    process.moving, process.leaving = nil, nil
    start_over(process)
end

local function watchers_of(process)
    local list = {}
    for pid in next, process.watchers or {} do
        list[#list + 1] = { pid, signals.MONITOR }
    end
    for pid in next, process.links or {} do
        list[#list + 1] = { pid, signals.LINK }
    end
    return list
end

-- Raises where memory is short.
local function put_luggage(process, move)
    local text = luggage.pack(process)
    if not text then
        return false
    end
    operations.put({ 63, process.pid, move, text, watchers_of(process) }, 5)
    return true
end

-- [72]
local function freeze(pid, move)
    local process = by_pid[pid]
    if not process or process.moving ~= move or not has_handed_over(process) or process.former then
        return
    end
    if not places.has_moved(pid) then
        K.delivery.processes_moved({ { places.uniq_of(pid), K.config.node } })
    end
    signals.tell_watches(process, false)
    local ok, is_put = pcall(put_luggage, process, move)
    if not (ok and is_put) then
        refuse(pid, move, "its state and its mail are too large to be moved, or for the memory of its host")
        signals.tell_watches(process, true)
        return stay(process)
    end
    by_pid[pid], frozen[pid] = nil, process
    process.away = true
    local counts = process.counts
    counts.sent, counts.received = counts.sent + process.sent, counts.received + process.received
end

-- What it did elsewhere is counted there.
local function discount(process)
    local counts = process.counts
    counts.sent, counts.received = counts.sent - process.sent, counts.received - process.received
end

-- [73] for a process that is frozen.
local function revive(process)
    frozen[process.pid], by_pid[process.pid] = nil, process
    discount(process)
    process.limit = K.config.mailbox_limit
    stay(process)
    signals.assert_watches(process)
    if process.upgradable and process.code.stale then
        mailbox.outdated(process, { process.entry })
    end
    stopping.joined(process)
end

-- [73]
local function thaw(pid, move)
    local process = frozen[pid] or by_pid[pid]
    if not process or process.moving ~= move then
        return
    elseif frozen[pid] then
        revive(process)
    elseif not has_handed_over(process) then
        process.moving = nil
        mailbox.stay(process)
    else
        local former = process.former
        if former then
            process.former, former.successor = nil, nil
            processes.forget_former(process, former)
        end
        stay(process)
    end
end

-- [74]
local function drop(pid, move)
    local process = frozen[pid]
    if process and process.moving == move then
        frozen[pid] = nil
        process.dead = true
        processes.leave(process)
        stopping.check()
    end
end

-- A record for a process that came, before its code is there: what comes for it waits with it.
local function new_guest(pid, packed, parent)
    local process = processes.new_record(pid, { id = packed.entry }, parent)
    process.code = NO_CODE
    luggage.give(process, packed)
    process.away, process.named = true, true
    discount(process)
    processes.enter(process)
    return process
end

-- The code is there, or there is a reason why it can't be had.
local function begin(process, entry, err)
    if process.dead then
        return
    elseif not entry then
        return processes.finish(process, "error", nil, err)
    end
    process.code = entry
    start_over(process)
end

-- [75]
local function adopt(pid, text, parent)
    local packed = luggage.unpack(text)
    local uniq = places.uniq_of(pid)
    K.delivery.processes_moved({ { uniq, K.config.node } })
    -- limits keep out what is new; this one lives, and nowhere else
    local err = processes.stopping and processes.stopping_error()
    local process = new_guest(pid, packed, parent)
    if err then
        return begin(process, nil, err)
    end
    signals.assert_watches(process)
    if K.code.at_hand(packed.entry) then
        return begin(process, spawning.code_for(packed.entry, "process"))
    end
    processes.run_in_kernel(function()
        begin(process, spawning.code_for(packed.entry, "process"))
    end)
end

-- How far the move of a process is, in words; nil when it is not about to move.
local function state_of(process)
    if not process.moving then
        return nil
    elseif not has_handed_over(process) then
        return "asked"
    end
    return process.former and "waiting for answers" or "leaving"
end

K.moving = {
    settle = settle,
    asked = asked,
    allowed = allowed,
    hand_over = hand_over,
    has_handed_over = has_handed_over,
    freeze = freeze,
    thaw = thaw,
    drop = drop,
    adopt = adopt,
    state_of = state_of,
}
