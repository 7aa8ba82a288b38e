"""What a node tells of services that it does not run itself: rows beside those of its own replicas.

Of each replica that no node has, one row with the reason; of a service that is not to run, one that says so.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

from cluster.avoids import Avoid, Avoids
from cluster.claims import Claims
from cluster.members import Member, Members
from cluster.placement import Mode, Plan, suits
from cluster.quarantine import Quarantine
from cluster.unplaced import quarantined, why_unplaced
from node.wanted import Wanted


def row(service: str, replica: int, state: str, why: str) -> dict[str, Any]:
    """A replica that lives on no node."""
    return {"service": service, "replica": replica, "node": "", "state": state, "pid": "", "why": why}


class Nowhere:
    """The replicas no node has, as this node sees it."""

    def __init__(self, claims: Claims, members: Members, avoids: Avoids, quarantine: Quarantine) -> None:
        self._claims = claims
        self._members = members
        self._avoids = avoids
        self._quarantine = quarantine

    def rows(self, wanted: Mapping[str, Wanted], known: Container[str], plan: Plan) -> Iterator[dict[str, Any]]:
        """``plan`` is what the placement core decided last: who is to claim what next; ``known`` what the registry
        has, to run or not."""
        barred = self._quarantine.services()
        members = self._members.all()
        avoids: dict[str, list[Avoid]] = {}
        for avoid in self._avoids.all():
            avoids.setdefault(avoid.service, []).append(avoid)
        for service, one in wanted.items():
            yield from self._of(service, one, members, avoids.get(service, ()), service in barred, plan)
        for service in sorted(barred):
            if service not in known:  # it would be held against one of this id that comes later
                losses = self._quarantine.losses(service)
                yield row(service, 0, "quarantined", f"the registry has it no more; {quarantined(service, losses)}")

    def _of(
        self,
        service: str,
        wanted: Wanted,
        members: Sequence[Member],
        avoids: Sequence[Avoid],
        barred: bool,
        plan: Plan,
    ) -> Iterator[dict[str, Any]]:
        losses = self._quarantine.losses(service) if barred else None
        if wanted.mode is Mode.EVERY_NODE and not barred and any(suits(wanted.service, one) for one in members):
            return  # every node that may run it tells of its own
        for replica in range(wanted.spec.placement.replicas):
            if wanted.mode is Mode.EVERY_NODE or self._claims.get(service, replica) is None:
                first = plan.first.get((service, replica), "")
                why = why_unplaced(wanted.service, members, avoids, losses, first)
                yield row(service, replica, "quarantined" if barred else "unplaced", why)
