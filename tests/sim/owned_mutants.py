"""Mutants of what owns, places and keeps services, of names and groups, and of the kernel's requests."""

from __future__ import annotations

from cluster import owned
from cluster.claims import Claims
from cluster.fencing import FencingCore, LeaseKeeper
from cluster.groups import GroupsCore
from cluster.names import Names
from node.ownership import Ownership
from node.replica import Replica
from node.replicas import Replicas
from node.supervisor import Supervisor
from tests.sim.mutants import Change, Mutant, Text, one

SERVICES = (
    Mutant(
        "owned services are not killed before the lease ends",
        "F3",
        (
            Change(Supervisor, "kill_owned", "self._replicas.owned()", "[]"),
            Change(Replicas, "may_act", 'self.retire(key, "the lease is over", release=False, kill=True)', "pass"),
        ),
        theme="lease",
    ),
    one(
        "a claim is given back before its process has ended",
        "F5",
        Replicas,
        "_end",
        "await run.replica.stop(reason)",
        "await self.claiming.release(key, run.claim.token, avoided) if release and run.claim else None; "
        "await run.replica.stop(reason)",
        theme="hangs",
    ),
    one(
        "the token stays the same when the owner changes",
        "F5",
        Claims,
        "_apply_claim",
        "kv.mod_revision, kv.lease",
        "kv.version, kv.lease",
        theme="services",
    ),
    one(
        "a live claim is overridden",
        "F5",
        owned,
        "create",
        "[Compare.absent(key)]",
        "[]",
        theme="lease",
    ),
    one(
        "a replica starts before its claim is confirmed",
        "P6",
        Supervisor,
        "_place",
        "self._replicas.claiming.ask((service, replica), self._lease.current)",
        "self._replicas.claiming.ask((service, replica), self._lease.current); self._replicas.start("
        "(service, replica), self._wanted[service], Claim(service, replica, self._node, 0, self._lease.current()))",
        theme="services",
    ),
    one(
        "a process whose start was given up may act",
        "F4",
        Replicas,
        "_fence",
        "pid not in run.replica.pids",
        "False",
        theme="hangs",
        first=(102, 141, 193),
    ),
    one(
        "a process whose start was given up lives on",
        "L9",
        Replica,
        "_unwanted",
        "return False",
        "return True",
        theme="hangs",
    ),
    one(
        "what a former process said of the replica stays",
        "claims",
        Replicas,
        "state_shown",
        "if run.replica.pid is not None and",
        "if False and",
        theme="lease",
    ),
    one(
        "a step that hangs is not noticed",
        "F2",
        FencingCore,
        "_wedged",
        "if ran > self._step_limit:",
        "if False:",
        theme="hangs",
    ),
    one(
        "a main loop that hangs is not noticed",
        "F2",
        FencingCore,
        "_wedged",
        "if silent > self._wedge_limit:",
        "if False:",
        theme="hangs",
    ),
    one(
        "the lease is kept by the clock on the wall",
        "F1",
        LeaseKeeper,
        "__init__",
        "clock or BootClock()",
        "type('WallClock', (), {'now': asyncio.get_running_loop().clocks.wall})()",
        theme="lease",
    ),
    one(
        "the lease is kept by a clock that stands still while the machine sleeps",
        "F1",
        LeaseKeeper,
        "__init__",
        "clock or BootClock()",
        "type('MonotonicClock', (), {'now': asyncio.get_running_loop().clocks.monotonic})()",
        theme="lease",
    ),
    one(
        "a node registers again while owned work of the old lease lives",
        "F4",
        Ownership,
        "_owned_ended",
        "while self._owner.owns():",
        "while False:",
        theme="lease",
        first=(107, 122, 147, 151, 171),
    ),
)

NAMES = (
    one(
        "a STRONG name is told before every node shows it",
        "names",
        Names,
        "_acknowledged",
        "await self._everywhere(registered.revision, timeout)",
        "pass",
        theme="names",
    ),
    one(
        "a name whose key comes too late is kept",
        "names",
        Names,
        "_release_late",
        "if is_of_now and",
        "if False and",
        machine="late",
    ),
    one(
        "a change of a group that was missed is not asked for",
        "groups",
        GroupsCore,
        "changed",
        "if seq != view.seq + 1:",
        "if False:",
        theme="names",
    ),
    one(
        "processes that ended stay members",
        "groups",
        GroupsCore,
        "process_ended",
        "actions = self._set_local(pid, dict.fromkeys(self._by_pid.get(pid, ()), 0))",
        "return []",
        theme="names",
    ),
)

REQUESTS = (
    Mutant(
        "messages leave the VM after the end of their sender",
        "L9",
        (Text("operations", "    if run.count > 0 then\n        end_run()\n    end\n    add(text)", "    add(text)"),),
        theme="programs",
    ),
    Mutant(
        "a spawn whose outcome is unknown is tried again",
        "L9",
        (
            Text(
                "spawning",
                "local status, value = operations.request(process, node, envelope, 6, SPAWN_DEADLINE, adopt)",
                "local status, value = operations.request(process, node, envelope, 6, SPAWN_DEADLINE, adopt)\n"
                "    if status == 3 then\n        status, value = operations.request(process, node, envelope, 6, "
                "SPAWN_DEADLINE, adopt)\n    end",
            ),
        ),
        theme="programs",
    ),
    Mutant(
        "a link to a lost node ends nobody",
        "G3",
        (Text("signals", "            link_down(process, pid, nil, err)\n", ""),),
        theme="programs",
    ),
    Mutant(
        "a request to a lost node waits for ever",
        "G3",
        (
            Text(
                "operations",
                "asked.timer = timers.after(process, seconds * SECOND, request_timed_out)",
                "asked.timer = {}",
            ),
            Text("signals", "operations.node_gone(node, err[errors.MESSAGE])", ""),
        ),
        theme="programs",
    ),
)
OWNED_MUTANTS = (*SERVICES, *NAMES, *REQUESTS)
