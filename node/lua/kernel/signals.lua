-- Signals: monitors, links, exits, cancel and terminate.
--
-- Who watches a process is kept with it, by PID and no matter where the watcher lives: a watcher
-- in this VM gets an event, any other an EXIT envelope, the last one of its process. A monitor
-- hears of every end; a link only of an end with an error, and takes its own process along
-- unless that traps links. A process that waits for the end of another (process.exec) watches it
-- as well.
--
-- Which processes here watch one that has moved is told to the node: it asserts their watches
-- anew wherever that one goes.
local K = ...
local errors, mailbox, operations, places, processes, timers, turns, values =
    K.errors, K.mailbox, K.operations, K.places, K.processes, K.timers, K.turns, K.values
local by_pid, near = processes.by_pid, processes.near
local has_moved, is_own, place_of = places.has_moved, places.is_own, places.place_of
local config, note = K.config, K.sendorder.note
local next = next

local MONITOR, LINK, OWNER = 1, 2, 3
local NOBODY = {}
local WATCHES = { watching = MONITOR, links = LINK, awaited = MONITOR } -- the sets of whom a process watches

-- The two ways to watch: where each side keeps the other, and the envelopes that begin and end it.
local MONITORS = { mine = "watching", theirs = "watchers", begin = 4, finish = 5, verb = "monitoring" }
local LINKS = { mine = "links", theirs = "links", begin = 6, finish = 7, verb = "linked to" }
local OK = operations.OK
local DEADLINE = 5 -- seconds for an answer from another node
local ON_THE_WAY = 2000000000 -- nanoseconds for what may be behind a process that came here

local nodes -- name -> true; nil until the node has told

-- Only a process on one of these can be reached, and on this one.
local function nodes_are(list)
    nodes = { [config.node] = true }
    for i = 1, #list do
        nodes[list[i]] = true
    end
end

-- The error of a send to a node that is not in the cluster, or nil.
local function no_node(pid)
    local node = place_of(pid)
    if not nodes or nodes[node] then
        return nil
    end
    return errors.new("Unavailable", "no node " .. node .. " in the cluster: it left or never joined", true)
end

-- A process here watches one that has moved, or does not any more.
local function tell_watch(process, set, pid, is_on)
    operations.put({ 65, process.pid, pid, WATCHES[set], is_on }, 5)
end

local function add(process, set, pid)
    local pids = process[set]
    if not pids then
        pids = {}
        process[set] = pids
    end
    pids[pid] = true
    if WATCHES[set] and has_moved(pid) then
        tell_watch(process, set, pid, true)
    end
end

-- Returns what was kept there, or false.
local function drop(process, set, pid)
    local pids = process[set]
    local kept = pids and pids[pid]
    if not kept then
        return false
    end
    pids[pid] = nil
    if WATCHES[set] and has_moved(pid) then
        tell_watch(process, set, pid, false)
    end
    return kept
end

-- The node is told which moved ones ``process`` watches, or that it does not any more.
local function tell_watches(process, is_on)
    for set in next, WATCHES do
        for pid in next, process[set] or NOBODY do
            if has_moved(pid) then
                tell_watch(process, set, pid, is_on)
            end
        end
    end
end

-- ``process`` waits for the end of ``pid``: ``waiter(value, err)`` is called then. ``child`` is its record if it was
-- started here; another VM was told when it was asked to start it.
local function await(process, pid, waiter, child)
    add(process, "awaited", pid)
    process.awaited[pid] = waiter
    if child then
        add(child, "watchers", process.pid)
    end
end

-- The end of ``pid``, for a process that waited for it. Returns whether it did.
local function end_wait(process, pid, value, err)
    local waiter = drop(process, "awaited", pid)
    if waiter then
        waiter(value, err)
        K.moving.settle(process)
    end
    return waiter ~= false
end

local function has(process, set, pid)
    local pids = process[set]
    return pids ~= nil and pids[pid] == true
end

local function no_process(pid)
    return errors.new("NotFound", "no process " .. pid .. ": it ended or never was", false)
end

local function exit_event(kind, from, value, err)
    return { kind = kind, from = from, result = { value = values.copy_or_nil(value), error = values.copy_or_nil(err) } }
end

-- A process linked to ``process`` ended with an error.
local function link_down(process, from, value, err)
    if process.trap_links then
        mailbox.tell(process, exit_event("pid.link.down", from, value, err))
        return
    end
    local text = "linked process failed: " .. from .. ": " .. err[errors.MESSAGE]
    processes.kill(process, "linked", errors.new("Internal", text))
end

local function put_exit(process, to, watch)
    operations.put({ 8, to, process.pid, 0, watch, process.value, process.err }, 7)
end

-- A signal counts as something sent: a message that comes back must not come behind it.
local function note_signal(process, pid)
    if process.order then
        note(process.order, pid)
    end
end

-- Whoever may see the process end: what it sent before must not come to them later.
local function note_watchers(process)
    note(process.order, process.parent)
    for watcher in next, process.watchers or {} do
        note(process.order, watcher)
    end
    for linked in next, process.links or {} do
        note(process.order, linked)
    end
end

-- Its exit came to a process that watches ``from``, or did.
local function watched_ended(process, from, value, err)
    end_wait(process, from, value, err)
    if drop(process, "watching", from) then
        mailbox.tell(process, exit_event("pid.exit", from, value, err))
    end
end

-- The same for a process that is linked to it.
local function linked_ended(process, from, value, err)
    if drop(process, "links", from) and err then
        link_down(process, from, value, err)
    end
end

-- ``process``, which has ended or leaves, does not watch ``pid`` any more.
local function stop_watching(process, pid)
    local there = near(pid)
    if there then
        drop(there, "watchers", process.pid)
    elseif not is_own(pid) then
        operations.put({ 5, pid, process.pid, 0 }, 4)
    end
end

-- What a process does not wait for any more: it starts over.
local function await_nobody(process)
    for pid in next, process.awaited or {} do
        drop(process, "awaited", pid)
        if not (process.watching and process.watching[pid]) then
            stop_watching(process, pid)
        end
    end
end

-- The process has ended: tell who watched it, and stop watching. What one tells that is reached through the node alone
-- goes that way too: it may be known as watched there before the watcher knows.
local function tell_watchers(process)
    local pid = process.pid
    if process.order then
        note_watchers(process)
    end
    for watcher in next, process.watchers or NOBODY do
        local there = near(watcher)
        if there and not process.away then
            watched_ended(there, pid, process.value, process.err)
        elseif there or not is_own(watcher) then
            put_exit(process, watcher, MONITOR)
        end
    end
    for linked in next, process.links or NOBODY do
        local there = near(linked)
        if there and not process.away then
            linked_ended(there, pid, process.value, process.err)
        elseif there or not is_own(linked) then
            if process.err then
                put_exit(process, linked, LINK)
            else
                operations.put({ 7, linked, pid, 0 }, 4)
            end
        end
    end
    for watched in next, process.watching or NOBODY do
        stop_watching(process, watched)
    end
    for awaited in next, process.awaited or NOBODY do
        stop_watching(process, awaited)
    end
    if places.any then
        tell_watches(process, false)
    end
end

-- Ask the process behind a PID of another VM; returns true, or nil and an error object.
local function ask(process, kind, pid, argument, on_ok)
    turns.check_wait("process.monitor and its like")
    local envelope = { kind, pid, process.pid, 0, argument }
    local status, value = operations.request(process, place_of(pid), envelope, nil, DEADLINE, on_ok)
    if status == OK then
        return true
    end
    return nil, operations.reply_error(status, value, pid)
end

-- Remember that ``process`` watches ``pid``, unless it ended while it was asking.
local function keep_or_undo(process, way, pid)
    return function()
        if process.dead then
            operations.put({ way.finish, pid, process.pid, 0 }, 4)
        else
            add(process, way.mine, pid)
        end
    end
end

local function begin(process, pid, way)
    note_signal(process, pid)
    local there = near(pid)
    if there then
        add(there, way.theirs, process.pid)
        add(process, way.mine, pid)
        return true
    elseif is_own(pid) then
        return nil, no_process(pid)
    end
    return ask(process, way.begin, pid, nil, keep_or_undo(process, way, pid))
end

local function finish(process, pid, way)
    note_signal(process, pid)
    if not drop(process, way.mine, pid) then
        return nil, errors.new("NotFound", "not " .. way.verb .. " " .. pid, false)
    end
    local there = near(pid)
    if there then
        drop(there, way.theirs, process.pid)
    elseif not is_own(pid) then
        operations.put({ way.finish, pid, process.pid, 0 }, 4)
    end
    return true
end

local function monitor(process, pid)
    if has(process, "watching", pid) then
        return nil, errors.new("AlreadyExists", "already monitoring " .. pid, false)
    end
    return begin(process, pid, MONITORS)
end

local function unmonitor(process, pid)
    return finish(process, pid, MONITORS)
end

local function link(process, pid)
    if pid == process.pid then
        return nil, errors.new("Invalid", "a process can't link to itself", false)
    elseif has(process, "links", pid) then
        return true
    end
    return begin(process, pid, LINKS)
end

local function unlink(process, pid)
    return finish(process, pid, LINKS)
end

-- A child is watched by its parent from before its first step.
local function attach(child, parent_pid, monitored, linked)
    local parent = by_pid[parent_pid]
    if monitored then
        add(child, "watchers", parent_pid)
        if parent then
            add(parent, "watching", child.pid)
        end
    end
    if linked then
        add(child, "links", parent_pid)
        if parent then
            add(parent, "links", child.pid)
        end
    end
end

-- The parent's side of a child that was started in another VM. A parent that has ended
-- meanwhile takes a linked child along, as it would have.
local function adopted(parent, child_pid, monitored, linked)
    if not parent.dead then
        if monitored then
            add(parent, "watching", child_pid)
        end
        if linked then
            add(parent, "links", child_pid)
        end
        return
    end
    if monitored then
        operations.put({ 5, child_pid, parent.pid, 0 }, 4)
    end
    if linked then
        if parent.err then
            put_exit(parent, child_pid, LINK)
        else
            operations.put({ 7, child_pid, parent.pid, 0 }, 4)
        end
    end
end

-- The owner of ``process``, its supervisor, is gone: it ends as well, whatever it traps.
local function orphaned(process, why)
    process.owner = nil
    processes.kill(process, "orphaned", errors.new("Canceled", "its supervisor " .. why))
end

-- ``deadline``: when it is killed if it has not ended by then, in ms since 1970; nil when nobody has said.
local function cancel_event(process, from, reason, deadline)
    mailbox.tell(process, { kind = "pid.cancel", from = from, reason = reason, deadline = deadline })
end

local function terminate_here(process)
    processes.kill(process, "killed", errors.new("Canceled", "terminated"))
end

local function cancel(process, pid, reason)
    note_signal(process, pid)
    local there = near(pid)
    if there then
        cancel_event(there, process.pid, reason)
        return true
    elseif is_own(pid) then
        return nil, no_process(pid)
    end
    return ask(process, 9, pid, reason)
end

local function terminate(process, pid)
    note_signal(process, pid)
    local there = near(pid)
    if not there then
        if is_own(pid) then
            return nil, no_process(pid)
        end
        return ask(process, 10, pid)
    end
    terminate_here(there)
    if process.dead then
        turns.abandon()
    end
    return true
end

-- Envelopes of these kinds that came in, for a process that lives here.
local received = {}

for _, way in next, { MONITORS, LINKS } do
    received[way.begin] = function(process, envelope)
        add(process, way.theirs, envelope[3])
        operations.reply(envelope, OK, true)
    end
    received[way.finish] = function(process, envelope)
        local was_kept = drop(process, way.theirs, envelope[3])
        if was_kept and way == LINKS and process.away then -- its own link may have been asserted anew meanwhile
            operations.put({ way.finish, envelope[3], process.pid, 0 }, 4)
        end
        operations.reply(envelope, OK, true)
    end
end

received[8] = function(process, envelope)
    local from, watch, value, map = envelope[3], envelope[5], envelope[6], envelope[7]
    local err = map and errors.from_map(map)
    if watch == OWNER then
        if process.owner == from then
            orphaned(process, "ended")
        end
        return
    elseif watch == LINK then
        linked_ended(process, from, value, err)
    else
        watched_ended(process, from, value, err)
    end
end

received[9] = function(process, envelope)
    cancel_event(process, envelope[3], envelope[5] or "", envelope[6])
    operations.reply(envelope, OK, true)
end

received[10] = function(process, envelope)
    terminate_here(process)
    operations.reply(envelope, OK, true)
end

-- Those born there that live there still; what becomes of a process that has moved is told by the node.
local function on_node(pids, node)
    local found = {}
    for pid in next, pids or {} do
        if not is_own(pid) and not has_moved(pid) and places.node_of(pid) == node then
            found[#found + 1] = pid
        end
    end
    return found
end

local function forget_node(process, node, err)
    for _, pid in next, on_node(process.watchers, node) do
        process.watchers[pid] = nil
    end
    for _, pid in next, on_node(process.awaited, node) do
        end_wait(process, pid, nil, err)
    end
    for _, pid in next, on_node(process.watching, node) do
        process.watching[pid] = nil
        mailbox.tell(process, exit_event("pid.exit", pid, nil, err))
    end
    for _, pid in next, on_node(process.links, node) do
        process.links[pid] = nil
        if not process.dead then
            link_down(process, pid, nil, err)
        end
    end
    if process.owner and places.node_of(process.owner) == node and not process.dead then
        orphaned(process, "can't be reached: " .. err[errors.MESSAGE])
    end
end

local losses = {} -- node -> how often it, or the link to it, was lost
local in_doubt = false

-- A question to be asked later: whether ``pid`` could be reached all the time since, and may own something here.
local function watch_reach(pid)
    local node = place_of(pid)
    local before = losses[node]
    return function()
        return losses[node] == before and not (in_doubt and not is_own(pid))
    end
end

-- [39]: the lease of this node may be over, or is sure again. Once it is over the others take what ran here for ended,
-- and their supervisors start it elsewhere: so it ends here before, though the links live on.
local function lease_in_doubt(is_in_doubt)
    in_doubt = is_in_doubt
    local all = {}
    for _, process in next, is_in_doubt and by_pid or {} do
        if process.owner and not is_own(process.owner) then
            all[#all + 1] = process
        end
    end
    for i = 1, #all do
        if not all[i].dead then
            orphaned(all[i], "takes it for ended: the lease of this node may be over")
        end
    end
end

-- [45]: the node, or the link to it, is gone. Links down do not say who else is alive there.
local function node_gone(node, reason)
    local err = errors.new("Unavailable", "node disconnected: noconnection to " .. node .. ": " .. reason, true)
    losses[node] = (losses[node] or 0) + 1
    operations.node_gone(node, err[errors.MESSAGE])
    local all = {}
    for _, process in next, by_pid do
        all[#all + 1] = process
    end
    for i = 1, #all do
        forget_node(all[i], node, err)
    end
end

local function tell_new(process, new)
    for set in next, WATCHES do
        for pid in next, process[set] or {} do
            if new[places.uniq_of(pid)] then
                tell_watch(process, set, pid, true)
            end
        end
    end
end

-- One that is not known any more and was not where it was born has ended; any other may be there.
local function forget_gone(process, gone)
    for pid in next, process.watchers or {} do
        local place = gone[places.uniq_of(pid)]
        if place and place ~= places.node_of(pid) then
            process.watchers[pid] = nil
        end
    end
end

-- [70]: these processes are somewhere else than before. Who watches one that was not known to have moved is told to the
-- node; one that has ended watches nobody any more.
local function moved(list)
    local new, gone = {}, {}
    for i = 1, #list do
        local uniq, node = list[i][1], list[i][2]
        local before = places.put(uniq, node)
        if node == "" then
            gone[uniq] = before
        elseif not before then
            new[uniq] = node
        end
    end
    if next(new) == nil and next(gone) == nil then
        return
    end
    local any_new, any_gone = next(new) ~= nil, next(gone) ~= nil
    for _, process in next, by_pid do -- all of them, each time: what most have not is looked at first
        if any_new and (process.watching or process.links or process.awaited) then
            tell_new(process, new)
        end
        if any_gone and process.watchers then
            forget_gone(process, gone)
        end
    end
end

-- The end of ``pid`` was not seen, but is known. What it said itself may be on its way still, behind the process that
-- came here; if not, it is as if its exit had come.
local function lost(process, way, pid, err)
    timers.after(processes.system, ON_THE_WAY, function()
        local watcher = by_pid[process.pid] -- it may have started over
        if watcher and way == LINKS then
            linked_ended(watcher, pid, nil, err)
        elseif watcher then
            watched_ended(watcher, pid, nil, err)
        end
    end)
end

-- ``pid`` is asked to be watched by a process that came here, and that takes it for watched.
local function assert_watch(process, way, pid)
    local there = near(pid)
    if there then
        add(there, way.theirs, process.pid)
        return
    elseif is_own(pid) then
        return lost(process, way, pid, no_process(pid))
    end
    operations.request_by_kernel(process, place_of(pid), { way.begin, pid, process.pid, 0 }, function(status, value)
        if status ~= OK and not (status == operations.NOCONNECTION and has_moved(pid)) then
            lost(process, way, pid, operations.reply_error(status, value, pid))
        end
    end)
end

-- A process came here: whom it watches is asked to be watched, from here. What another VM answers comes later.
local function assert_watches(process)
    tell_watches(process, true)
    for _, way in next, { MONITORS, LINKS } do
        local pids = {}
        for pid in next, process[way.mine] or {} do
            pids[#pids + 1] = pid
        end
        for i = 1, #pids do
            assert_watch(process, way, pids[i])
        end
    end
end

-- [76]: ``watcher`` is to hear of the end of the process.
local function watch_asked(item)
    local process = by_pid[item[2]]
    if process then
        add(process, item[4] == LINK and "links" or "watchers", item[3])
    end
    operations.put({ 64, item[2], item[3], item[4], item[5], process ~= nil }, 6)
end

K.signals = {
    lease_in_doubt = lease_in_doubt,
    moved = moved,
    watch_asked = watch_asked,
    assert_watches = assert_watches,
    tell_watches = tell_watches,
    await = await,
    await_nobody = await_nobody,
    MONITOR = MONITOR,
    LINK = LINK,
    no_process = no_process,
    no_node = no_node,
    nodes_are = nodes_are,
    tell_watchers = tell_watchers,
    monitor = monitor,
    unmonitor = unmonitor,
    link = link,
    unlink = unlink,
    attach = attach,
    adopted = adopted,
    cancel = cancel,
    cancel_event = cancel_event,
    terminate = terminate,
    received = received,
    node_gone = node_gone,
    watch_reach = watch_reach,
}
