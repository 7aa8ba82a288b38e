"""What a node tells of services: its own replicas, the claims of others, and what runs nowhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from cluster.placement import Plan
from node.declared import Declared
from node.replicas import Replicas
from node.rows import Nowhere, row
from node.suiting import Suiting


@dataclass(frozen=True)
class Here:
    """A replica of this node. ``able``: the other nodes that may take it."""

    service: str
    replica: int
    pids: Collection[bytes]
    able: frozenset[str]


class Roster:
    """Rows about services. ``plan`` is what the placement core decided last."""

    def __init__(self, replicas: Replicas, declared: Declared, nowhere: Nowhere, suiting: Suiting) -> None:
        self._replicas = replicas
        self._declared = declared
        self._nowhere = nowhere
        self._suiting = suiting
        self.plan = Plan([], None)

    def stats(self) -> list[dict[str, Any]]:
        """The replicas here, those of other nodes as their claims say, and what runs nowhere, with the reason."""
        rows = [*self._replicas.stats(), *(row(id, 0, "stopped", "auto_start is off") for id in self._declared.off)]
        known = {(each["service"], each["replica"]) for each in rows}
        nowhere = self._nowhere.rows(self._declared.to_run, self._declared, self.plan)
        return rows + [each for each in nowhere if (each["service"], each["replica"]) not in known]

    def counts(self) -> dict[str, int]:
        """The replicas here, by state."""
        return dict(Counter(run.replica.stats().state for run in self._replicas.running.values()))

    def here(self) -> list[Here]:
        """The replicas that are here, and the other nodes that may take each now."""
        return [
            Here(*key, run.replica.pids, frozenset(self._suiting.others(run.wanted)))
            for key, run in self._replicas.running.items()
        ]

    def kept_by(self, counter: int) -> str:
        """The service whose replica here keeps its processes by the port of this counter; empty for none. From any
        thread."""
        running = list(self._replicas.running.items())
        return next((key[0] for key, run in running if run.replica.counter == counter), "")
