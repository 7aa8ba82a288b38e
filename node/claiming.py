"""The claims of this node's services in etcd: asked for, told where the replica runs, given back.

Everything here is tried again until etcd took it or it is not wanted any more; the decisions
are the supervisor's. A claim that is given back stays in view until the watch has caught up:
``released`` keeps it from being used meanwhile. That is so also when etcd did not answer: what
was asked for once may still come to pass, and must not find a process under the claim.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from cluster.avoids import Avoid
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
    fence: tuple[str, int] | None = None
    """Key and token its process is fenced by in the place of the claim, while the replica changes hands."""
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
            self.released.add(token)
            self._tasks.start(self._release(key, token, None, 0.0), f"release {key[0]}/{key[1]}")

    async def release(self, key: Key, token: int, avoid: Avoid | None = None) -> None:
        """Give a claim back; with ``avoid``, what keeps this node from taking the next. Returns after one try: when
        etcd did not take it, it is tried again beside everything else for as long as the claim is held."""
        self.released.add(token)
        if not await self._try_release(key, token, avoid):
            self._tasks.start(self._release(key, token, avoid, RETRY), f"release {key[0]}/{key[1]}")

    async def _release(self, key: Key, token: int, avoid: Avoid | None, after: float) -> None:
        await asyncio.sleep(after)
        said = after > 0
        while (held := self._claims.get(*key)) is not None and held.token == token:
            if await self._try_release(key, token, avoid, said):
                return
            said = True
            await asyncio.sleep(RETRY)

    async def _try_release(self, key: Key, token: int, avoid: Avoid | None, said: bool = False) -> bool:
        try:
            async with asyncio.timeout(RELEASE_DEADLINE):
                await self._claims.release(*key, token, avoid)
        except (ClusterError, TimeoutError) as error:
            if not said:
                log.warning("claim is not released yet", service=key[0], replica=key[1], error=str(error) or "timeout")
            return False
        finally:
            self._wake()
        return True
