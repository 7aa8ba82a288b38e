"""The services of a node: which replicas run here, and that they keep running.

``placement: every_node`` runs on each node without a claim. In the mode ``cluster`` the pure
placement core says which replicas this node should claim now; a replica starts only after its
claim is confirmed, and the claim is given back only after its process has ended (fencing rule
F5). While the node can't renew its lease, owned replicas are cancelled and then killed (F3);
when the same lease answers again, those whose claim is unchanged start in place. A replica
whose claim is gone or another's is killed at once. One that can't be made to run here is given
away for ``AVOID`` seconds when another node may take it; with no other it stays, failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping

import structlog

from cluster.avoids import Avoids
from cluster.claims import Claim, Claims
from cluster.heirs import Heirs
from cluster.keys import Keys
from cluster.members import Members
from cluster.placement import Barred, DropClaim, MakeClaim, Mode, Placement
from cluster.quarantine import Quarantine
from cluster.registry import Entry
from node.barring import Barring
from node.claiming import POLL, Key
from node.declared import Declared
from node.handing import Handing
from node.handover import Handover
from node.inheriting import Inheriting, Names
from node.kept import Make
from node.ports import Ports
from node.replica import Replica
from node.replicas import Lease, Replicas, Run
from node.roster import Roster
from node.rows import Nowhere
from node.suiting import Suiting
from node.trees import Root
from node.wanted import StillStopping, Wanted, in_levels

log = structlog.get_logger("wippy.supervisor")

KINDS: Mapping[str, Make] = {"process.service": Replica, "process.supervisor": Root}
"""What is placed and claimed, by kind of entry, and what keeps one of it."""
AVOID = 600.0
"""Seconds for which a node takes no replica of a service it could not start."""
PAUSE, SHORTEST_PAUSE, LONGEST_PAUSE = 0.00005, 0.005, 0.25
"""Seconds of pause after a look at all services, for each of them: several times what the look takes."""
END_DEADLINE = 45.0
"""Seconds a change of a service waits for its former processes to end; then it is said, and waited for again."""


class Supervisor:
    """Handler of ``KINDS``. ``run`` is its task; ``stop`` ends all replicas in order."""

    name = "services"

    def __init__(
        self,
        node: str,
        incarnation: int,
        ports: Ports,
        claims: Claims,
        avoids: Avoids,
        quarantine: Quarantine,
        members: Members,
        keys: Keys,
        lease: Lease,
        env: Callable[[str], str | None],
        announce: Callable[[str, str], None],
        heirs: Heirs,
        names: Names,
        stragglers: Callable[[int, float], Awaitable[bool]],
        expected: int = 1,
    ) -> None:
        self._node = node
        self._claims = claims
        self._members = members
        self._lease = lease
        self._placement = Placement(node, expected=expected)
        self._declared = Declared(env, lambda wanted: self._replicas.runs(wanted))
        self._announce = announce
        self._replicas = Replicas(
            node, incarnation, KINDS, ports, claims, keys, lease, announce, self._declared.requirements,
            self._declared.look_again, self._wake, names.names_of,
        )  # fmt: skip
        self._barring = Barring(avoids, quarantine, self.knows, self._replicas.once)
        self.release = self._barring.release
        self._suiting = Suiting(node, members, claims, self._barring, lambda: self._wanted)
        nowhere = Nowhere(claims, members, avoids, quarantine)
        self._roster = roster = Roster(self._replicas, self._declared, nowhere, self._suiting)
        self.stats, self.counts, self.services_here = roster.stats, roster.counts, roster.here
        self.kept_by = roster.kept_by
        self.handing = Handing(
            node, incarnation, keys, ports, claims, lease, self._replicas, lambda: self._wanted, self._suiting,
            self._look, announce,
        )  # fmt: skip
        """What moves from here or comes here with its claim."""
        self.inheriting = Inheriting(
            node, heirs, claims, keys, lease, names, self._replicas, lambda: self._wanted, self._refusal, announce
        )
        """What is started here before its node has stopped it."""
        self._handover = Handover(heirs, claims, keys, lease, self._replicas, self._suiting.successors, stragglers)
        self.hand_over, self.yields = self._handover.give, self._handover.yields
        self.is_handed_on = self._handover.is_handed_on
        self._running = self._replicas.running
        self._stopping = self._replicas.stopping
        self._retire = self._replicas.retire
        self.fence_of, self.may_act = self._replicas.fence_of, self._replicas.may_act
        self.name_revoked = self._replicas.name_revoked
        self.owns = self._replicas.owns
        self._changed = asyncio.Event()
        self._progress = asyncio.Event()
        self._open = False
        self._in_doubt = False
        claims.on_change(self._claim_changed)
        avoids.on_change(self._wake)
        quarantine.on_change(self._wake)
        members.on_change(lambda before, after: self._wake())

    def handles(self, kind: str) -> bool:
        return kind in KINDS

    async def put(self, entry: Entry) -> None:
        """Run the service as ``entry`` says; returns when no former process of it is left. Raises Invalid."""
        former, wanted = self._declared.put(entry)
        if wanted is not former:
            self._announce("service.register" if former is None else "service.update", entry.id)
            self._barring.take_again(entry.id)
            self._wake()
        await self._former_ended(entry.id)

    async def remove(self, id: str) -> None:
        """Stop the service's replicas here; returns when they have ended."""
        if self._declared.remove(id):
            self._announce("service.remove", id)
            self._wake()
        await self._former_ended(id)

    async def _former_ended(self, service: str) -> None:
        """Wait until no replica runs that is not to run, or not like this."""
        try:
            async with asyncio.timeout(END_DEADLINE):
                while self._open and self._former(service):
                    await self._progress.wait()
        except TimeoutError:
            pids = [run.replica.pid.decode() for run in self._former(service) if run.replica.pid]
            raise StillStopping(service, pids) from None

    def wants(self, service: str) -> bool:
        """Whether the registry says that the service is to run."""
        return service in self._wanted

    def knows(self, service: str) -> bool:
        """Whether the registry has the service, to run or not."""
        return service in self._declared

    @property
    def _wanted(self) -> Mapping[str, Wanted]:
        return self._declared.to_run

    def _former(self, service: str) -> list[Run]:
        return [
            run
            for key, run in self._replicas.of(service)
            if key in self._stopping or not self._suits(self._wanted.get(service), key, run)
        ]

    @staticmethod
    def _suits(wanted: Wanted | None, key: Key, run: Run) -> bool:
        """Whether a replica is one that the service wants, perhaps kept in another way."""
        return (
            wanted is not None
            and wanted.mode is run.wanted.mode
            and wanted.has(key[1])
            and not wanted.is_other_than(run.wanted)
        )

    def code_changed(self, concerns: Callable[[str], bool]) -> None:
        """Code changed; ``concerns`` says of a process entry whether it is made of it. What failed with the former
        code is started anew at once: it may have been the reason."""
        for key, run in list(self._running.items()):
            if key not in self._stopping and run.replica.has_failed and any(map(concerns, run.wanted.spec.code)):
                self._retire(key, "its code changed", release=False)
        for service, wanted in self._wanted.items():
            if any(map(concerns, wanted.spec.code)):
                self._barring.take_again(service)

    def open(self) -> None:
        """The node is ready: replicas may be claimed and started."""
        self._open = True
        self._wake()

    async def run(self) -> None:
        """Follow the registry, the members and the claims until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            self._changed.clear()
            wake_at = self._reconcile(clock()) if self._open and not self._in_doubt else None
            # a thousand claims change one by one: to look at all of them after each would be all the node does
            if (pause := PAUSE * len(self._wanted)) > SHORTEST_PAUSE:
                await asyncio.sleep(min(pause, LONGEST_PAUSE))
            wait = None if wake_at is None else max(wake_at - clock(), 0.01)
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def settled(self, timeout: float) -> None:
        """Wait until every replica that is this node's to run was started or could not be, at most ``timeout``."""

        def tried(key: Key) -> bool:
            return key in self._running and self._running[key].replica.tried.is_set()

        try:
            async with asyncio.timeout(timeout):
                while not all(tried(key) for key in self._due()):
                    await self._progress.wait()
                    await asyncio.sleep(SHORTEST_PAUSE)  # as above: what starts together is looked at together
        except TimeoutError:
            log.warning("services did not all start", after=timeout)

    async def stop(self, reason: str) -> None:
        """Stop all replicas, dependents first, and give back their claims; at most until all must be dead."""
        self._open = False
        await self._replicas.thawed()
        for level in reversed(in_levels(self._wanted)):
            await self._replicas.all_ended([key for key in self._running if key[0] in level], reason)
        await self._replicas.all_ended(list(self._running), reason)
        await self._replicas.close()

    @property
    def guarded(self) -> Collection[bytes]:
        """Processes that run under a claim: ``may_act`` is to be asked before what they do leaves the VM."""
        return self._replicas.guarded

    def in_doubt(self) -> None:
        """The lease may end soon: start nothing owned, CANCEL what is owned."""
        self._in_doubt = True
        for key in self._replicas.owned():
            self._retire(key, "the node may lose its lease", release=False)

    def kill_owned(self) -> None:
        """The lease is about to end: nothing owned may run on."""
        for key in self._replicas.owned():
            self._retire(key, "the lease is over", release=False, kill=True)

    def _look(self, key: Key) -> None:
        """Nothing was done to this replica for a while, whatever happened: do it now."""
        run = self._running.get(key)
        if run is not None and self._in_doubt and not run.wanted.keeps:
            over = run.claim is None or not self._lease.may_run_owned(run.claim.lease)
            self._retire(key, "the node may lose its lease", release=False, kill=over)
        self._wake()

    def sure(self) -> None:
        """The lease answers again, or a new one was granted: go on."""
        self._in_doubt = False
        self._wake()

    def _due(self) -> list[Key]:
        """Replicas that are this node's to run by what it knows now."""
        single = len(self._members.ready()) <= 1
        due: list[Key] = []
        barred = self._barring.quarantined()
        for service, wanted in self._wanted.items():
            if service in barred:
                continue
            for replica in range(wanted.spec.placement.replicas):
                claim = self._claims.get(service, replica)
                mine = wanted.mode is Mode.EVERY_NODE or (single if claim is None else claim.node == self._node)
                if mine and self._suiting.eligible(wanted):
                    due.append((service, replica))
        return due

    def _reconcile(self, now: float) -> float | None:
        """Start what should run and does not, stop what should not; when to look again."""
        barred = self._barring.now(now)
        for key, run in list(self._running.items()):
            self._check(key, run, barred)
        for service, wanted in self._wanted.items():
            is_ours = wanted.mode is Mode.EVERY_NODE and not self._suiting.drains()
            if is_ours and service not in barred.quarantined and self._suiting.eligible(wanted):
                self._replicas.start((service, 0), wanted, None)
        lease = self._lease.current()
        if not self._lease.may_start_owned(lease):
            return now + POLL  # who is told of the lease's phase may be told a moment later
        for claim in self._claims.own():
            if self.handing.expects((claim.service, claim.replica)):
                continue
            if self._suiting.drains():
                if (claim.service, claim.replica) not in self._running:
                    self._replicas.claiming.drop((claim.service, claim.replica), claim.token)
                continue
            claimed = self._wanted.get(claim.service)
            if claimed is not None and self._may_use(claim, claimed, lease) and claim.service not in barred.quarantined:
                self._replicas.start((claim.service, claim.replica), claimed, claim)
        self._barring.tend()
        return self._place(now, barred)

    def _check(self, key: Key, run: Run, barred: Barred) -> None:
        """Stop a replica that is not to run here, or not like this."""
        if key in self._replicas.frozen or self.inheriting.has(key):
            return  # these are looked after by whoever has to do with them
        wanted = self._wanted.get(key[0])
        if wanted is None:
            self._retire(key, "service removed")
        elif wanted.mode is not run.wanted.mode or not wanted.has(key[1]):
            self._retire(key, "service changed")
        elif run.claim is not None and not self._holds(key, run, run.claim):
            return
        elif wanted is not run.wanted and wanted.spec != run.wanted.spec:
            self._revise(key, run, wanted)
        elif self._suiting.lacks_labels(wanted):
            self._retire(key, "the node has not its labels any more")
        elif key[0] in barred.quarantined and run.replica.has_failed:
            self._retire(key, "it is quarantined")  # to start it again would be a start like any other
        elif run.claim is not None and run.replica.struggles and key not in self._stopping:
            self._maybe_give_away(key, wanted, barred)

    def _maybe_give_away(self, key: Key, wanted: Wanted, barred: Barred) -> None:
        """Let another node try what can't be made to run here. Where there is none it stays, and says why it failed."""
        if self._suiting.others(wanted, barred):
            log.warning("a service can't be made to run here; other nodes may take it", service=key[0], replica=key[1])
            self._retire(key, "it does not run here", avoid=AVOID)

    def _revise(self, key: Key, run: Run, wanted: Wanted) -> None:
        """Give a replica what its service says now: in place, or by another process where it must be another."""
        if self._suiting.lacks_labels(wanted):
            self._retire(key, "service changed")
        elif wanted.is_other_than(run.wanted) or run.replica.finished.is_set():
            self._retire(key, "service changed", release=False)  # the claim stays where the service stays
        elif key not in self._stopping:
            self._replicas.revise(key, run, wanted)

    def _holds(self, key: Key, run: Run, claim: Claim) -> bool:
        """Whether a replica's claim is still its own; what to do when not."""
        held = self._claims.get(*key)
        if held is not None and held.token == claim.token and claim.lease == self._lease.current():
            return True
        if self._claims.applied < claim.token:
            return True  # it came with its process, and the view is not as far yet
        if self._handover.is_passed_on(key, held):
            return False  # what was on its way to it has some time to arrive, then it is stopped
        if not run.wanted.keeps:
            self._retire(key, "its claim is lost", release=False, kill=True)
        elif held is not None and held.node != self._node:
            self._retire(key, f"node {held.node} runs it now", release=False)
        elif held is not None and held.lease == self._lease.current():
            self._replicas.rebind(key, run, held)
            return True
        return False

    def _may_use(self, claim: Claim, wanted: Wanted, lease: int) -> bool:
        return (
            wanted.mode is Mode.CLUSTER
            and wanted.has(claim.replica)
            and claim.lease == lease
            and not self._suiting.lacks_labels(wanted)
            and claim.token not in self._replicas.claiming.released
        )

    def _place(self, now: float, barred: Barred) -> float | None:
        services = [wanted.service for wanted in self._wanted.values()]
        asked = frozenset(self._replicas.claiming.asked)
        plan = self._placement.decide(services, self._members.all(), self._claims.all(), now, asked, barred)
        for action in plan.actions:
            match action:
                case MakeClaim(service, replica):
                    self._replicas.claiming.ask((service, replica), self._lease.current)
                case DropClaim(service, replica, token):
                    if (service, replica) not in self._running and not self.handing.expects((service, replica)):
                        self._replicas.claiming.drop((service, replica), token)
        self._roster.plan = plan
        return plan.wake_at

    def _refusal(self, key: Key) -> str:
        """Why nothing can be taken over from another node."""
        if not self._open or self._in_doubt:
            return f"node {self._node} is not ready"
        return self.handing.refusal_of(key)

    def _claim_changed(self, before: Claim | None, after: Claim | None) -> None:
        if before is not None and after is None:
            self._replicas.claiming.released.discard(before.token)
        elif after is not None:
            self._replicas.state_shown(after)
            if after.state is not None:
                self._declared.look_again(after.service)
        self._wake()

    def _wake(self) -> None:
        """Something changed: decide anew, and let those look who wait for others to run."""
        self._changed.set()
        self._progress.set()
        self._progress = asyncio.Event()
