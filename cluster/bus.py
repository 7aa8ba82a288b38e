"""The node's way to NATS: two connections, one for data and one for control.

``async with Bus(...)`` connects both or raises ``Unavailable`` with the reason. Use ``data`` for links, events and
the side door, ``control`` for queries, so that a flood of messages does not delay the answer to "are you well?".
What a connection guarantees is in ``cluster.connection``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

from cluster.connection import Connection as Connection
from cluster.connection import ConnectionOptions
from cluster.connection import ConnectionStats as ConnectionStats
from cluster.connection import Handler as Handler
from cluster.connection import Problem as Problem
from cluster.connection import Subscription as Subscription
from cluster.connection import Trouble as Trouble
from cluster.credentials import Credentials as Credentials
from cluster.credentials import Tls as Tls


@dataclass(frozen=True)
class BusStats:
    """Both connections."""

    data: ConnectionStats
    control: ConnectionStats


class Bus:
    """Both connections of a node (or client). Use it with ``async with``.

    ``inbox`` is the prefix of reply subjects (``Subjects.inbox``): nobody else may subscribe it.
    """

    def __init__(
        self,
        servers: Sequence[str],
        *,
        name: str,
        inbox: str,
        credentials: Credentials | None = None,
        tls: Tls | None = None,
        connect_timeout: timedelta = timedelta(seconds=10),
        outbox_limit: int = 32 * 1024 * 1024,
    ) -> None:
        if not servers:
            raise ValueError("expected at least one NATS URL, got none")
        options = ConnectionOptions(
            tuple(servers), credentials or Credentials(), tls, inbox, connect_timeout.total_seconds(), outbox_limit
        )
        self.data = Connection(f"{name}/data", options)
        self.control = Connection(f"{name}/control", options)

    async def __aenter__(self) -> Self:
        await self.data.open()
        try:
            await self.control.open()
        except BaseException:
            await self.data.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.control.close()
        await self.data.close()

    def on_reconnect(self, handler: Callable[[], None]) -> None:
        """Call ``handler`` when either connection is back."""
        self.data.on_reconnect(handler)
        self.control.on_reconnect(handler)

    def stats(self) -> BusStats:
        return BusStats(self.data.stats(), self.control.stats())
