"""One move, at the node the process leaves.

Until the process is frozen the move can be given up for nothing. From then on what arrives for it is held, and only
``moved/<process>`` says where it lives: the target's commit and the abort of this node compare the same revision, so
that one of them wins, whenever their transactions are applied and whatever answers are lost.

    state       event                          next       what happens
    ---------   ----------------------------   --------   -------------------------------------------------------
    RESERVING   reserved                       MARKING    put {own node} over what is known of moved/P
    MARKING     failed, the first time         MARKING    put it over what was found
                refused, link closed           STAYED
                done at revision r             MARKED     Freeze
                failed again, unknown          STAYED
    MARKED      frozen                         FLUSHING   a flush on every link the process has sent on
    FLUSHING    all answered                   SENT       the parcel goes to the target
                a link closed                  FLUSHING   its flush goes again, on the next session
    SENT        watch: moved/P {another}       MOVED
    any         deadline, refused, link to     STAYED     when not frozen yet
                the target closed              ABORTING   when frozen: put {own node} over r
    ABORTING    done; {own node} found         STAYED     an earlier try may have won
                {another} found or watched     MOVED
                nothing found                  DIED       STAYED when the parcel never went, at the node of birth
                unknown                        ABORTING   once more: the process stays frozen until etcd has said
    any         own lease lost                 STAYED     when not frozen yet; what was asked may still be applied
                                               ABORTING   when frozen; asked after the next registration
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from cluster.migration.actions import Action, Freeze, Send
from cluster.migration.items import Ask, Item, LinkFlush, Luggage, Message, Parcel, Way
from cluster.migration.transactions import Answer, Found, Outcome, Registration, Transact, Transactions


class Step(Enum):
    """How far a move is; the last three are its ends."""

    RESERVING = "reserving"
    MARKING = "marking"
    MARKED = "marked"
    FLUSHING = "flushing"
    SENT = "sent"
    ABORTING = "aborting"
    STAYED = "stayed"
    MOVED = "moved"
    DIED = "died"


FROZEN = frozenset({Step.FLUSHING, Step.SENT, Step.ABORTING})
ENDS = frozenset({Step.STAYED, Step.MOVED, Step.DIED})


@dataclass(frozen=True, slots=True)
class Target:
    """Where to, and the number of this move among those of the node."""

    node: str
    attempt: int


class Departure:
    """The state machine of the module's docstring."""

    def __init__(
        self,
        node: str,
        target: Target,
        own: Registration,
        transactions: Transactions,
        is_open: Callable[[str], bool],
        *,
        is_guest: bool,
        seen: int = 0,
    ) -> None:
        """``seen`` is the revision of moved/P, as far as this node knows; should it be another, it is asked again."""
        self.node = node
        self.target = target
        self.step = Step.RESERVING
        self.reason = ""
        self.revision: int | None = None
        """Of moved/P, where this node wrote it last in this move."""
        self.latest = Found(target.node, 0)
        """Where it was found, once it has MOVED."""
        self.luggage = Luggage(None)
        self.held: list[tuple[Item, Way]] = []
        self._own: Registration | None = own
        self._transactions = transactions
        self._is_open = is_open
        self._request = 0
        self._is_guest = is_guest
        self._seen = seen
        self._is_read = False
        self._is_sent = False
        self._sent_along = 0
        self._epoch = own.epoch
        self._awaited: set[str] = set()
        self._parcel = Parcel(target.attempt, 0, own.epoch, None)

    @property
    def is_frozen(self) -> bool:
        return self.step in FROZEN

    @property
    def is_sent(self) -> bool:
        """Whether the parcel went out: the target may run it."""
        return self._is_sent

    # -- M1, M2

    def ask(self) -> list[Action]:
        return [Send(self.target.node, Ask(self.target.attempt))]

    def reserved(self, node: str, attempt: int) -> list[Action]:
        if self.step is not Step.RESERVING or Target(node, attempt) != self.target:
            return []
        if self._own is None:
            return self.give_up("the lease of this node is over")
        self.step = Step.MARKING
        return [self._ask_etcd(self._transactions.mark(self._seen, self._own.lease))]

    def refused(self, node: str, attempt: int, reason: str) -> list[Action]:
        if Target(node, attempt) != self.target:
            return []
        return self.give_up(f"node {node} refused: {reason}")

    def answered(self, answer: Answer) -> list[Action]:
        """What etcd said to the last request."""
        if answer.request != self._request:
            return []
        self._request = 0
        match self.step, answer.outcome:
            case Step.MARKING, Outcome.FAILED if not self._is_read:
                return self._mark(answer.found)
            case Step.MARKING, Outcome.DONE:
                self.step, self.revision = Step.MARKED, answer.revision
                return [Freeze(self.target.node)]
            case Step.MARKING, outcome:
                self._end(Step.STAYED, f"etcd: the mark is {outcome.value}")
            case Step.ABORTING, Outcome.UNKNOWN:
                return self._abort()
            case Step.ABORTING, Outcome.DONE:
                self.revision = answer.revision
                self._end(Step.STAYED, self.reason)
            case Step.ABORTING, _:
                self._abort_failed(answer.found)
        return []

    def _mark(self, found: Found | None) -> list[Action]:
        if self._own is None or (found is not None and found.node != self.node):
            self._end(Step.STAYED, "the process is marked as another node's")
            return []
        self._is_read = True
        return [self._ask_etcd(self._transactions.mark(found.revision if found else 0, self._own.lease))]

    # -- M3, M4

    def frozen(self, luggage: Luggage, accepted: Mapping[str, int], former: frozenset[int]) -> list[Action]:
        """The process has handed over its state."""
        assert self.revision is not None
        self.step, self.luggage = Step.FLUSHING, luggage
        self._parcel = Parcel(
            self.target.attempt,
            self.revision,
            self._epoch,
            luggage.body,
            luggage.holdings,
            accepted,
            former | {held.revision for held in luggage.holdings},
            luggage.watchers,
        )
        self._awaited = set(luggage.sent_to) - {self.node}
        flushes = [self._flush(peer) for peer in sorted(self._awaited) if self._is_open(peer)]
        return [*flushes, *self._maybe_send()]

    def link_flushed(self, peer: str, number: int) -> list[Action]:
        if self.step is not Step.FLUSHING or number != self.target.attempt:
            return []
        self._awaited.discard(peer)
        return self._maybe_send()

    def _flush(self, peer: str) -> Send:
        return Send(peer, LinkFlush(self.target.attempt))

    def _maybe_send(self) -> list[Action]:
        if self._awaited:
            return []
        self.step, self._is_sent = Step.SENT, True
        self._sent_along = len(self.held)
        along = tuple(item for item, _ in self.held if isinstance(item, Message))
        return [Send(self.target.node, replace(self._parcel, held=along))]

    @property
    def left_behind(self) -> list[tuple[Item, Way]]:
        """What was held and did not go with the parcel."""
        at = self._sent_along
        return [(item, way) for item, way in self.held[:at] if not isinstance(item, Message)] + self.held[at:]

    @property
    def is_undecided(self) -> bool:
        """Whether only etcd can tell where the process is: until then nothing that is held goes anywhere."""
        return self.step in (Step.SENT, Step.ABORTING)

    # -- M6, M7

    def seen(self, found: Found) -> list[Action]:
        """The watch shows the process on another node: only the target's commit can have begun that."""
        if self.step in (Step.SENT, Step.ABORTING) and found.revision > self._parcel.revision:
            self._moved(found)
        return []

    def give_up(self, reason: str) -> list[Action]:
        """The deadline, or a reason not to wait for it."""
        if self.step is Step.ABORTING or self.step in ENDS:
            return []
        if not self.is_frozen:
            self._end(Step.STAYED, reason)
            return []
        self.step, self.reason = Step.ABORTING, reason
        return self._abort()

    def _abort(self) -> list[Action]:
        if self._own is None:
            return []
        return [self._ask_etcd(self._transactions.abort(self._parcel.revision, self._own.lease))]

    def _abort_failed(self, found: Found | None) -> None:
        if found is not None and found.node != self.node:
            self._moved(found)
        elif found is not None:
            self.revision = found.revision
            self._end(Step.STAYED, self.reason)
        elif self._is_sent:
            self._end(Step.DIED, f"{self.reason}; it may have run on node {self.target.node} and ended there")
        elif self._is_guest:
            self._end(Step.DIED, f"{self.reason}; the lease it came here under is over")
        else:
            self._end(Step.STAYED, self.reason)

    def _moved(self, found: Found) -> None:
        self.latest = found
        self._end(Step.MOVED, f"to node {self.target.node}")

    # -- links and leases

    def link_closed(self, peer: str, is_over: bool) -> list[Action]:
        """``is_over``: the peer's registration has ended, nobody there has to get anything in order any more."""
        gone = frozenset(watcher for watcher in self.luggage.watchers if watcher.node == peer)
        self.luggage = replace(self.luggage, watchers=self.luggage.watchers - gone)
        if peer == self.target.node:
            return self.give_up(f"the link to node {peer} closed")
        if self.step is not Step.FLUSHING or peer not in self._awaited:
            return []
        if is_over:
            self._awaited.discard(peer)
            return self._maybe_send()
        return self.link_opened(peer)

    def link_opened(self, peer: str) -> list[Action]:
        awaits = self.step is Step.FLUSHING and peer in self._awaited and self._is_open(peer)
        return [self._flush(peer)] if awaits else []

    def lease_lost(self) -> list[Action]:
        self._own = None
        self._request = 0
        reason = "the lease of this node is over"
        if self.is_frozen:
            self.step, self.reason = Step.ABORTING, self.reason or reason
        elif self.step not in ENDS:
            self._end(Step.STAYED, reason)
        return []

    def registered(self, own: Registration) -> list[Action]:
        self._own = own
        return self._abort() if self.step is Step.ABORTING and not self._request else []

    def _end(self, step: Step, reason: str) -> None:
        self.step, self.reason, self._request = step, reason, 0

    def _ask_etcd(self, transact: Transact) -> Action:
        self._request = transact.request
        return transact
