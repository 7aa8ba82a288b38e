"""The children of owned supervisors act under the claim of the supervisor at the top (fencing rule F4).

They own nothing by themselves; what they put out is held back, and what they write is compared, as
if it were the supervisor's. Children on other nodes end when the supervisor's node is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from node.lasting import Lasting
from node.owners import Either, Part


class Guard:
    """``services`` as an owner of work, with the trees under them. ``born`` and ``gone`` tell of the children."""

    def __init__(self, services: Part) -> None:
        self._services = services
        self._tops = Lasting()
        self.gone = self._tops.ended
        self.end_foreign: Callable[[], None] = lambda: None
        """Ends the supervisors here that belong to those of other nodes."""
        self.in_doubt = services.in_doubt
        self.sure = services.sure
        self.owns = services.owns

    def kill_owned(self) -> None:
        self._services.kill_owned()
        self.end_foreign()

    def born(self, pid: bytes, top: bytes) -> None:
        """A process here belongs to the tree of the supervisor ``top``."""
        if top in self._services.guarded:
            self._tops[pid] = top

    def top_of(self, pid: bytes) -> bytes:
        """The process whose claim ``pid`` acts under."""
        return self._tops.get(pid, pid)

    @property
    def guarded(self) -> Collection[bytes]:
        return Either(self._services.guarded, self._tops) if self._tops else self._services.guarded

    def may_act(self, pid: bytes) -> bool:
        return self._services.may_act(self._tops.get(pid, pid))
