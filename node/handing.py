"""Processes of services that move to another node, or come from one, and their claims with them.

A claim travels in the transaction that moves its process. Until it is known who won, the node they leave does
nothing to the process, whatever becomes of its service or the lease meanwhile, and looks again when it stays; a
process that is frozen does nothing, so nothing of it has to end with the lease. The node they go to starts nothing
under a claim that turns up before it knows.

The value of a claim is its node, so the target writes what the commit puts: ``adapt``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import structlog

from cluster.claims import Claim, Claims, ClaimState, parse
from cluster.envelope import Kind
from cluster.keys import Keys
from cluster.migration.belongings import CannotMove
from cluster.migration.items import Holding
from cluster.placement import Mode
from node.claiming import Key
from node.ports import Ports
from node.replicas import Lease, Replicas, Run
from node.suiting import Suiting
from node.wanted import Wanted

log = structlog.get_logger("wippy.supervisor")


class Handing:
    """The claims of processes that move: a ``cluster.migration.belongings.Belongings``.

    ``wanted`` are the services that are to run; ``look`` decides anew about a replica nothing was done to for a while.
    """

    def __init__(
        self,
        node: str,
        incarnation: int,
        keys: Keys,
        ports: Ports,
        claims: Claims,
        lease: Lease,
        replicas: Replicas,
        wanted: Callable[[], Mapping[str, Wanted]],
        suiting: Suiting,
        look: Callable[[Key], None],
        announce: Callable[[str, str], None],
    ) -> None:
        self._node = node
        self._incarnation = incarnation
        self._keys = keys
        self._ports = ports
        self._claims = claims
        self._lease = lease
        self._replicas = replicas
        self._wanted = wanted
        self._suiting = suiting
        self._look = look
        self._announce = announce
        self._expected: dict[Key, bytes] = {}

    def expects(self, key: Key) -> bool:
        """Whether a claim of this node may be that of a process which is about to come: nothing starts under it."""
        return key in self._expected

    def keeper_of(self, pid: str) -> bytes:
        """The port that keeps the process, if it is one of a service here."""
        found = self._replicas.find(pid.encode())
        return found[1].replica.keeper if found is not None else b""

    # -- where the process is

    def check(self, pid: str) -> None:
        found = self._replicas.find(pid.encode())
        if found is not None:
            self._check(*found)

    def _check(self, key: Key, run: Run) -> Claim:
        if run.wanted.mode is Mode.EVERY_NODE:
            raise CannotMove(f"service {key[0]} runs on every node")
        if not run.wanted.movable:
            kind = run.wanted.entry.kind
            raise CannotMove(f"{key[0]} is a {kind}: it is started again elsewhere, with its children")
        if key in self._replicas.stopping or not run.replica.runs:
            raise CannotMove(f"service {key[0]} is being started or stopped; try again when it runs")
        if run.held is not None and run.held.fence is not None:
            raise CannotMove(f"service {key[0]} is being handed over")
        held = self._claims.get(*key)
        claim = run.claim
        if claim is None or held is None or held.token != claim.token or claim.lease != self._lease.current():
            raise CannotMove(f"the claim of service {key[0]} is in doubt; try again when etcd answers")
        return held

    def pack(self, pid: str) -> Sequence[Holding]:
        found = self._replicas.find(pid.encode())
        if found is None:
            return ()
        key, run = found
        claim = self._check(key, run)
        said = claim.state is not None and claim.state.pid == pid
        if not said or run.held is None or run.held.telling:
            raise CannotMove(f"where service {key[0]} runs is being written to etcd; try again")
        self._replicas.frozen[key] = asyncio.Event()
        return self._claims.holdings(*key)

    def stays(self, pid: str) -> None:
        found = self._replicas.find(pid.encode())
        if found is not None:
            self._replicas.frozen.pop(found[0]).set()
            self._look_soon(found[0])

    def left(self, pid: str) -> None:
        found = self._replicas.find(pid.encode())
        if found is not None:
            self._detach(*found)
            log.info("service moved away", service=found[0][0], replica=found[0][1], pid=pid)

    def _detach(self, key: Key, run: Run) -> None:
        del self._replicas.running[key]
        self._replicas.frozen.pop(key).set()
        if run.held is not None:
            run.held.over = True
            self._replicas.claiming.released.add(run.held.claim.token)  # the view may show it a while longer
        self._replicas.beside(run.replica.leave(), f"leave {key}")
        self._announce("service.move", key[0])
        self._look_soon(key)

    # -- where it goes

    def refusal(self, pid: str, keys: Sequence[str]) -> str:
        return next(filter(None, (self.refusal_of(key) for key in self._replicas_in(keys))), "")

    def refusal_of(self, key: Key) -> str:
        """Why this node can't have the replica now; empty when it can."""
        if key in self._replicas.running:
            return f"node {self._node} runs replica {key[1]} of service {key[0]}"
        return self._suiting.refusal(key)

    def adapt(self, pid: str, holdings: Sequence[Holding]) -> Sequence[Holding]:
        return [self._adapted(holding) for holding in holdings]

    def _adapted(self, holding: Holding) -> Holding:
        if not holding.key.startswith(self._keys.services):
            return holding
        if not parse(holding.key.removeprefix(self._keys.services))[2]:
            return replace(holding, value=self._node.encode("utf-8", "surrogateescape"))
        state = ClaimState.from_json(holding.value)
        return replace(holding, value=replace(state, node=self._node, incarnation=self._incarnation).to_json())

    def expect(self, pid: str, holdings: Sequence[Holding]) -> None:
        for key in self._replicas_in([held.key for held in holdings]):
            self._expected[key] = pid.encode()

    def arrived(self, pid: str, holdings: Sequence[Holding], revision: int, lease: int) -> None:
        for key in self._forget(pid):
            wanted = self._wanted().get(key[0])
            claim = Claim(*key, self._node, revision, lease)
            if wanted is None or not wanted.movable:
                self._end(pid.encode(), claim)
                continue
            run = self._replicas.make(key, wanted, claim)
            run.said = pid.encode()
            run.replica.adopt(run.said, _since(holdings))
            self._announce("service.move", key[0])
            log.info("service moved here", service=key[0], replica=key[1], pid=pid, claim=revision)
            self._look_soon(key)

    def _end(self, pid: bytes, claim: Claim) -> None:
        """What came is not to run any more: it ends, and may do nothing until then."""
        self._replicas.disown(pid, (claim.service, claim.replica), claim.token)
        self._soon(lambda: self._ports.route([int(Kind.TERMINATE), pid, b"", 0]))

    def _look_soon(self, key: Key) -> None:
        self._soon(lambda: self._look(key))

    def _soon(self, deed: Callable[[], None]) -> None:
        """In the next turn of the loop: what the VM is about to be given in this one comes first."""

        async def do() -> None:
            deed()

        self._replicas.beside(do(), "a process that moves")

    def lost(self, pid: str, holdings: Sequence[Holding]) -> None:
        for key in self._forget(pid):
            self._look_soon(key)

    def _forget(self, pid: str) -> list[Key]:
        keys = [key for key, expected in self._expected.items() if expected == pid.encode()]
        for key in keys:
            del self._expected[key]
        return keys

    def _replicas_in(self, keys: Sequence[str]) -> list[Key]:
        """The claims among these keys."""
        named = [parse(key.removeprefix(self._keys.services)) for key in keys if key.startswith(self._keys.services)]
        return [(service, replica) for service, replica, is_state in named if not is_state]


def _since(holdings: Sequence[Holding]) -> float:
    """When the process was started, as its state says."""
    for holding in holdings:
        try:
            return datetime.fromisoformat(ClaimState.from_json(holding.value).since).timestamp()
        except ValueError:
            continue
    return time.time()
