"""Whether this node could run a process that wants to come (M1): its state, the code, the host, what comes along."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from cluster.errors import CallTimeout
from cluster.migration.belongings import Belongings
from cluster.migration.items import Parcel
from cluster.registry import Entry
from node.moving.wire import Wanted

VERSION_WITHIN = timedelta(seconds=2)
"""In which the registry here must be as new as the source's."""


@dataclass(frozen=True)
class Taking:
    """Asks the node: is it ready, which host runs, has it room beside so many that come, which entry is there.
    ``reached`` waits for a version of the registry and raises CallTimeout."""

    node: str
    is_ready: Callable[[], bool]
    has_host: Callable[[str], bool]
    has_room: Callable[[str, int], bool]
    entry: Callable[[str], Entry | None]
    reached: Callable[[int, timedelta], Awaitable[object]]

    async def problem(self, wanted: Wanted, belongings: Sequence[Belongings], coming: int) -> str:
        """Why the process can't come, beside ``coming`` others; empty when it can."""
        if not self.is_ready():
            return f"node {self.node} takes nothing new now"
        try:
            await self.reached(wanted.version, VERSION_WITHIN)
        except CallTimeout:
            return f"the registry of node {self.node} is behind version {wanted.version}"
        if self.entry(wanted.entry) is None:
            return f"node {self.node} has no entry {wanted.entry}"
        if not self.has_host(wanted.host):
            return f"node {self.node} runs no host {wanted.host}"
        if not self.has_room(wanted.host, coming):
            return f"host {wanted.host} of node {self.node} is at its limit of processes"
        reasons = (part.refusal(wanted.pid, wanted.keys) for part in belongings)
        return next((reason for reason in reasons if reason), "")

    def adapted(self, parcel: Parcel, belongings: Sequence[Belongings]) -> Parcel:
        """The parcel with its keys as they are to stand here."""
        holdings = parcel.holdings
        for part in belongings:
            holdings = tuple(part.adapt(parcel.body.pid, holdings))
        return replace(parcel, holdings=holdings)
