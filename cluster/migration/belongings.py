"""What a process owns in etcd, and what each part of a node that keeps such things does when the process moves.

Names, locks and claims are keys on the lease of the node that runs their process. They travel with it: the commit of
the target puts them again under its own lease, in the transaction that moves the process. So each of these parts is
told on both sides, in the order of the methods below.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cluster.errors import ClusterError
from cluster.migration.items import Holding

MOST_HOLDINGS = 40
"""Keys of one process that moves: its commit compares and puts each of them in one transaction."""


class CannotMove(ClusterError):
    """The process, or what it owns, can't be moved now; the text says why and what helps."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class Belongings(Protocol):
    """One part that keeps keys of processes. All methods return at once; PIDs are texts."""

    # -- where the process is

    def check(self, pid: str) -> None:
        """Raises CannotMove when the process can't leave: what it owns does not travel. Changes nothing."""

    def pack(self, pid: str) -> Sequence[Holding]:
        """The process is frozen: its keys, exactly as they stand in etcd. Until ``stays`` or ``left`` it gets nothing
        new here. Raises CannotMove while something is under way; then it counts as not asked."""

    def stays(self, pid: str) -> None:
        """After ``pack``: the process goes on here, with all it has."""

    def left(self, pid: str) -> None:
        """After ``pack``: it runs elsewhere, and what it held is held there. Forget it; free nothing in etcd."""

    # -- where it goes

    def refusal(self, pid: str, keys: Sequence[str]) -> str:
        """Why this node can't take the process with these keys; empty when it can. All parts are asked about all keys,
        also those of others."""

    def adapt(self, pid: str, holdings: Sequence[Holding]) -> Sequence[Holding]:
        """The same keys with the values this node's commit is to put; keys of other parts as they are."""

    def expect(self, pid: str, holdings: Sequence[Holding]) -> None:
        """The commit is about to be asked for: keys of the process that turn up under the lease of this node are
        neither left over nor to be used for anything else, until ``arrived`` or ``lost``."""

    def arrived(self, pid: str, holdings: Sequence[Holding], revision: int, lease: int) -> None:
        """The process runs here now. Its keys stand at ``revision`` on ``lease``, the watch may show it later."""

    def lost(self, pid: str, holdings: Sequence[Holding]) -> None:
        """After ``expect``: it does not come."""
