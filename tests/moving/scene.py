"""A process that is to move, those who have to do with it, and what must be true when it is over."""

from __future__ import annotations

import secrets
from typing import Any

from cluster.envelope import Kind
from cluster.migration import Place
from cluster.migration.actions import Verdict
from cluster.pid import uniq_of
from node.moving import Outcome
from node.moving.moved import Moved
from tests.moving.stops import Rig
from tests.moving.world import Town, eventually

A, B, C = NODES = ("n1", "n2", "n3")
ROUTES = {"away": (A, B, C), "home": (B, A, C), "on": (B, C, A)}
"""From where, to where, and who looks on; the process is born on A."""
CONSISTENT = 2
"""As in process.registry."""


class Scene:
    """One process on A; its peer on C gets a number for each it gets; senders and watchers are on all nodes."""

    def __init__(self, town: Town, rig: Rig) -> None:
        self.town = town
        self.rig = rig
        self.pid = self.peer = ""
        self.senders: list[str] = []
        self.witnesses: dict[str, str] = {}
        self.name = f"mover-{secrets.token_hex(3)}"
        self.outcome: Outcome | None = None
        self.within = 3.0
        self.route = (A, B, C)
        self.may_lose = False
        """Whether messages may be lost, and watchers told while it lives: a link closed."""
        self.dies = False
        """Whether it has been told to end."""
        self.is_nameless = False
        """Whether its name may have gone, with a lease."""
        self.former: dict[str, int] = {}
        """Epochs that have ended."""
        self.expected_errors: tuple[str, ...] = ()

    async def build(self) -> None:
        town = self.town
        self.peer = await town.spawn(C, "app:mover")
        self.pid = await town.spawn(A, "app:mover")
        await town.call(A, self.pid, "peer", self.peer)
        assert (await town.call(A, self.pid, "name", {"name": self.name, "scope": CONSISTENT}))["ok"]
        for node in NODES:
            self.witnesses[node] = await town.spawn(node, "app:witness")
            assert (await town.call(node, self.witnesses[node], "monitor", self.pid))["ok"]
            self.senders.append(await town.spawn(node, "app:numbering", self.pid, 2, "3ms"))

    def links(self, node: str) -> Any:
        return self.town.nodes[node].links

    async def take(self, route: str) -> None:
        """Bring it to where the route begins."""
        self.route = source, _, _ = ROUTES[route]
        if source == A:
            return
        assert (await self.move(source, A)).moved

        def is_settled() -> bool:
            moved = self.town.nodes[source].moving._table[uniq_of(self.pid.encode())]
            return moved.core is not None and moved.core.place is Place.RUNS and moved.core.redirect.pending is None

        await eventually(is_settled, "what came before it is there")

    async def move(self, to: str = "", source: str = "") -> Outcome:
        source, to = source or self.route[0], to or self.route[1]
        self.outcome = await self.town.nodes[source].moving.move(self.pid, to, self.within)
        return self.outcome

    async def registered(self, node: str) -> None:
        """Until a node whose lease was lost is there again."""
        links = self.links(node)
        await eventually(lambda: links.stats().epoch not in (0, self.former[node]), f"{node} is registered again")
        await self.town.know_each_other()

    def report(self) -> str:
        """What every node knows of it, for whoever reads a failed test."""
        lines = []
        for name, parts in self.town.nodes.items():
            moved = parts.moving._table.get(uniq_of(self.pid.encode()))
            if moved is None:
                continue
            core = moved.core
            lines.append(
                f"{name}: at {moved.node} ({moved.revision}) leaving={moved.leaving} inbox={moved.inbox is not None}"
            )
            if core is not None:
                departure = core.departure and (core.departure.step, core.departure._awaited)
                arrival = core.arrival and core.arrival.stage
                lines.append(
                    f"  {core.place} {departure=} {arrival=} redirect={core.redirect.pending} to {core.redirect.route} "
                    f"holding {len(core.redirect)} relays={core._relays._relays} watches={core.watches.unanswered} "
                    f"accepted={core._accepted.highest} tombstone={core.tombstone and vars(core.tombstone)}"
                )
        return "\n".join(lines)

    async def copies(self) -> list[str]:
        """The nodes that run the process."""
        return [
            name
            for name, parts in self.town.nodes.items()
            for process in await parts.hosts.processes()
            if process["pid"] == self.pid
        ]

    async def check_running(self, node: str) -> None:
        assert await self._settled() == [node]

    # -- what is to be true at the end

    async def check(self) -> None:
        assert self.outcome is not None
        assert self.outcome.verdict is not None, self.outcome
        await self.town.know_each_other()
        sent = {sender: (await self.town.call(A, sender, "stop"))["sent"] for sender in self.senders}
        copies = await self._settled()
        if copies:
            await self._check_alive(copies[0], sent)
        else:
            assert self.outcome.verdict is Verdict.DIED or self.may_lose or self.dies, self.outcome
        self.terminate(self.pid)
        await self._check_gone()
        await self._check_peer()
        for one in (self.peer, *self.witnesses.values()):
            self.terminate(one)

    async def _settled(self) -> list[str]:
        """Where it runs, once all nodes agree."""

        async def agreed() -> list[str] | None:
            copies = await self.copies()
            assert len(copies) <= 1, f"two copies: {copies}"
            if copies and not self.dies:
                seen = {parts.moving.where(self.pid) for parts in self.town.nodes.values()}
                return copies if seen == set(copies) else None
            if copies:
                return None
            moved = [parts.moving._table.get(uniq_of(self.pid.encode())) for parts in self.town.nodes.values()]
            if any(_is_undecided(one) for one in moved):
                return None
            return None if await self.copies() else ["nowhere"]  # it may have come since they were asked

        copies = await eventually(agreed, "the nodes agree where it is")
        return [] if copies == ["nowhere"] else list(copies)

    async def tally(self, pid: str) -> dict[str, Any]:
        told: dict[str, Any] = await self.town.call(C, pid, "tally")
        return {**told, "last": dict(told["last"] or {}), "wrong": told["wrong"] or []}

    async def _check_alive(self, node: str, sent: dict[str, int]) -> None:
        told = await self.tally(self.pid)
        if not self.may_lose:

            async def complete() -> bool:
                last = (await self.tally(self.pid))["last"]
                return all(last.get(one, 0) == n for one, n in sent.items())

            await eventually(complete, "everything arrives", within=3)
            told = await self.tally(self.pid)
            assert told["wrong"] == [], told["wrong"][:5]
        backwards = [one for one in told["wrong"] if one["got"] <= one["expected"]]
        assert backwards == []
        for name, parts in self.town.nodes.items():
            held = parts.names.lookup(self.name)
            found = held.pid if held is not None else ""
            assert found == self.pid or (self.is_nameless and not found), f"{name} finds {found!r} under the name"
        for name in self.witnesses:
            heard = await self.town.call(name, self.witnesses[name], "heard")
            assert self.may_lose or not heard, f"the watcher on {name} was told {heard}, but it runs on {node}"

    def terminate(self, pid: str, by: str = A) -> None:
        self.town.nodes[by].router.route([int(Kind.TERMINATE), pid.encode(), b"", 0])

    async def _check_gone(self) -> None:
        uniq = uniq_of(self.pid.encode())
        keys, etcd = self.town.nodes[A].keys, self.town.nodes[A].etcd

        async def gone() -> bool:
            rows = [name for name, parts in self.town.nodes.items() if uniq in parts.moving._table]
            assert not rows, f"{rows} still know of it"
            assert await etcd.get(keys.moved_process(uniq.decode())) is None, "its key is there"
            assert all(parts.names.lookup(self.name) is None for parts in self.town.nodes.values()), "its name is there"
            assert not await self.copies(), "it runs"
            return True

        async def gone_now() -> Any:
            try:
                return await gone()
            except AssertionError as error:
                self.why = str(error)
                return False

        try:
            await eventually(gone_now, "nothing is left of it", within=8)
        except AssertionError:
            states = {name: parts.moving._table.get(uniq) for name, parts in self.town.nodes.items()}
            raise AssertionError(f"{self.why}: {states}") from None
        for name in self.witnesses:

            async def heard(name: str = name) -> Any:
                return await self.town.call(name, self.witnesses[name], "heard")

            exits = await eventually(heard, f"the watcher on {name} hears of the end")
            assert [one["from"] for one in exits] == [self.pid], f"the watcher on {name} heard {exits}"

    async def _check_peer(self) -> None:
        """What it sent arrived in its order, from whichever node."""
        told = await self.tally(self.peer)
        wrong = [one for one in told["wrong"] if not self.may_lose or one["got"] <= one["expected"]]
        assert wrong == [], f"of the process: {wrong[:5]}"


def _is_undecided(moved: Moved | None) -> bool:
    core = moved.core if moved is not None else None
    return core is not None and (core.departure is not None or (core.arrival is not None and core.arrival.has_parcel))
