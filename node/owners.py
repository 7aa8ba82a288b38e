"""All that is owned under the lease of this node, as one: services, the holders of locks, processes that came.

The ownership (fencing rules F3, F4) and the hosts ask this whole instead of its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Protocol

from node.callers import Callers


class Part(Protocol):
    """One kind of owned work."""

    @property
    def guarded(self) -> Collection[bytes]: ...

    def may_act(self, pid: bytes) -> bool: ...

    def in_doubt(self) -> None: ...

    def kill_owned(self) -> None: ...

    def sure(self) -> None: ...

    def owns(self) -> bool: ...


class Either(Collection[bytes]):
    """The processes of several collections, as they are when asked."""

    def __init__(self, *collections: Collection[bytes]) -> None:
        self._collections = collections

    def __contains__(self, pid: object) -> bool:
        return any(pid in one for one in self._collections)

    def __iter__(self) -> Iterator[bytes]:
        yield from set().union(*self._collections)

    def __len__(self) -> int:
        return len(set().union(*self._collections))

    def __bool__(self) -> bool:
        return any(self._collections)


class Owners:
    """All parts, asked and told together.

    ``names_in_doubt`` is told whether processes here may have lost the names they hold: owned things as well, but
    nobody ends for them.
    """

    def __init__(self, *parts: Part, names_in_doubt: Callable[[bool], None] = lambda in_doubt: None) -> None:
        self._parts: list[Part] = list(parts)
        self._names_in_doubt = names_in_doubt
        self._callers = Callers()
        self.line, self.runs_for, self.process_ended = self._callers.line, self._callers.put, self._callers.ended

    def add(self, part: Part) -> None:
        """One more kind of owned work."""
        self._parts.append(part)

    @property
    def guarded(self) -> Collection[bytes]:
        """Processes whose items must be asked for with ``may_act`` before they leave the VM."""
        return Either(*(part.guarded for part in self._parts), self._callers.pids())

    def may_act(self, pid: bytes) -> bool:
        """Whether the process, and everybody it runs for, holds what it owns."""
        return all(part.may_act(one) for one in self._callers.line(pid) for part in self._parts)

    def in_doubt(self) -> None:
        for part in self._parts:
            part.in_doubt()

    def kill_owned(self) -> None:
        self._names_in_doubt(True)
        for part in self._parts:
            part.kill_owned()

    def sure(self) -> None:
        self._names_in_doubt(False)
        for part in self._parts:
            part.sure()

    def owns(self) -> bool:
        return any(part.owns() for part in self._parts)
