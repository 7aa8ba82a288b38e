"""The cores of a move with one rule dropped: each must be caught by a walk, or the walks prove nothing.

``by`` names what catches it: the scenario of walks, of which ``seed`` is one that does, or "case: " and a test of
``test_cases``. What is taken out of a mailbox into a channel before the freeze is the kernel's, and is not here.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.migration.arrival import Arrival
from cluster.migration.core import MoveCore
from cluster.migration.departure import Departure
from cluster.migration.numbers import Accepted, Stamps
from cluster.migration.relays import Relays
from cluster.migration.tombstone import Tombstone
from cluster.migration.transactions import Transactions
from cluster.migration.watches import Watches
from tests.sim.mutants import Change, Mutant


@dataclass(frozen=True)
class MoveMutant:
    """``mutant`` breaks a rule of the move, ``by`` is what notices."""

    mutant: Mutant
    by: str
    seed: int = 0

    def __str__(self) -> str:
        return self.mutant.name

    @property
    def case(self) -> str:
        return self.by.removeprefix("case: ") if self.by.startswith("case: ") else ""


def one(name: str, place: type, function: str, old: str, new: str, by: str, seed: int = 0) -> MoveMutant:
    return MoveMutant(Mutant(name, "move", (Change(place, function, old, new),)), by, seed)


MUTANTS = (
    # two copies, or none
    one(
        "the commit does not look at the mark",
        Transactions,
        "commit",
        'Compare.mod(self._key, "=", parcel.revision),',
        "",
        "unknown",
        16,
    ),
    one(
        "the source resumes without asking etcd",
        Departure,
        "give_up",
        "if not self.is_frozen:",
        "if True:",
        "unknown",
        3,
    ),
    one(
        "the abort does not look at the mark",
        Transactions,
        "abort",
        'Compare.mod(self._key, "=", marked)',
        'Compare.mod(self._key + "/", "=", 0)',
        "unknown",
        7,
    ),
    one(
        "a mark that failed is no reason to stay",
        Transactions,
        "mark",
        'Compare.mod(self._key, "=", seen)',
        'Compare.mod(self._key + "/", "=", 0)',
        "slow etcd",
        147,
    ),
    one(
        "the target ran it and died: the source takes the missing key for an abort",
        Departure,
        "_abort_failed",
        "elif self._is_sent:",
        "elif False:",
        "watch crash",
        46,
    ),
    one(
        "the source takes its own earlier abort for the commit",
        Departure,
        "_abort_failed",
        "if found is not None and found.node != self.node:",
        "if found is not None:",
        "unknown",
        3,
    ),
    one(
        "an abort with unknown outcome is taken for done",
        Departure,
        "answered",
        "return self._abort()",
        "self._end(Step.STAYED, self.reason)",
        "case: an abort nobody heard of is not done",
    ),
    one(
        "the target drops the state while its commit may land",
        Arrival,
        "_found",
        "if found is not None and found.revision == self.parcel.revision:",
        "if False:",
        "unknown",
        41,
    ),
    one(
        "an unknown commit is taken for lost",
        Arrival,
        "answered",
        "case Stage.COMMITTING, Outcome.FAILED:",
        "case Stage.COMMITTING, Outcome.FAILED | Outcome.UNKNOWN:",
        "unknown",
        7,
    ),
    one(
        "a parcel never sent is taken for one that was",
        Departure,
        "_abort_failed",
        "elif self._is_sent:",
        "elif True:",
        "lapse",
        148,
    ),
    one(
        "a guest goes on without the lease it came under",
        Departure,
        "_abort_failed",
        "elif self._is_guest:",
        "elif False:",
        "case: a guest whose lease ended while it was frozen ends",
    ),
    one(
        "a guest is not killed when the lease is over",
        MoveCore,
        "lease_lost",
        "self.place is Place.RUNS and self.is_guest",
        "False",
        "guest lapse",
        164,
    ),
    one(
        "a move goes on whose mark went with the lease",
        Departure,
        "lease_lost",
        "elif self.step not in ENDS:",
        "elif False:",
        "lapse",
        118,
    ),
    # messages
    one(
        "what arrives for a frozen process is delivered",
        MoveCore,
        "_dispatch",
        "if self.departure is not None and self.departure.is_frozen:",
        "if False:",
        "messages",
    ),
    one(
        "a tombstone does not forward",
        MoveCore,
        "_forward",
        "if self.tombstone.is_over or not self._is_open(pointer):",
        "if True:",
        "messages",
    ),
    one(
        "there is no process while the commit is undecided",
        MoveCore,
        "_is_undecided",
        "if self.arrival is None or not self.arrival.has_parcel:",
        "if True:",
        "at the target",
        357,
    ),
    one(
        "a sender goes direct at once",
        MoveCore,
        "_start_redirect",
        "if old == self.node or not self._is_open(old):",
        "if True:",
        "messages",
        35,
    ),
    one(
        "a tombstone answers a flush before what it forwarded has arrived",
        MoveCore,
        "_forward",
        "self._relays.pass_on(Relay(way.link, pointer, item))",
        "return [Send(way.link, Flushed(item))]",
        "messages",
        81,
    ),
    one(
        "a flush that a close swallowed is waited for",
        Relays,
        "closed",
        "relay.onward == peer and relay.back != peer",
        "False",
        "closes",
        92,
    ),
    one(
        "a redirect waits for an old place that is gone",
        MoveCore,
        "_closed",
        "elif pending is not None and pending.old == peer:",
        "elif False:",
        "crash",
        47,
    ),
    one(
        "nothing flushes what the process itself has sent",
        Departure,
        "frozen",
        "self._awaited = set(luggage.sent_to) - {self.node}",
        "self._awaited = set()",
        "messages",
        132,
    ),
    one(
        "a close counts as the answer to the flush of the process's own messages",
        Departure,
        "link_closed",
        "if is_over:",
        "if True:",
        "closes out",
        182,
    ),
    one(
        "late messages are accepted",
        Accepted,
        "accept",
        "number <= self._highest.get(node, 0)",
        "False",
        "back closes",
        31,
    ),
    one(
        "the numbers do not travel",
        MoveCore,
        "_win",
        "Accepted(parcel.accepted)",
        "Accepted()",
        "back closes",
        31,
    ),
    one(
        "a forward is refused once something has come direct",
        MoveCore,
        "_deliver",
        "if not self._accepted.accept(sender, number)",
        "if (way.passed and sender in self._accepted.highest) or not self._accepted.accept(sender, number)",
        "back",
        5,
    ),
    one(
        "who comes home does not wait for what it forwarded",
        MoveCore,
        "_win",
        "if former is not None and self._is_open(former.pointer):",
        "if False:",
        "case: who comes home waits for what it forwarded",
    ),
    one(
        "who comes home holds what it forwarded itself",
        MoveCore,
        "_start_homecoming",
        "(self.node,)",
        "()",
        "back",
        1,
    ),
    one(
        "the next move does not wait for the homecoming",
        MoveCore,
        "_why_not",
        "if self.redirect.pending is not None:",
        "if False:",
        "case: the next move waits for the homecoming",
    ),
    one(
        "a pointer follows the process at once",
        MoveCore,
        "moved_seen",
        "self.tombstone.latest = self.redirect.route = found.node",
        "self.tombstone.pointer = self.tombstone.latest = self.redirect.route = found.node",
        "case: a pointer stays while its node does",
    ),
    one(
        "what was held comes before what waits",
        MoveCore,
        "_win",
        "*redirected, *self._arrive_all(arrival.held)",
        "*redirected, *self._dispatch_all(arrival.held)",
        "at the target",
        279,
    ),
    # names
    one(
        "names stay under the lease of the source",
        Transactions,
        "commit",
        "*(Put(held.key, held.value, own.lease) for held in parcel.holdings)",
        "",
        "messages",
    ),
    one(
        "a name is taken from who has it now",
        Transactions,
        "commit",
        '*(Compare.mod(held.key, "=", held.revision) for held in parcel.holdings),',
        "",
        "rename",
        7,
    ),
    one(
        "a name that went with the process is stale",
        MoveCore,
        "_deliver",
        "if revision in self._former",
        "if False",
        "by name chain",
    ),
    # watchers
    one(
        "those who look at a tombstone never hear of the holder's end",
        Tombstone,
        "epoch_ended",
        "told = self.watchers",
        "told: frozenset[Watcher] = frozenset()",
        "case: who looks at a tombstone hears of the end of the latest holder",
    ),
    one(
        "a pointer stays on a node that is gone",
        Tombstone,
        "epoch_ended",
        "if node == self.pointer:",
        "if False:",
        "case: a pointer leaves a node that is gone",
    ),
    one(
        "a pointer is all a tombstone knows",
        Tombstone,
        "epoch_ended",
        "if node == self.latest:",
        "if node == self.pointer:",
        "case: who looks at a tombstone hears of the end of the latest holder",
    ),
    one(
        "a watch is not asserted at the new place",
        MoveCore,
        "_finish_redirect",
        "*self._assert_all(), ",
        "",
        "watch closes",
        63,
    ),
    one(
        "the source does not assert the watches of its own processes",
        MoveCore,
        "_become_tombstone",
        "*self._assert_all()",
        "",
        "watch at both",
        99,
    ),
    one(
        "an assertion is said once",
        Watches,
        "assert_one",
        "self._unanswered.add(watcher)",
        "pass",
        "case: an assertion is repeated until it is answered under its number",
    ),
    one(
        "an answer to an earlier assertion settles a later one",
        Watches,
        "answered",
        "self._asserted.get(assertion.watcher) != assertion",
        "assertion.watcher not in self._asserted",
        "case: an assertion is repeated until it is answered under its number",
    ),
    one(
        "who waits for a flush does not hear that the holder ended",
        MoveCore,
        "epoch_ended",
        "self._fire_all() if self.redirect.pending is not None and self.redirect.route == peer else []",
        "[]",
        "case: who waits for a flush hears at once that the holder ended",
    ),
    one(
        "nobody hears that a link closed",
        MoveCore,
        "_closed",
        "actions += self._fire_all()",
        "pass",
        "watch crash",
        2,
    ),
    one(
        "those who watch a frozen process that died elsewhere never hear",
        MoveCore,
        "_died_elsewhere",
        "self._tell(departure.luggage.watchers)",
        "[]",
        "case: who watches a process that died elsewhere hears of it",
    ),
    one(
        "the watchers of a process that came while the lease was in doubt never hear",
        MoveCore,
        "lease_lost",
        "self._forfeited = self.arrival.parcel",
        "pass",
        "case: a process that came while the lease was in doubt has ended",
    ),
    # the key
    one("the key stays when the process ends", MoveCore, "exited", "*self._delete(mark), ", "", "watch", 2),
    one(
        "the key stays that names a node without the process",
        MoveCore,
        "_not_here",
        "if parcel is None or revision <= parcel.revision:\n        return self._delete(revision)",
        "if parcel is None or revision <= parcel.revision:\n        return []",
        "watch",
        22,
    ),
    one(
        "an unknown deletion is not repeated",
        MoveCore,
        "answered",
        "return self._delete(revision) if again else []",
        "return []",
        "watch",
        26,
    ),
    one(
        "a mark that was late is not known when the process ends",
        MoveCore,
        "_seen_here",
        "self._own_mark = max(self._own_mark, found.revision)",
        "pass",
        "watch",
        14,
    ),
    one(
        "a reservation lasts for ever",
        Arrival,
        "expire",
        "self.stage = Stage.LOST",
        "pass",
        "messages",
        12,
    ),
    one(
        "what the watch shows late is news",
        MoveCore,
        "moved_seen",
        "if found.revision <= self._known:",
        "if False:",
        "case: what the watch shows late is old",
    ),
    one(
        "a flush a close swallowed is not sent again",
        Departure,
        "link_closed",
        "return self.link_opened(peer)",
        "return []",
        "case: a flush of what the process sent goes again after a close and counts not for the dead",
    ),
    one(
        "the parcel waits for a node that is gone",
        Departure,
        "link_closed",
        "if is_over:",
        "if False:",
        "case: a flush of what the process sent goes again after a close and counts not for the dead",
    ),
    one(
        "an answer to the flush of an earlier move counts",
        Departure,
        "link_flushed",
        "or number != self.target.attempt",
        "",
        "case: an answer to the flush of an earlier move does not count",
    ),
    one(
        "numbers begin anew with a node",
        Stamps,
        "__init__",
        "incarnation << COUNTER_BITS",
        "0",
        "case: a node that was started again numbers above its former life",
    ),
)
