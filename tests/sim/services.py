"""Services: what is wanted in the cluster and changes meanwhile, and what their processes do.

The definitions stand for the registry: each node follows them in its own time, as its convergence does. Processes
work under their claims; some fail, some end when they are told to and some do not, some hang and their VM with them.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any

from cluster.errors import ClusterError
from cluster.etcd import Compare, Delete, Put
from cluster.keys import Keys
from cluster.members import Description, NodeState
from cluster.registry import Entry

if TYPE_CHECKING:
    from tests.sim.machine import Life
    from tests.sim.simulation import Simulation
    from tests.sim.vm import Process

KEYS = Keys("sim")
HOST = "app:processes"
ZONES = ("east", "west")
LASTING = ("work", "work", "stubborn")
BAD = ("fail", "fail soon", "refuse", "poison", "return")


class Services:
    """``begin`` has a life follow the definitions; ``spawned`` runs a process of one."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.pick = sim.world.pick
        self.definitions: dict[str, Entry] = {}
        self._changed: list[asyncio.Event] = []
        self._salt = count(1)

    def define_some(self) -> None:
        for number in range(self.pick((1, 2, 2, 3, 4))):
            self._define(f"app:s{number}", self._placement(number), self._behaviour())

    def _placement(self, number: int) -> dict[str, Any]:
        every_node, keep = self.pick((False,) * 7 + (True,)), number == 3
        placement: dict[str, Any] = {"mode": "every_node" if every_node else "cluster"}
        if not every_node:
            placement["replicas"] = self.pick((1, 1, 1, 2, 3))
        if self.sim.world.random.random() < (0.6 if self.sim.theme == "hangs" else 0.3):
            placement["labels"] = {"zone": self.pick(ZONES)}
        if keep:
            placement["on_lease_loss"] = "keep"
        return placement

    def _behaviour(self) -> str:
        match self.sim.theme:
            case "lease":
                return self.pick(("work", "stubborn", "stubborn", "stubborn", "fail"))
            case "hangs":
                return self.pick((*LASTING, *BAD, "poison", "poison"))
            case _:
                return self.pick(LASTING) if self.sim.world.random.random() < 0.7 else self.pick(BAD)

    def _define(self, id: str, placement: dict[str, Any], behaviour: str) -> None:
        lifecycle: dict[str, Any] = {
            "auto_start": True,
            "start_timeout": self.pick(("1s", "2s")),
            "stop_timeout": self.pick(("600ms", "5s", "5s") if self.sim.theme == "lease" else ("100ms", "600ms", "5s")),
            "stable_threshold": "1s",
            "restart": {"initial_delay": "200ms", "max_delay": "1s"},
        }
        if id != "app:s0" and self.pick((False, False, False, True)):
            lifecycle["requires"] = ["app:s0"]
        data = {
            "process": "app:worker",
            "host": HOST,
            "input": [behaviour, id],
            "lifecycle": lifecycle,
            "placement": placement,
        }
        self.definitions[id] = Entry(id, "process.service", {}, data)

    # -- what changes

    def change(self) -> None:
        """Somebody pushes another definition."""
        if self.sim.workload.calm:
            return
        id = self.pick([*sorted(self.definitions), "app:s0", "app:s9"])
        if id in self.definitions and self.pick((False, False, False, True)):
            del self.definitions[id]
        elif id in self.definitions and self.pick((False, True)):
            placement = self.definitions[id].data["placement"]  # another program in the same places
            self._define(id, placement, self._behaviour())
        else:
            self._define(id, self._placement(int(id[-1])), self._behaviour())
        self.sim.world.note("services", "changed", id, self.definitions.get(id, "removed") and id in self.definitions)
        self._tell()

    def calm(self) -> None:
        """From now on every service can run."""
        for id, entry in self.definitions.items():
            data = entry.data
            if data["input"][0] in BAD:
                self.definitions[id] = Entry(id, entry.kind, {}, {**data, "input": [self.pick(LASTING), id]})
        self._tell()
        for seconds in (0.0, 4.0):  # a node may have hung in one before, and say so only now
            self.sim.world.after(seconds, self._trust)

    def _trust(self) -> None:
        """An operator releases what is quarantined."""
        for kv in list(self.sim.store.kvs.values()):
            if kv.key.startswith((KEYS.quarantines, KEYS.suspects, KEYS.avoids)):
                self.sim.store.transact([], [Delete(kv.key)], ())
        for machine in self.sim.machines.values():
            machine.life.quarantined.clear()

    def _tell(self) -> None:
        for event in self._changed:
            event.set()

    # -- a node follows

    async def begin(self, life: Life) -> None:
        """Give the life's supervisor each definition as it is, in some order and some time later."""
        changed = asyncio.Event()
        self._changed.append(changed)
        seen: dict[str, Entry] = {}
        while True:
            changed.clear()
            for id in sorted({*seen, *self.definitions}):
                entry = self.definitions.get(id)
                if entry is not seen.get(id) and id not in life.converging:
                    life.converging.add(id)
                    life.tasks.start(self._follow(life, id, seen, changed), f"converge {id}")
            await changed.wait()
            await asyncio.sleep(self.pick((0.001, 0.01, 0.2, 1.0)))

    async def _follow(self, life: Life, id: str, seen: dict[str, Entry], changed: asyncio.Event) -> None:
        entry = self.definitions.get(id)
        try:
            if entry is None:
                seen.pop(id, None)
                await life.supervisor.remove(id)
            else:
                seen[id] = entry
                await life.supervisor.put(entry)
        except ClusterError:
            seen.pop(id, None)  # its former process has not ended: told again
            await asyncio.sleep(0.3)
        finally:
            life.converging.discard(id)
            changed.set()

    # -- what their processes do

    def refuses(self, args: list[Any]) -> bool:
        return bool(args[0] == b"refuse")

    async def run(self, life: Life, process: Process, args: list[Any]) -> None:
        """A process of the service ``args[1]`` that behaves as ``args[0]`` says."""
        behaviour = args[0].decode()
        process.obeys = behaviour != "stubborn"
        ends_after = {"fail": 1.5, "fail soon": 0.05, "return": 0.7}.get(behaviour)
        began = life.loop.time()
        while process.alive:
            await life.vm.steady()
            if process.alive:
                self._act(life, process)
            await asyncio.sleep(self.pick((0.05, 0.15, 0.3)))
            ran = life.loop.time() - began
            if ends_after is not None and ran > ends_after:
                await life.vm.steady()
                life.vm.end(process, None if behaviour == "return" else "it failed")
            elif behaviour == "poison" and ran > 0.5 and not self.sim.workload.calm:
                life.vm.wedge(20.0, process)

    def _act(self, life: Life, process: Process) -> None:
        """Do something as the owner, if the node lets it out; and write what is fenced."""
        fence = life.supervisor.fence_of(process.pid)
        if fence is None or not life.owners.may_act(process.pid):
            return
        key, token = fence
        self.sim.owned.acts(life, process, key, token, binding=not self._keeps(key))
        life.tasks.start(self._write(life, key, token), "fenced write")

    @staticmethod
    def _keeps(key: str) -> bool:
        return "app:s3/" in key

    async def _write(self, life: Life, key: str, token: int) -> None:
        store, owned = self.sim.store, self.sim.owned
        held, put = [Compare.mod(key, "=", token)], [Put(f"/wippy/sim/kv/{key}", str(token).encode())]

        def write() -> None:
            if store.transact(held, put, ()).succeeded:
                owned.written_by(key, token)

        life.client.request(write, lambda result, error: None, life.loop)

    # -- what is wanted, and what is there

    def is_everywhere(self, service: str) -> bool:
        return bool(self.definitions[service].data["placement"]["mode"] == "every_node")

    def wanted(self) -> dict[tuple[str, int], list[str] | None]:
        """Every wanted replica, and the nodes it may run on; None where that can't be said."""
        return {
            (id, replica): self._eligible(entry)
            for id, entry in self.definitions.items()
            for replica in range(entry.data["placement"].get("replicas", 1))
        }

    def _eligible(self, entry: Entry) -> list[str] | None:
        placement = entry.data["placement"]
        required = [
            self.definitions[id] for id in entry.data["lifecycle"].get("requires", ()) if id in self.definitions
        ]
        if not all(self._eligible(one) and not self.is_everywhere(one.id) for one in required):
            return None  # an instance on another node is nothing a node knows of
        wanted = placement.get("labels", {}).items()
        found = []
        for name in sorted(self.sim.machines):
            kv = self.sim.store.kvs.get(f"/wippy/sim/nodes/{name}")
            said = Description.from_json(kv.value) if kv is not None else None
            if said is None or not all(said.labels.get(key) == value for key, value in wanted):
                continue
            if said.state is NodeState.READY or placement["mode"] == "every_node":
                found.append(name)
        return found

    def running(self) -> dict[tuple[str, int, str], list[str]]:
        """By service, replica and node: the processes that live and whose supervisor says that they run."""
        found: dict[tuple[str, int, str], list[str]] = {}
        for name, machine in self.sim.machines.items():
            life = machine.life
            for row in life.supervisor.stats():
                if row["node"] == name and row["pid"].encode() in life.vm.processes:
                    found.setdefault((row["service"], row["replica"], name), []).append(row["pid"])
        return found
