"""The services the registry declares, decoded, and which of them are to run: those with ``auto_start``, and what they
require, and what that requires, whether it starts by itself or not. What nobody requires any more stops again.

Who waits for what it requires waits here: only for those services, so that a thousand that wait for others are not
all looked at whenever one of a thousand starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import cast

from cluster.registry import Entry
from node.kinds import decode
from node.wanted import Placed, Wanted


class Declared:
    """``runs`` says whether a service has run somewhere, as far as this node knows."""

    def __init__(self, env: Callable[[str], str | None], runs: Callable[[Wanted], bool]) -> None:
        self._env = env
        self._runs = runs
        self._all: dict[str, Wanted] = {}
        self._to_run: dict[str, Wanted] | None = None
        self._awaited: dict[str, asyncio.Event] = {}

    def __contains__(self, service: object) -> bool:
        return service in self._all

    def put(self, entry: Entry) -> tuple[Wanted | None, Wanted]:
        """What it was and what it is now: the same when nothing that matters changed. Raises Invalid."""
        former = self._all.get(entry.id)
        wanted = Wanted(entry, cast(Placed, decode(entry, self._env)))
        if former is not None and former.spec == wanted.spec:
            return former, former
        self._all[entry.id] = wanted
        if former is not None and _demands(former) == _demands(wanted):
            if self._to_run is not None and entry.id in self._to_run:
                self._to_run[entry.id] = wanted
        else:
            self._changed()
        return former, wanted

    def remove(self, service: str) -> bool:
        """Forget it; whether it was there."""
        if self._all.pop(service, None) is None:
            return False
        self._changed()
        return True

    @property
    def to_run(self) -> Mapping[str, Wanted]:
        """Those that are to run."""
        if self._to_run is None:
            needed = self._needed()
            self._to_run = {service: one for service, one in self._all.items() if service in needed}
        return self._to_run

    @property
    def off(self) -> list[str]:
        """Those that are not."""
        return [service for service in self._all if service not in self.to_run]

    def _needed(self) -> set[str]:
        needed = {service for service, one in self._all.items() if one.spec.lifecycle.auto_start}
        left = list(needed)
        while left:
            required = self._all[left.pop()].spec.lifecycle.required
            more = [one for one in required if one in self._all and one not in needed]
            needed.update(more)
            left += more
        return needed

    async def requirements(self, wanted: Wanted) -> None:
        """Wait until every service this one requires has run somewhere. What is no service here is not waited for."""
        while missing := [one for one in wanted.spec.lifecycle.required if self._is_missing(one)]:
            await self._awaited.setdefault(missing[0], asyncio.Event()).wait()

    def _is_missing(self, service: str) -> bool:
        required = self.to_run.get(service)
        return required is not None and not self._runs(required)

    def look_again(self, service: str) -> None:
        """It may run now: let those look who wait for it."""
        event = self._awaited.pop(service, None)
        if event is not None:
            event.set()

    def _changed(self) -> None:
        self._to_run = None
        for service in list(self._awaited):
            self.look_again(service)


def _demands(wanted: Wanted) -> tuple[bool, tuple[str, ...]]:
    """What decides which services are to run: one that changes else, changes nothing for the others."""
    return wanted.spec.lifecycle.auto_start, wanted.spec.lifecycle.required
