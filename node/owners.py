"""All that is owned under the lease of this node, as one: services and the holders of locks.

The ownership (fencing rules F3, F4) and the hosts ask this whole instead of its parts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol


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
    """The processes of two collections, as they are when asked."""

    def __init__(self, first: Collection[bytes], second: Collection[bytes]) -> None:
        self._first, self._second = first, second

    def __contains__(self, pid: object) -> bool:
        return pid in self._first or pid in self._second

    def __iter__(self) -> Iterator[bytes]:
        yield from {*self._first, *self._second}

    def __len__(self) -> int:
        return len({*self._first, *self._second})

    def __bool__(self) -> bool:
        return bool(self._first) or bool(self._second)


class Owners:
    """``services`` and ``holders``, asked and told together."""

    def __init__(self, services: Part, holders: Part) -> None:
        self._parts: Sequence[Part] = (services, holders)

    @property
    def guarded(self) -> Collection[bytes]:
        """Processes whose items must be asked for with ``may_act`` before they leave the VM."""
        services, holders = self._parts
        return Either(services.guarded, holders.guarded)

    def may_act(self, pid: bytes) -> bool:
        services, holders = self._parts
        return services.may_act(pid) and holders.may_act(pid)

    def in_doubt(self) -> None:
        for part in self._parts:
            part.in_doubt()

    def kill_owned(self) -> None:
        for part in self._parts:
            part.kill_owned()

    def sure(self) -> None:
        for part in self._parts:
            part.sure()

    def owns(self) -> bool:
        return any(part.owns() for part in self._parts)
