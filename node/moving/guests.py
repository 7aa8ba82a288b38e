"""The processes that came here: owned work of this node, under the same rules as the holders of locks (F3, F4).

They stand in etcd under its lease, so another node may take them for ended once that is over: they are cancelled, and
killed, while it is not renewed. One that is frozen is a state and acts on nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from cluster.envelope import Kind
from cluster.migration import Place
from cluster.pid import uniq_of
from node.moving.moved import Moved


class Guests:
    """``allowed`` says whether the lease they are under still holds; it is bound when the node is wired."""

    def __init__(self, table: Mapping[bytes, Moved], kill: Callable[[Moved], None]) -> None:
        self._table = table
        self._kill = kill
        self._pids: set[bytes] = set()
        self._warned = False
        self.allowed: Callable[[], bool] = lambda: True

    def note(self, moved: Moved) -> None:
        """Something has happened to the process."""
        if _is_guest(moved):
            self._pids.add(moved.pid)
        else:
            self._pids.discard(moved.pid)

    def __len__(self) -> int:
        return len(self._pids)

    def _here(self) -> list[Moved]:
        return [self._table[uniq_of(pid)] for pid in self._pids]

    @property
    def guarded(self) -> Collection[bytes]:
        return self._pids

    def may_act(self, pid: bytes) -> bool:
        """Whether the lease holds under which it came. A guest it does not hold for is killed."""
        if pid not in self._pids or self.allowed():
            return True
        self._kill(self._table[uniq_of(pid)])
        return False

    def in_doubt(self) -> None:
        """The lease may end soon: CANCEL every guest, once."""
        if self._warned:
            return
        self._warned = True
        for moved in self._here():
            assert moved.inbox is not None
            moved.inbox.post([int(Kind.CANCEL), moved.pid, b"", 0, b"the node may lose its lease"])

    def kill_owned(self) -> None:
        for moved in self._here():
            self._kill(moved)

    def sure(self) -> None:
        """The lease answers again: whoever still lives goes on."""
        self._warned = False

    def owns(self) -> bool:
        return bool(self._pids)


def _is_guest(moved: Moved) -> bool:
    core = moved.core
    return (
        core is not None
        and moved.inbox is not None
        and core.place is Place.RUNS
        and core.is_guest
        and not (core.departure is not None and core.departure.is_frozen)
    )
