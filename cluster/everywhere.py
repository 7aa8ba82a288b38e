"""Waiting until every node has seen something: the revision of etcd up to which their watched copies are complete.

Each registered node is asked over its control subject, again until it answers. One whose registration ends
meanwhile does not count: it serves nothing old under a name of the cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgpack

from cluster.bus import Bus
from cluster.envelope import to_text, unpack
from cluster.errors import CallTimeout, ClusterError
from cluster.members import Member, Members
from cluster.subjects import Subjects
from cluster.tasks import Tasks

SLICE = 1.0
"""Seconds a node is asked at a time; then it is seen whether it is still registered."""
SLACK = 0.5
PAUSE = 0.1


class Everywhere:
    """Asks in the name of ``node``, which is not asked itself."""

    def __init__(self, bus: Bus, subjects: Subjects, members: Members, node: str) -> None:
        self._bus = bus
        self._subjects = subjects
        self._members = members
        self._node = node

    async def __call__(self, revision: int, timeout: float, *, processes: bool = False) -> None:
        """Return when every other node that is registered now has applied ``revision``; with ``processes``, also every
        process there, and what they sent before is on its way. Raises CallTimeout."""
        waiting = {member.node: member for member in self._others()}
        try:
            async with asyncio.timeout(timeout), Tasks("everywhere") as tasks:
                asked = [
                    tasks.start(self._wait_for(member, revision, processes, waiting), member.node)
                    for member in waiting.values()
                ]
                await asyncio.gather(*asked)
        except TimeoutError:
            raise CallTimeout(f"waiting for revision {revision} on {', '.join(sorted(waiting))}", timeout) from None

    def _others(self) -> Sequence[Member]:
        return [member for member in self._members.all() if member.node != self._node]

    async def _wait_for(self, member: Member, revision: int, processes: bool, waiting: dict[str, Member]) -> None:
        while any((one.node, one.epoch) == (member.node, member.epoch) for one in self._others()):
            try:
                await self._ask(member, revision, processes)
                break
            except ClusterError:  # it is asked again until the deadline, or until it is gone
                await asyncio.sleep(PAUSE)
        del waiting[member.node]

    async def _ask(self, member: Member, revision: int, processes: bool) -> None:
        query = msgpack.packb({"op": "applied", "revision": revision, "processes": processes, "timeout": SLICE})
        subject = self._subjects.control(member.node, member.epoch, self._node)
        answer = to_text(unpack(await self._bus.control.request(subject, query, SLICE + SLACK)))
        if not (isinstance(answer, dict) and answer.get("ok") is True):
            raise CallTimeout(f"revision {revision} at node {member.node}", SLICE)
