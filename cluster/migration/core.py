"""One process that may move, as one node knows it: runs here, comes, goes, went, or lives elsewhere.

A node keeps a core for each such process it has to do with. Everything addressed to the process passes through
``arrived``, also what this node's own processes send; what it answers goes by the links, in their order.

    the process here   an item arrives              what happens
    ----------------   --------------------------   -----------------------------------------------------------------
    any                a redirect waits for it      held until the flush over the old way is answered
    frozen             message, assertion           held; messages go with the state, while that is not sent
    frozen             flush                        answered, while the state is not sent; else held
    runs               message                      delivered; a dead letter when a later one of its node was
    runs               flush                        answered: all before it has been delivered
    runs               assertion                    delivered, the kernel answers under its number
    undecided          any, no tombstone            held
    undecided          any, tombstone               held when it came from the source, else forwarded
    tombstone          any                          forwarded to the pointer; refused when that node is gone
    elsewhere          begins here                  sent to where the process is, as far as is known
    elsewhere, ended   any                          noproc

Pure: no clock, socket or task. The shell performs the actions in order and feeds what becomes of them; ``is_open``
says whether a link has a session now. A node's own registration ending closes all its links.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum

from cluster.keys import Keys
from cluster.migration.actions import (
    Action,
    Adopt,
    DeadLetter,
    Deliver,
    Drop,
    Finished,
    Fire,
    Kill,
    Reason,
    Refuse,
    Resume,
    Send,
    TellWatchers,
    Verdict,
)
from cluster.migration.arrival import Arrival, Stage
from cluster.migration.departure import Departure, Step, Target
from cluster.migration.items import (
    HERE,
    Assertion,
    Flush,
    Flushed,
    Forwarded,
    Item,
    LinkFlushed,
    Luggage,
    Message,
    Parcel,
    Refused,
    Reserved,
    Watcher,
    Way,
)
from cluster.migration.numbers import Accepted
from cluster.migration.redirect import Redirect, Scope
from cluster.migration.relays import Relay, Relays
from cluster.migration.tombstone import Tombstone
from cluster.migration.transactions import Answer, Found, Outcome, Registration, Transactions
from cluster.migration.watches import Watches


class Place(Enum):
    """What the process is to this node."""

    ELSEWHERE = "elsewhere"
    RUNS = "runs"
    """Also while it is frozen."""
    TOMBSTONE = "tombstone"
    ENDED = "ended"


class MoveCore:
    """The process ``uniq``, born on node ``birth``, on this ``node``; the module's docstring is the table."""

    def __init__(
        self,
        node: str,
        birth: str,
        uniq: str,
        keys: Keys,
        own: Registration,
        is_open: Callable[[str], bool],
        *,
        first: int = 0,
    ) -> None:
        """What is numbered is numbered from ``first`` on: above all that an earlier core of the process has said."""
        self.node = node
        self.place = Place.RUNS if node == birth else Place.ELSEWHERE
        self.departure: Departure | None = None
        self.arrival: Arrival | None = None
        self.tombstone: Tombstone | None = None
        self.watches = Watches(first)
        self.redirect = Redirect(node, birth, first)
        self._transactions = Transactions(keys, uniq, node)
        self._own: Registration | None = own
        self._is_open = is_open
        self._relays = Relays()
        self._accepted = Accepted()
        self._former: frozenset[int] = frozenset()
        self._committed = 0
        """The revision of the commit that brought the process here; 0: it was born here and never left."""
        self._known = 0
        """What was learned of moved/P other than by the watch: whatever that shows up to this revision is old."""
        self._own_mark = 0
        """The revision at which moved/P names this node."""
        self._deletion = (0, 0)
        self._forfeited: Parcel | None = None
        """What was to come when the lease was lost: should its commit have been applied, the process has ended."""
        self._seen_coming = 0
        """The revision at which moved/P named this node while that was not decided here."""
        self._attempts = first

    @property
    def is_guest(self) -> bool:
        """Whether the process came here, under a lease of this node: it is owned work."""
        return self._committed > 0

    @property
    def holds_from_links(self) -> bool:
        """Whether something that came over a link waits here, until etcd or a link has decided."""
        departure, arrival = self.departure, self.arrival
        return (
            self.redirect.holds_from_links
            or (departure is not None and departure.is_undecided and bool(departure.held))
            or (arrival is not None and bool(arrival.held))
        )

    @property
    def holds(self) -> bool:
        """The same of what begins here."""
        return len(self.redirect) > 0 or self.holds_from_links

    @property
    def is_deleting(self) -> bool:
        """Whether moved/P is being deleted."""
        return self._deletion[0] > 0

    @property
    def relaying(self) -> int:
        """Flushes of others on their way through this node."""
        return len(self._relays)

    # -- what is addressed to the process

    def arrived(self, item: Item, way: Way = HERE) -> list[Action]:
        """Something for the process, from a link or (HERE) from a process of this node."""
        if self.redirect.holds(way):
            self.redirect.hold(item, way)
            return []
        return self._dispatch(item, way)

    def _dispatch(self, item: Item, way: Way) -> list[Action]:
        if self.departure is not None and self.departure.is_frozen:
            if isinstance(item, Flush) and not self.departure.is_undecided:
                return self._deliver(item, way)  # all before it goes along, or is delivered here
            self.departure.held.append((item, way))
            return []
        if self.place is Place.RUNS:
            return self._deliver(item, way)
        if self._is_undecided(way):
            assert self.arrival is not None
            self.arrival.held.append((item, way))
            return []
        if self.place is Place.TOMBSTONE:
            return self._forward(item, way)
        if self.place is Place.ELSEWHERE and way.begins_here:
            return self._send_on(item)
        return self._refuse(item, way, Reason.NOPROC)

    def _is_undecided(self, way: Way) -> bool:
        """A tombstone that held everything would hold what it has to forward to the source, which waits for that."""
        if self.arrival is None or not self.arrival.has_parcel:
            return False
        return self.place is not Place.TOMBSTONE or way.link == self.arrival.source

    def _deliver(self, item: Item, way: Way) -> list[Action]:
        match item:
            case Flush():
                return [Send(way.link, Flushed(item))]
            case Message(sender=sender, number=number) if not self._accepts(sender, number):
                return [DeadLetter(item)]
            case Message(revision=revision) if revision in self._former:
                # a name that went with the process is not stale, wherever its message was meanwhile: it goes by the
                # revision the name has now, should the process hold it still
                return [Deliver(replace(item, revision=self._committed))]
            case _:
                return [Deliver(item)]

    def _accepts(self, sender: str, number: int) -> bool:
        if self.is_guest:
            return self._accepted.accept(sender, number)
        self._accepted.note(sender, number)  # it never left: there is one way to it only
        return True

    def _forward(self, item: Item, way: Way) -> list[Action]:
        assert self.tombstone is not None
        pointer = self.tombstone.pointer
        if self.tombstone.is_over or not self._is_open(pointer):
            return self._refuse(item, way, Reason.NOPROC)
        match item:
            case Flush(node=node):
                self._relays.pass_on(Relay(way.link, pointer, item))
                if node == way.link and not way.passed:  # its node knows of the move and looks after its own watchers
                    self.tombstone.forget(node)
            case Assertion(watcher=watcher) if watcher.node == way.link and not way.passed:
                self.tombstone.add_watcher(watcher)
        return [Send(pointer, Forwarded(item, (*way.passed, self.node)))]

    def _send_on(self, item: Item) -> list[Action]:
        if not self._is_open(self.redirect.route):
            return self._refuse(item, HERE, Reason.NOCONNECTION)
        return [Send(self.redirect.route, item)]

    def _refuse(self, item: Item, way: Way, reason: Reason) -> list[Action]:
        match item:
            case Flush():
                return [Send(way.link, Flushed(item))]
            case Assertion(watcher=watcher) if watcher.node == self.node:
                return self._fire([watcher], reason)
            case _:
                return [Refuse(item, reason)]

    # -- flushes

    def flushed(self, peer: str, flush: Flush) -> list[Action]:
        """The answer to a flush that went to ``peer``: another's goes back the way it came."""
        relay = self._relays.answered(peer, flush)
        if relay is not None:
            return [Send(relay.back, Flushed(flush))]
        pending = self.redirect.pending
        if pending is None or pending.flush != flush:
            return []
        return self._finish_redirect()

    def link_flush(self, peer: str, number: int) -> list[Action]:
        """All the process sent here from ``peer`` has arrived."""
        return [Send(peer, LinkFlushed(number))]

    def link_flushed(self, peer: str, number: int) -> list[Action]:
        return self._depart(lambda departure: departure.link_flushed(peer, number))

    # -- this node's own traffic

    def _start_redirect(self, new: str) -> list[Action]:
        old, self.redirect.route = self.redirect.route, new
        if old == new or self.redirect.pending is not None:
            return []
        if old == self.node or not self._is_open(old):
            return self._assert_all()
        return [Send(old, self.redirect.start(old, Scope.OWN))]

    def _start_homecoming(self, pointer: str) -> list[Action]:
        """What this node forwarded while the process was away comes back to it: before all that did not."""
        self.redirect.route = self.node
        return [Send(pointer, Forwarded(self.redirect.start(pointer, Scope.ALL), (self.node,)))]

    def _finish_redirect(self) -> list[Action]:
        held = self.redirect.finish()
        return [*self._assert_all(), *self._dispatch_all(held)]

    def _dispatch_all(self, held: list[tuple[Item, Way]]) -> list[Action]:
        return [action for item, way in held for action in self._dispatch(item, way)]

    def _arrive_all(self, held: list[tuple[Item, Way]]) -> list[Action]:
        return [action for item, way in held for action in self.arrived(item, way)]

    # -- this node's own watchers

    def watch(self, watcher: Watcher, *, asserted: bool = False) -> list[Action]:
        """A process of this node watches. ``asserted``: it does already, where the process is."""
        if asserted:
            self.watches.add(watcher)
            return []
        return self.arrived(self.watches.assert_one(watcher))

    def unwatch(self, watcher: Watcher) -> None:
        self.watches.remove(watcher)

    def answer_assertion(self, assertion: Assertion, alive: bool) -> list[Action]:
        """The answer to an assertion of this node; one to an earlier assertion says nothing."""
        if not self.watches.answered(assertion) or alive:
            return []
        return self._fire([assertion.watcher], Reason.NOPROC)

    def assert_again(self) -> list[Action]:
        """Time passed: what has no answer is said again."""
        return [action for assertion in self.watches.unanswered for action in self.arrived(assertion)]

    def relisted(self) -> list[Action]:
        """The watch was interrupted: an end may have been missed."""
        return [] if self.redirect.pending is not None else self._assert_all()

    def exit_heard(self, watcher: Watcher) -> list[Action]:
        """An EXIT for a watcher of this node; a second one is for nobody."""
        return self._fire([watcher], Reason.EXIT)

    def _assert_all(self) -> list[Action]:
        return [action for assertion in self.watches.assert_all() for action in self.arrived(assertion)]

    def _fire(self, watchers: list[Watcher], reason: Reason) -> list[Action]:
        return [Fire(watcher, reason) for watcher in watchers if self.watches.remove(watcher)]

    def _fire_all(self) -> list[Action]:
        return [Fire(watcher, Reason.NOCONNECTION) for watcher in self.watches.remove_all()]

    # -- leaving

    def leave(self, to: str) -> list[Action]:
        """Move the process to node ``to``."""
        problem = self._why_not(to)
        if problem:
            return [Finished(Verdict.STAYED, problem)]
        assert self._own is not None
        self._attempts += 1
        target = Target(to, self._attempts)
        self.departure = Departure(
            self.node, target, self._own, self._transactions, self._is_open, is_guest=self.is_guest, seen=self._own_mark
        )
        return self.departure.ask()

    def _why_not(self, to: str) -> str:
        if self.place is not Place.RUNS:
            return "the process does not run here"
        if self.departure is not None:
            return "it is moving already"
        if self.redirect.pending is not None:
            return "it has just come; messages that came before it are not there yet"
        if self._own is None:
            return "the lease of this node is over"
        if to == self.node or not self._is_open(to):
            return f"it is on node {to} already" if to == self.node else f"there is no link to node {to}"
        return ""

    def reserved(self, peer: str, attempt: int) -> list[Action]:
        return self._depart(lambda departure: departure.reserved(peer, attempt))

    def refused(self, peer: str, attempt: int, reason: str) -> list[Action]:
        return self._depart(lambda departure: departure.refused(peer, attempt, reason))

    def frozen(self, luggage: Luggage) -> list[Action]:
        """The process has handed over its state and runs no more."""
        if self.departure is None or self.departure.step is not Step.MARKED:
            return [Resume()]
        return self._depart(lambda departure: departure.frozen(luggage, self._accepted.highest, self._former))

    def deadline(self, reason: str = "it took too long") -> list[Action]:
        """The move has to end now, one way or the other."""
        return self._depart(lambda departure: departure.give_up(reason))

    def _depart(self, event: Callable[[Departure], list[Action]]) -> list[Action]:
        """Give the departure an event, and draw the consequence when it is over."""
        departure = self.departure
        if departure is None:
            return []
        was_marked = departure.step is Step.MARKED or departure.is_frozen
        actions = event(departure)
        match departure.step:
            case Step.STAYED:
                return [*actions, *self._stay(departure, was_marked)]
            case Step.MOVED:
                return [*actions, *self._become_tombstone(departure)]
            case Step.DIED:
                return [*actions, *self._died_elsewhere(departure)]
            case _:
                return actions

    def _stay(self, departure: Departure, was_marked: bool) -> list[Action]:
        self.departure = None
        if departure.revision is not None:
            self._own_mark = departure.revision
        resumed: list[Action] = [Resume()] if was_marked else []
        return [*resumed, *self._dispatch_all(departure.held), Finished(Verdict.STAYED, departure.reason)]

    def _become_tombstone(self, departure: Departure) -> list[Action]:
        self.departure = None
        self.place = Place.TOMBSTONE
        latest, self._known = departure.latest.node, departure.latest.revision
        self.tombstone = Tombstone(departure.target.node, latest, departure.luggage.watchers)
        self.redirect.route = latest
        self._own_mark = self._committed = 0
        forwarded = [*self._dispatch_all(departure.left_behind), *self._assert_all()]
        return [Drop(), *forwarded, *self._look_after_pointer(), Finished(Verdict.MOVED, departure.reason)]

    def _look_after_pointer(self) -> list[Action]:
        """The nodes a tombstone points to may be gone already. While this one is not registered nothing says so."""
        tombstone = self.tombstone
        if tombstone is None or self._own is None:
            return []
        gone = [node for node in (tombstone.latest, tombstone.pointer) if not self._is_open(node)]
        return [action for node in gone for action in self._tell(tombstone.epoch_ended(node))]

    def _died_elsewhere(self, departure: Departure) -> list[Action]:
        self.departure = None
        self.place = Place.ENDED
        refused = self._dispatch_all(departure.held)
        told = self._tell(departure.luggage.watchers)
        return [Drop(), *told, *refused, Finished(Verdict.DIED, departure.reason)]

    def _tell(self, watchers: frozenset[Watcher]) -> list[Action]:
        return [TellWatchers(watchers)] if watchers else []

    # -- coming

    def asked(self, source: str, attempt: int) -> list[Action]:
        """Another node wants to move the process here. The shell has looked at its code, limits and readiness."""
        # a place reserved for a state that has not come is the next one's: its process is elsewhere, or asks again
        awaited = self.arrival is not None and self.arrival.has_parcel
        has_it = self.place in (Place.RUNS, Place.ENDED) or awaited
        if has_it or self._own is None:
            reason = "it has an earlier state of the process" if has_it else "its lease is over"
            return [Send(source, Refused(attempt, reason))]
        self._forfeited, self._seen_coming = None, 0
        self.arrival = Arrival(self.node, source, attempt, self._transactions)
        return [Send(source, Reserved(attempt))]

    def parcel_arrived(self, source: str, parcel: Parcel) -> list[Action]:
        """All of it is here."""
        own = self._own
        if self.arrival is None or own is None or not self.arrival.awaits(source, parcel.attempt):
            return [Send(source, Refused(parcel.attempt, "there is no reservation any more"))]
        return self._arrive(lambda arrival: arrival.arrived(parcel, own))

    def expire_reservation(self) -> list[Action]:
        """The parcel did not come in time."""
        return self._arrive(Arrival.expire)

    def _arrive(self, event: Callable[[Arrival], list[Action]]) -> list[Action]:
        """Give the arrival an event, and draw the consequence when it is over."""
        arrival = self.arrival
        if arrival is None:
            return []
        actions = event(arrival)
        match arrival.stage:
            case Stage.WON:
                return [*actions, *self._win(arrival)]
            case Stage.LOST:
                self.arrival = None
                seen, self._seen_coming = self._seen_coming, 0
                return [*actions, *self._dispatch_all(arrival.held), *self._not_here(seen)]
            case _:
                return actions

    def _win(self, arrival: Arrival) -> list[Action]:
        self.arrival = None
        parcel, former = arrival.parcel, self.tombstone
        self.place, self.tombstone = Place.RUNS, None
        self._accepted, self._former = Accepted(parcel.accepted), parcel.former
        self._committed = self._own_mark = self._known = arrival.revision
        if former is not None and self._is_open(former.pointer):
            redirected = self._start_homecoming(former.pointer)
        else:
            redirected = self._start_redirect(self.node)
        along = [action for message in parcel.held for action in self._deliver(message, HERE)]
        return [Adopt(parcel, arrival.revision), *along, *redirected, *self._arrive_all(arrival.held)]

    # -- etcd

    def answered(self, answer: Answer) -> list[Action]:
        """What became of a Transact or Read."""
        if answer.request == self._deletion[0]:
            again = answer.outcome is Outcome.UNKNOWN
            revision, self._deletion = self._deletion[1], (0, 0)
            return self._delete(revision) if again else []
        return [
            *self._depart(lambda departure: departure.answered(answer)),
            *self._arrive(lambda arrival: arrival.answered(answer)),
        ]

    def listed(self, found: Found) -> None:
        """The first list of a node that begins: it has sent nothing yet, so there is no old way to flush."""
        self.redirect.route = found.node

    def moved_seen(self, found: Found) -> list[Action]:
        """The watch shows moved/P written."""
        if found.revision <= self._known:
            return []
        if found.node == self.node:
            return self._seen_here(found)
        if self.departure is not None:
            return self._depart(lambda departure: departure.seen(found))
        if self.place is Place.TOMBSTONE:
            assert self.tombstone is not None
            if found.node == self.tombstone.latest:
                return []
            self.tombstone.latest = self.redirect.route = found.node
            # its own watches went with the process; a link may have closed before this node knew that it mattered
            return self._assert_all()
        elif self.place is Place.ELSEWHERE:
            return self._start_redirect(found.node)
        return []

    def _seen_here(self, found: Found) -> list[Action]:
        if self.place is Place.RUNS:
            self._own_mark = max(self._own_mark, found.revision)
            return []
        if self.arrival is not None:
            self._seen_coming = found.revision
            return []
        return self._not_here(found.revision)

    def _not_here(self, revision: int) -> list[Action]:
        """moved/P names this node at ``revision`` (0: it does not), which has neither the process nor its state."""
        if not revision:
            return []
        parcel = self._forfeited
        if parcel is None or revision <= parcel.revision:
            return self._delete(revision)
        self._forfeited = None
        # others forward to here now: where a tombstone of old points may be the start of their way
        looking = self.tombstone.watchers if self.tombstone is not None else frozenset()
        self.place, self.tombstone = Place.ENDED, None
        return [*self._tell(parcel.watchers | looking), *self._delete(revision)]

    def _delete(self, revision: int) -> list[Action]:
        if not revision or revision == self._deletion[1]:
            return []
        deletion = self._transactions.delete(revision)
        self._deletion = (deletion.request, revision)
        return [deletion]

    def exited(self) -> list[Action]:
        """The process ended here, and has told its watchers. One that is frozen is a state, and can't."""
        if self.departure is not None and self.departure.is_frozen:
            return []
        self.place = Place.ENDED
        finished: list[Action] = []
        if self.departure is not None:
            self.departure = None
            finished = [Finished(Verdict.DIED, "the process ended")]
        mark, self._own_mark = self._own_mark, 0
        return [*self._delete(mark), *finished]

    # -- links, registrations, leases

    def link_opened(self, peer: str) -> list[Action]:
        """A link that had no session has one."""
        return self._depart(lambda departure: departure.link_opened(peer))

    def link_closed(self, peer: str) -> list[Action]:
        """A session closed; ``is_open`` says already whether there is another."""
        return self._closed(peer, is_over=False)

    def epoch_ended(self, peer: str) -> list[Action]:
        """The registration of ``peer`` has ended, and its link with it."""
        fired = self._fire_all() if self.redirect.pending is not None and self.redirect.route == peer else []
        closed = self._closed(peer, is_over=True)
        if self.tombstone is None:
            return [*fired, *closed]
        return [*fired, *closed, *self._tell(self.tombstone.epoch_ended(peer))]

    def _closed(self, peer: str, is_over: bool) -> list[Action]:
        actions: list[Action] = [Send(relay.back, Flushed(relay.flush)) for relay in self._relays.closed(peer)]
        if self.tombstone is not None:
            self.tombstone.forget(peer)
        actions += self._depart(lambda departure: departure.link_closed(peer, is_over))
        actions += self._arrive(lambda arrival: arrival.link_closed(peer))
        pending = self.redirect.pending
        if pending is None and self.redirect.route == peer:
            actions += self._fire_all()
        elif pending is not None and pending.old == peer:
            actions += self._finish_redirect()
        return actions

    def lease_lost(self) -> list[Action]:
        """What this node owned is not its any more: a process that moved in ends, one born here lives on."""
        self._own = None
        if self.arrival is not None and self.arrival.has_parcel:
            self._forfeited = self.arrival.parcel
        actions = self._arrive(Arrival.lease_lost) + self._depart(Departure.lease_lost)
        if self.place is Place.RUNS and self.is_guest and self.departure is None:
            actions.append(Kill())
        return actions

    def registered(self, own: Registration) -> list[Action]:
        """This node has a registration again."""
        self._own = own
        return [*self._look_after_pointer(), *self._depart(lambda departure: departure.registered(own))]
