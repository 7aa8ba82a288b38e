"""The supervisors of this node, as a host of its own: ``node:supervisor``.

A SPAWN to it starts the supervisor an entry describes; a CALL to a supervisor's PID is a command for
it. When their entry changes they converge to it. What they own here ends with the lease their claim
is under: they are asked before what comes out of their children leaves the node.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import structlog

from cluster.envelope import Envelope, Kind, Status, Watch, error_map
from cluster.errors import CallTimeout, Invalid
from cluster.members import Members
from cluster.pid import node_of
from cluster.tasks import Tasks
from node.inhabitants import Overseen
from node.ports import Ports
from node.trees.children import World
from node.trees.commands import Commands
from node.trees.contact import ABANDON, SETTLED, Contact
from node.trees.contact import HOST as HOST
from node.trees.definition import SUPERVISOR, Definitions
from node.trees.guard import Guard
from node.trees.overseer import Overseer

log = structlog.get_logger("wippy.trees")


class Trees:
    """All supervisors that live here. ``barrier`` waits until every VM has done what it was given before."""

    host_id = HOST

    def __init__(
        self,
        node: str,
        ports: Ports,
        members: Members,
        definitions: Definitions,
        guard: Guard,
        *,
        applied: Callable[[int, float], Awaitable[None]],
        barrier: Callable[[], Awaitable[None]],
        in_doubt: Callable[[], bool],
        refuse: Callable[[Envelope, Status, dict[bytes, object], str], None],
    ) -> None:
        self._ports = ports
        self._definitions = definitions
        self._guard = guard
        self._commands = Commands(definitions)
        self._barrier = barrier
        self._refuse = refuse
        self._contact = Contact(ports, members, applied, self._at_rest)
        self._world = World(node, ports, members, self._contact, in_doubt, self._born, guard.gone, refuse)
        self._overseers: dict[bytes, Overseer] = {}
        self._tasks = Tasks("supervisors")
        self._stopping = ""
        self._ended = asyncio.Event()
        guard.end_foreign = self.end_foreign
        members.on_change(lambda before, after: self._members_changed())

    def post(self, item: Envelope) -> None:
        """A SPAWN or a CALL for this host."""
        if item[0] == Kind.SPAWN:
            self._spawn(item)
        elif item[4] == SETTLED:
            self._tasks.start(self._answer_settled(item), "settled")
        elif item[4] == ABANDON:
            self._abandon(item)
        else:
            self._command(item)

    def _spawn(self, envelope: Envelope) -> None:
        _, _, parent, _, entry, _, options = envelope
        id = entry.decode("utf-8", "replace") if isinstance(entry, bytes) else ""
        asked = options if isinstance(options, dict) else {}
        is_owned = bool(asked.get(b"owner"))
        unfit = self._stopping
        if is_owned and self._is_elsewhere(parent) and self._world.in_doubt():
            unfit = f"node {self._world.node} starts nothing for others now: its lease may be over"
        if unfit:
            refusal = error_map("Unavailable", unfit, retryable=True, details={b"not_now": True})
            self._answer(envelope, Status.ERROR, refusal)
            return
        try:
            definition = self._definitions.of(id)
        except Invalid as error:
            self._answer(envelope, Status.ERROR, error_map("Invalid", f"can't supervise by {id!r}: {error}"))
            return

        def begun(error: dict[bytes, Any] | None) -> None:
            if is_owned and error is None:
                self._answer(envelope, Status.OK, overseer.pid)
            elif is_owned:
                self._answer(envelope, Status.ERROR, error)

        overseer = Overseer(self._world, id, definition, parent, is_owned=is_owned, begun=begun, over=self._is_over)
        self._overseers[overseer.pid] = overseer
        for option, watch in ((b"monitor", Watch.MONITOR), (b"link", Watch.LINK)):
            if asked.get(option):
                overseer.watchers.add(watch, parent)
        if not is_owned:
            self._answer(envelope, Status.OK, overseer.pid)
        revision = asked.get(b"revision")
        overseer.start(revision if isinstance(revision, int) else self._world.members.applied)

    def _is_over(self, overseer: Overseer) -> None:
        self._overseers.pop(overseer.pid, None)
        self._ended.set()
        self._ended = asyncio.Event()
        self._tasks.start(overseer.close(), "close")

    def _command(self, envelope: Envelope) -> None:
        _, to, _, _, name, arguments, _ = envelope
        overseer = self._overseers.get(to)
        if overseer is None:
            message = f"no supervisor {to.decode('utf-8', 'replace')}: it ended or never was"
            self._answer(envelope, Status.NOPROC, error_map("NotFound", message, retryable=False))
            return
        known = name.decode("utf-8", "replace") if isinstance(name, bytes) else ""
        given = arguments if isinstance(arguments, list) else []
        self._commands.run(overseer, known, given, lambda status, value: self._answer(envelope, status, value))

    def _answer(self, envelope: Envelope, status: Status, value: Any) -> None:
        if envelope[3]:
            self._ports.route([int(Kind.REPLY), envelope[2], envelope[1], envelope[3], int(status), value])

    def _abandon(self, envelope: Envelope) -> None:
        """A supervisor that ends waits for no supervisor it has asked for and that has not started yet."""
        kills = envelope[5] == [True]
        for overseer in list(self._overseers.values()):
            if overseer.parent == envelope[2] and not overseer.has_begun:
                overseer.kill() if kills else overseer.end()

    def _is_elsewhere(self, pid: bytes) -> bool:
        return node_of(pid) != self._world.node.encode()

    def end_foreign(self) -> None:
        """The lease of this node may be over: who owns supervisors here from elsewhere takes them for ended then."""
        for overseer in list(self._overseers.values()):
            if overseer.is_owned and self._is_elsewhere(overseer.parent):
                overseer.kill()

    async def _answer_settled(self, envelope: Envelope) -> None:
        """Another node wants to know that nothing lives here any more that was to end."""
        match envelope[5]:
            case [int(revision), bytes(parent)]:
                pass
            case told:
                message = f"expected a revision and a PID, got {told!r}"
                self._answer(envelope, Status.ERROR, error_map("Invalid", message, retryable=False))
                return
        try:
            await self._contact.settled(revision, parent)
        except (CallTimeout, TimeoutError) as error:
            text = f"not settled yet: {error or 'a host does not answer'}"
            self._answer(envelope, Status.ERROR, error_map("Unavailable", text, retryable=True))
            return
        self._answer(envelope, Status.OK, True)

    async def _at_rest(self, parent: bytes) -> None:
        """Until the supervisors that are being killed are gone, those of ``parent`` or all, and the VMs have ended what
        they were told to."""
        async with asyncio.timeout(4):
            while any(one.is_being_killed and (not parent or one.parent == parent) for one in self._overseers.values()):
                await self._ended.wait()
            await self._barrier()

    def _members_changed(self) -> None:
        for overseer in list(self._overseers.values()):
            overseer.members_changed()

    def entries_changed(self, ids: Iterable[str]) -> None:
        """These entries changed: supervisors that were started from them become what they say now."""
        changed = set(ids)
        for overseer in [one for one in self._overseers.values() if one.entry in changed]:
            try:
                definition = self._definitions.of(overseer.entry)
            except Invalid as error:
                log.warning("supervisor goes on as it was", entry=overseer.entry, error=str(error))
                continue
            if definition != overseer.definition:
                overseer.change(definition)

    async def stop(self, reason: str, grace: float) -> None:
        """The node stops: end all supervisors in order; at most ``grace`` seconds."""
        self._stopping = f"node {self._world.node} is stopping: {reason}"
        for overseer in list(self._overseers.values()):
            overseer.end()
        try:
            async with asyncio.timeout(grace):
                while self._overseers:
                    await self._ended.wait()
        except TimeoutError:
            log.warning("supervisors do not end", entries=sorted(one.entry for one in self._overseers.values()))

    async def close(self) -> None:
        self._stopping = self._stopping or f"node {self._world.node} is stopping"
        for overseer in list(self._overseers.values()):
            await overseer.close()
        await self._tasks.close()

    def _born(self, supervisor: bytes, pid: bytes) -> None:
        """Tell the guard at the top of which tree on this node the process is."""
        self._guard.born(pid, self._top(supervisor))

    def _top(self, supervisor: bytes) -> bytes:
        """The supervisor at the top of the tree, as far as that is on this node."""
        top = supervisor
        while (overseer := self._overseers.get(top)) is not None and overseer.parent in self._overseers:
            top = overseer.parent
        return top

    def inspect(self, pid: str) -> dict[str, Any] | None:
        """What is known of one supervisor here, its children counted by their states; None when it is none."""
        overseer = self._overseers.get(pid.encode("utf-8", "surrogateescape"))
        if overseer is None:
            return None
        row, *children = overseer.shown()
        counts = Counter(child["state"] for child in children)
        return {**row, "kind": SUPERVISOR, "host": HOST, "children": dict(sorted(counts.items()))}

    def overseen(self) -> list[Overseen]:
        """The supervisors here."""

        def told(pid: bytes, one: Overseer) -> Overseen:
            parent, top = one.parent.decode("utf-8", "replace"), self._top(pid).decode()
            return Overseen(pid.decode(), one.entry, parent, one.is_owned, top)

        return [told(pid, one) for pid, one in self._overseers.items()]

    def shown(self) -> list[dict[str, Any]]:
        """All supervisors here and their children."""
        return [row for overseer in self._overseers.values() for row in overseer.shown()]
