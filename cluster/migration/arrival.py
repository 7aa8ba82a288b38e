"""One move, at the node the process comes to.

From the parcel's arrival until etcd has said who won, this node neither runs the process nor says that there is none:
what arrives for it is held. An unknown commit is never asked for again, only read about: were it repeated, nobody
could tell which of the two was applied when.

    state        event                           next         what happens
    ----------   -----------------------------   ----------   ----------------------------------------------------
    RESERVED     parcel                          COMMITTING   the commit
                 deadline, link closed           LOST
    COMMITTING   done at revision w              WON
                 failed                          LOST         the source is told, so that it need not wait
                 unknown                         READING      read moved/P
    READING      {own node}, later than r        WON
                 still at r; unknown             READING      not known yet: read again
                 anything else                   LOST
    any          own lease lost                  LOST         a commit that lands now is of a lease that ends
"""

from __future__ import annotations

from enum import Enum

from cluster.migration.actions import Action, Send
from cluster.migration.items import Item, Parcel, Refused, Way
from cluster.migration.transactions import Answer, Found, Outcome, Read, Registration, Transact, Transactions


class Stage(Enum):
    """How far an arrival is; the last two are its ends."""

    RESERVED = "reserved"
    COMMITTING = "committing"
    READING = "reading"
    WON = "won"
    LOST = "lost"


class Arrival:
    """The state machine of the module's docstring."""

    def __init__(self, node: str, source: str, attempt: int, transactions: Transactions) -> None:
        self.node = node
        self.source = source
        self.attempt = attempt
        self.stage = Stage.RESERVED
        self.revision = 0
        """Of moved/P, when it is WON."""
        self.parcel = Parcel(attempt, 0, 0, None)
        self.held: list[tuple[Item, Way]] = []
        self._transactions = transactions
        self._request = 0

    @property
    def has_parcel(self) -> bool:
        return self.stage is not Stage.RESERVED

    def awaits(self, source: str, attempt: int) -> bool:
        return self.stage is Stage.RESERVED and (source, attempt) == (self.source, self.attempt)

    def arrived(self, parcel: Parcel, own: Registration) -> list[Action]:
        self.parcel, self.stage = parcel, Stage.COMMITTING
        return self._ask_etcd(self._transactions.commit(parcel, self.source, own))

    def answered(self, answer: Answer) -> list[Action]:
        if answer.request != self._request:
            return []
        match self.stage, answer.outcome:
            case Stage.COMMITTING, Outcome.DONE:
                self._won(answer.revision)
            case Stage.COMMITTING, Outcome.FAILED:
                return self._lost("the commit came too late")
            case Stage.READING, Outcome.FAILED:
                return self._found(answer.found)
            case _, Outcome.UNKNOWN:
                self.stage = Stage.READING
                return self._ask_etcd(self._transactions.read())
        return []

    def _found(self, found: Found | None) -> list[Action]:
        if found is not None and found.revision == self.parcel.revision:
            return self._ask_etcd(self._transactions.read())
        if found is not None and found.node == self.node and found.revision > self.parcel.revision:
            self._won(found.revision)
            return []
        return self._lost("the commit was not applied")

    def link_closed(self, peer: str) -> list[Action]:
        """Whatever of the parcel was under way is lost; what has arrived is not."""
        if peer == self.source and self.stage is Stage.RESERVED:
            self.stage = Stage.LOST
        return []

    def expire(self) -> list[Action]:
        """The parcel did not come in time."""
        if self.stage is Stage.RESERVED:
            self.stage = Stage.LOST
        return []

    def lease_lost(self) -> list[Action]:
        self.stage = Stage.LOST
        return []

    def _won(self, revision: int) -> None:
        self.stage, self.revision = Stage.WON, revision

    def _lost(self, reason: str) -> list[Action]:
        self.stage = Stage.LOST
        return [Send(self.source, Refused(self.attempt, reason))]

    def _ask_etcd(self, request: Transact | Read) -> list[Action]:
        self._request = request.request
        return [request]
