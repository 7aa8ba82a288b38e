"""Giving replicas to other nodes: the owner's side of ``lifecycle.handover``.

``stop-first``: the process ends, its names are free, the claim is given back, and the node that is first in rank
claims it at once. ``start-first``: another node is named the heir; the process here goes on until that one has taken
the claim and the names over and all that was sent to it by them has come, and only then is asked to end. When no heir
takes it in time, the wish is taken back and it goes the other way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from cluster.claims import Claim, Claims
from cluster.errors import ClusterError
from cluster.heirs import Heir, Heirs
from cluster.keys import Keys
from cluster.placement import Mode
from node.claiming import RETRY, Key
from node.replicas import Lease, Replicas, Run

log = structlog.get_logger("wippy.supervisor")

POLL = 0.02
NOTICE = 3.0
"""Seconds in which an heir must have begun."""
STRAGGLERS = 3.0
"""Seconds that messages by a name which has changed hands may take to arrive."""
SETTLE = 0.2
"""Seconds in which what a process was writing is written."""


class Handover:
    """``successors`` are the nodes that may take a replica, best first; ``stragglers`` waits, at most so many seconds,
    until all has arrived that was sent before a revision was seen."""

    def __init__(
        self,
        heirs: Heirs,
        claims: Claims,
        keys: Keys,
        lease: Lease,
        replicas: Replicas,
        successors: Callable[[Key], Sequence[str]],
        stragglers: Callable[[int, float], Awaitable[bool]],
    ) -> None:
        self._heirs = heirs
        self._claims = claims
        self._keys = keys
        self._lease = lease
        self._replicas = replicas
        self._successors = successors
        self._stragglers = stragglers
        self._named: dict[Key, Heir] = {}

    def is_passed_on(self, key: Key, held: Claim | None) -> bool:
        """Whether the claim went to the heir this node has named."""
        heir = self._named.get(key)
        return heir is not None and held is not None and held.node == heir.node and held.token > heir.token

    def yields(self, pid: bytes) -> bool:
        """Whether the process is to lose its names to an heir: no loss it is to be told of."""
        found = self._replicas.find(pid)
        return found is not None and found[0] in self._named

    def is_handed_on(self, pid: bytes, revision: int) -> bool:
        """Whether the process had the names until its heir got them, with the claim, at this revision."""
        found = self._replicas.find(pid)
        held = self._claims.get(*found[0]) if found is not None else None
        return held is not None and held.token == revision and self.is_passed_on((held.service, held.replica), held)

    async def give(self, service: str, replica: int, within: float) -> str:
        """Give a replica away; why it is still here, empty when it is not."""
        key, deadline = (service, replica), _now() + within
        run = self._replicas.running.get(key)
        if run is not None and self._starts_first(key, run):
            problem = await self._start_first(key, run, deadline)
            if problem:
                log.warning("a service stops before another node starts it", service=service, reason=problem)
        if run is not None and self._replicas.running.get(key) is run and key not in self._named:
            self._replicas.retire(key, "it is handed over")
        while True:
            if self._replicas.running.get(key) is not run or run is None:
                return ""
            if _now() >= deadline:
                return f"service {service} has not stopped within {within:.1f} s"
            await asyncio.sleep(POLL)

    def _starts_first(self, key: Key, run: Run) -> bool:
        is_asked = run.wanted.spec.lifecycle.handover == "start-first" and run.wanted.mode is Mode.CLUSTER
        is_free = key not in self._named and key not in self._replicas.stopping and key not in self._replicas.frozen
        is_held = run.claim is not None and run.claim.lease == self._lease.current()
        return is_asked and is_free and is_held and run.replica.runs

    async def _start_first(self, key: Key, run: Run, deadline: float) -> str:
        """Let another node start it and take the claim; why that did not come about, empty when it did."""
        nodes = self._successors(key)
        if not nodes:
            return "no other node may take it"
        try:
            token = await self._heirs.name(*key, nodes[0], self._lease.current())
        except ClusterError as error:
            return str(error)
        heir = self._named[key] = Heir(*key, nodes[0], token)
        self._replicas.refence(key, run, (self._keys.heir(*key), token))
        problem = "it was called off"
        try:
            problem = await self._taken(key, run, heir, deadline)
        finally:
            self._replicas.beside(self._conclude(key, run, heir, bool(problem)), f"end of the hand-over of {key}")
        while True:  # the heir may have taken it in the last moment
            if not problem or self._named.get(key) is not heir or _now() > deadline:
                break
            await asyncio.sleep(POLL)
        return "" if self.is_passed_on(key, self._claims.get(*key)) else problem

    async def _taken(self, key: Key, run: Run, heir: Heir, deadline: float) -> str:
        began = _now()
        patience = run.wanted.spec.lifecycle.start_timeout.total_seconds() * 2 + NOTICE
        has_begun = False
        while True:
            held = self._claims.get(*key)
            if self.is_passed_on(key, held):
                return ""
            if self._replicas.running.get(key) is not run or held is None or key in self._replicas.stopping:
                return "it has ended, or its claim has"
            is_there = self._heirs.has_begun(*key)
            if has_begun and not is_there:
                return f"node {heir.node} could not start it"
            if not is_there and _now() - began > NOTICE:
                return f"node {heir.node} does not start it"
            if _now() > min(deadline, began + patience):
                return f"node {heir.node} has not taken it over in time"
            has_begun = is_there
            await asyncio.sleep(POLL)

    async def _conclude(self, key: Key, run: Run, heir: Heir, is_over: bool) -> None:
        """Take the wish back; or end the process here, and then delete the wish, which fences it."""
        if is_over:
            self._replicas.refence(key, run, None)
            await asyncio.sleep(SETTLE)  # what is being written is compared with the wish
            await self._withdraw(heir)
            if not self.is_passed_on(key, self._claims.get(*key)):
                del self._named[key]
                return
            self._replicas.refence(key, run, (self._keys.heir(*key), heir.token))
        await self._stop(key, run, heir)
        await self._withdraw(heir)
        del self._named[key]

    async def _stop(self, key: Key, run: Run, heir: Heir) -> None:
        """The heir has it. What was sent to the process here before everybody knew comes before its end."""
        held = self._claims.get(*key)
        if held is not None and not await self._stragglers(held.token, STRAGGLERS):
            log.warning("not every node says that nothing more is on its way to a service", service=key[0])
        while True:
            if self._replicas.running.get(key) is not run:
                return
            self._replicas.retire(key, f"node {heir.node} runs it now", release=False)
            await asyncio.sleep(POLL)

    async def _withdraw(self, heir: Heir) -> None:
        """Delete the wish; returns when the view shows what etcd did until then."""
        while True:
            try:
                revision = await self._heirs.withdraw(heir.service, heir.replica, heir.token)
                await self._claims.reached(revision)
            except ClusterError as error:
                log.debug("the wish for an heir is left", service=heir.service, error=str(error))
                await asyncio.sleep(RETRY)
            else:
                return


def _now() -> float:
    return asyncio.get_running_loop().time()
