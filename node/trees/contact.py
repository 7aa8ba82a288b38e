"""What is certain of a node that could not be reached: nothing that was to end there lives any more.

A link that closes makes the kernels of both sides end what they hold for the other; only the other
can tell when it has. So it is asked until it answers, which it does when it has seen the same
revision of etcd, its kernels have done all they were told before, and the supervisors that are killed
there are gone: those of one parent, where that asks. It must not wait for others then, for they may
wait for the asker's node in turn. Or its registration is over, with which everything there that
belongs to others ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from cluster.envelope import Kind
from cluster.errors import CallTimeout
from cluster.members import Members
from cluster.pid import host_address
from node.ports import Ports, Refused

log = structlog.get_logger("wippy.trees")

HOST = "node:supervisor"
SETTLED = b"settled"
ABANDON = b"abandon"
ANSWER, PAUSE, SAY = 5.0, 0.5, 5.0


class Contact:
    """Asks other nodes, and answers them.

    ``applied`` waits for a revision, ``at_rest`` until nothing of a parent is ending here, or nothing at all.
    """

    def __init__(
        self,
        ports: Ports,
        members: Members,
        applied: Callable[[int, float], Awaitable[None]],
        at_rest: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._ports = ports
        self._members = members
        self._applied = applied
        self._at_rest = at_rest

    def is_registered(self, node: str, epoch: int) -> bool:
        member = self._members.get(node)
        return member is not None and member.epoch == epoch

    async def certain(self, node: str, epoch: int, revision: int, waiting: str, parent: bytes = b"") -> bool:
        """Wait until it is certain, of the children of ``parent`` or of all there; whether the node answered. False:
        its registration is over."""
        since = said = asyncio.get_running_loop().time()
        while self.is_registered(node, epoch):
            port = self._ports.open(HOST)
            try:
                await port.request(
                    Kind.CALL, host_address(node, HOST).encode(), SETTLED, [revision, parent], {}, timeout=ANSWER
                )
                return True
            except (Refused, CallTimeout) as error:
                reason = str(error)
            finally:
                port.close()
            now = asyncio.get_running_loop().time()
            if now - said >= SAY:
                said = now
                log.warning(
                    "what ran on a node may live on; it is waited for",
                    supervisor=waiting,
                    peer=node,
                    seconds=round(now - since),
                    reason=reason,
                )
            await asyncio.sleep(PAUSE)
        return False

    async def settled(self, revision: int, parent: bytes) -> None:
        """Another node asks. Raises CallTimeout or TimeoutError when it can't be told in time."""
        await self._applied(revision, ANSWER - 1)
        await self._at_rest(parent)
