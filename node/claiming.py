"""The claims of this node's services in etcd: asked for, told where the replica runs, given back.

Everything here is tried again until etcd took it or it is not wanted any more; the decisions
are the supervisor's. A claim that was given back stays in view until the watch has caught up:
``released`` keeps it from being used meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from cluster.claims import Claim, Claims, ClaimState
from cluster.errors import ClusterError
from cluster.tasks import Tasks

log = structlog.get_logger("wippy.supervisor")

POLL = 0.1
RETRY = 1.0
"""Seconds until something etcd did not take is asked for again."""
RELEASE_DEADLINE = 3.0
Key = tuple[str, int]


@dataclass
class Held:
    """A claim as a replica uses it, and what is still to be written beside it."""

    claim: Claim
    untold: ClaimState | None = None
    telling: bool = False
    over: bool = False
    """The replica is not here any more."""


class Claiming:
    """``wake`` is called when something came of it."""

    def __init__(self, claims: Claims, tasks: Tasks, wake: Callable[[], None]) -> None:
        self._claims = claims
        self._tasks = tasks
        self._wake = wake
        self.asked: set[Key] = set()
        """Claims that are being asked for."""
        self.released: set[int] = set()
        self._refused: set[Key] = set()

    def ask(self, key: Key, lease: Callable[[], int]) -> None:
        self.asked.add(key)
        self._tasks.start(self._ask(key, lease), f"claim {key[0]}/{key[1]}")

    async def _ask(self, key: Key, lease: Callable[[], int]) -> None:
        try:
            token = await self._claims.claim(*key, lease())
            self._refused.discard(key)
            if token is None:
                await asyncio.sleep(POLL)  # another has it; the watch is about to say so
        except ClusterError as error:
            if key not in self._refused:
                log.warning("claim failed; tried again", service=key[0], replica=key[1], error=str(error))
            self._refused.add(key)
            await asyncio.sleep(RETRY)
        finally:
            self.asked.discard(key)
            self._wake()

    def tell(self, key: Key, held: Held, state: ClaimState) -> None:
        """Write where the replica runs beside its claim, the newest last."""
        held.untold = state
        if not held.telling:
            held.telling = True
            self._tasks.start(self._tell(key, held), f"state of {key}")

    async def _tell(self, key: Key, held: Held) -> None:
        """Until etcd has it or the claim is gone."""
        said = False
        try:
            while held.untold is not None and not held.over:
                state, claim, held.untold = held.untold, held.claim, None
                try:
                    await self._claims.write_state(*key, claim.token, claim.lease, state)
                except ClusterError as error:
                    if not said:
                        log.warning("state of a service is not written yet", service=key[0], error=str(error))
                    said = True
                    held.untold = held.untold or state
                    await asyncio.sleep(RETRY)
        finally:
            held.telling = False

    def drop(self, key: Key, token: int) -> None:
        """Give back a claim that nothing here uses."""
        if token not in self.released:
            self._tasks.start(self.release(key, token), f"release {key[0]}/{key[1]}")
            self.released.add(token)

    async def release(self, key: Key, token: int) -> None:
        """Give a claim back."""
        self.released.add(token)
        try:
            async with asyncio.timeout(RELEASE_DEADLINE):
                await self._claims.release(*key, token)
        except (ClusterError, TimeoutError) as error:
            log.warning("claim is not released yet", service=key[0], replica=key[1], error=str(error) or "timeout")
            await asyncio.sleep(RETRY)
            held = self._claims.get(*key)
            if held is not None and held.token == token:
                self.released.discard(token)
            self._wake()
