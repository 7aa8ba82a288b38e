"""The seam between placement and what runs: anything that is claimed and kept on a node, whatever its kind.

The supervisor decides which replicas are this node's, claims them, ties their processes to the claim and gives
it back; it knows nothing of what a replica consists of. A kind joins in with one class that is a ``Kept``, named in
``node.supervisor.KINDS``, and a model that is a ``node.wanted.Placed``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

from cluster.supervision import ServiceState
from node.ports import Ports


@dataclass(frozen=True)
class ReplicaStats:
    """What is known of one replica here. ``since`` is Unix time of the last start, ``changed`` of the last change."""

    service: str
    replica: int
    state: str
    pid: str
    restarts: int
    last_error: str
    since: float
    changed: float = 0.0
    waits_for: str = ""
    """What has to happen before it starts."""


class Kept(Protocol):
    """One replica that lives here."""

    started: asyncio.Event
    """It ran."""
    tried: asyncio.Event
    """The first start worked or failed."""
    finished: asyncio.Event
    """It came to rest, and nothing of it lives or is being started."""

    @property
    def pid(self) -> bytes | None:
        """The process that stands for it, while there is one."""

    @property
    def pids(self) -> Collection[bytes]:
        """Its processes that live under the claim."""

    @property
    def counter(self) -> int:
        """Of the PID of the port that starts its processes: work they do in a VM is known by it."""

    @property
    def keeper(self) -> bytes:
        """The port that starts its processes and watches them."""

    @property
    def runs(self) -> bool:
        """Its process runs, and is not being started or stopped."""

    @property
    def has_failed(self) -> bool:
        """Nothing of it runs because of an error: it waits to be started again, or was given up."""

    @property
    def struggles(self) -> bool:
        """It could not be made to run here so often that another node should try."""

    def start(self) -> None: ...

    def adopt(self, pid: bytes, since: float) -> None:
        """In the place of ``start``: keep a process that came from another node. ``since``: when it was started."""

    async def leave(self) -> None:
        """Its process runs elsewhere: keep it no more, without a word to it."""

    def revise(self, spec: Any) -> None:
        """Keep it by another lifecycle; its identity is the same."""

    async def stop(self, reason: str) -> None:
        """End it in order; returns when nothing of it lives, and only then."""

    def kill(self, reason: str) -> None:
        """End it now, also what is only being started."""

    def name_revoked(self, pid: bytes, name: str) -> None:
        """One of its processes lost a name it did not give back."""

    def stats(self) -> ReplicaStats: ...


class Make(Protocol):
    """Makes one. ``may_start`` is asked right before each start, ``ready`` waits for what it requires. ``fence`` has
    the PID of each process before anything that comes out of it is handled; ``on_pid`` has the one that runs now,
    None when it ended; ``on_rest`` the state it came to rest in."""

    def __call__(
        self,
        service: str,
        replica: int,
        spec: Any,
        ports: Ports,
        node: str,
        *,
        may_start: Callable[[], bool],
        ready: Callable[[], Awaitable[None]],
        fence: Callable[[bytes], None],
        on_pid: Callable[[bytes | None], None],
        on_rest: Callable[[ServiceState], None],
    ) -> Kept: ...
