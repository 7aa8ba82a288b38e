"""Look-ups of names: of a copy that is milliseconds behind etcd, and what is promised all the same.

A look-up shows what was so, and not yet what will be. In one VM of a node it goes back nowhere, and knows what was
registered and given back there. After a STRONG registration every VM of every registered node knows it. On a node that
is well it is not behind for seconds. Who is told that his name was revoked has lost it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.chaos.checking.history import SECOND, History, Operation, Record, shown
from tests.chaos.checking.run import Run
from tests.chaos.checking.troubles import What
from tests.chaos.checking.truth import Truth

BEHIND = 3.0
"""Seconds a look-up on a healthy node may be behind: milliseconds are promised, busy machines are forgiven."""
WELL_AFTER = 8.0
"""Seconds after trouble with etcd in which a node finds its way back to it."""
STRONG_AFTER = 2.0
"""Seconds after a STRONG registration in which what every node knows is known to all its VMs."""


@dataclass
class Name:
    """The holders of a name, one after the other ("": nobody), and when: not before, not after."""

    holders: list[str]
    after: list[float]
    before: list[float]

    def place_of(self, pid: str) -> int | None:
        """Where the process got the name; a process of the workload has it once."""
        return self.holders.index(pid) if pid in self.holders else None

    def first(self, pid: str, floor: int) -> int | None:
        """The first place from ``floor`` on where ``pid`` is the holder."""
        return next((i for i in range(floor, len(self.holders)) if self.holders[i] == pid), None)

    def last(self, pid: str, at: float) -> int:
        """The last place up to ``at`` where ``pid`` may have been the holder; -1 for nowhere."""
        end = bisect_left(self.after, at)
        return next((i for i in range(end - 1, -1, -1) if self.holders[i] == pid), -1)


def name_of(truth: Truth, name: str) -> Name:
    """A name as etcd had it."""
    found = Name([""], [0.0], [0.0])
    for change in truth.history(f"names/{name}"):
        holder = "" if change.value is None else (change.value.decode().partition("} ")[0].rstrip("}") + "}")
        if holder != found.holders[-1]:
            found.holders.append(holder)
            found.after.append(change.after)
            found.before.append(change.before)
    return found


def check_looks(run: Run) -> list[str]:
    """Each VM of a node goes through the true states of a name in their order, skipping some."""
    names = {key: name_of(run.truth, key) for key in _keys(run.history)}
    strong = [one for one in run.history.operations("register") if one.ok and one.asked["scope"] == "STRONG"]
    problems: list[str] = []
    for vm, records in run.history.by_vm().items():
        floors: Counter[str] = Counter()
        begun: dict[tuple[str, int], Operation] = {}
        operations = {(one.pid, one.begin): one for one in run.history.operations("register", "unregister")}
        for record in records:
            if "op" in record.fields and (record.pid, record.at) in operations:
                begun[record.pid, record.fields["op"]] = operations[record.pid, record.at]
            elif "done" in record.fields:
                done = begun.pop((record.pid, record.fields["done"]), None)
                if done is not None and done.ok:
                    problems += _raise(names[done.key], done, floors)
            elif record.fields["f"] == "revoked":
                problems += _check_revoked(names[record.fields["key"]], record)
            else:
                for key, value in _looked(record):
                    problems += _check_look(run, vm, names[key], key, value or "", record, floors, strong)
    return problems[:20]


def _keys(history: History) -> set[str]:
    looked = {key for record in history.of("look", "looks") for key, _ in _looked(record)}
    return looked | {one.key for one in history.operations("register", "unregister")}


def _looked(record: Record) -> Iterable[tuple[str, Any]]:
    match record.fields:
        case {"f": "looks", "values": values}:
            return list(values.items())
        case {"f": "look", "key": key, "value": value}:
            return [(key, value)]
        case _:
            return []


def _raise(name: Name, done: Operation, floors: Counter[str]) -> Iterator[str]:
    """What was registered or given back here is known here from now on."""
    place = name.place_of(done.pid)
    if place is None:
        if done.what == "register" or done.answer.get("value"):
            yield f"G4: etcd never had what was answered: {done}"
        return
    if done.what == "unregister":
        if not done.answer.get("value"):
            return
        place += 1
        if place >= len(name.holders):
            yield f"G4: etcd still has it: {done}"
            return
    floors[done.key] = max(floors[done.key], place)


def _check_revoked(name: Name, record: Record) -> Iterator[str]:
    place = name.place_of(record.pid)
    if place is not None and (place + 1 == len(name.holders) or name.after[place + 1] > record.at):
        yield f"look-ups: {record.pid} was told at {shown(record.at)} that its name was revoked, but had it still"


def _check_look(
    run: Run,
    vm: tuple[str, ...],
    name: Name,
    key: str,
    value: str,
    record: Record,
    floors: Counter[str],
    strong: list[Operation],
) -> Iterator[str]:
    who = f"look-up of {key!r} on {'/'.join(vm)} at {shown(record.at)} showed {value or 'nobody'}"
    place = name.first(value, floors[key])
    if place is None:
        was = "an earlier state" if value in name.holders else "what never was"
        yield f"look-ups: {who}: {was}; {name.holders[floors[key]] or 'nobody'} was known there before"
        return
    floors[key] = place
    if name.after[place] > record.at:
        yield f"look-ups: {who}, which was so only later"
        return
    last = name.last(value, record.at)
    for one in strong:
        if one.key == key and last < (name.place_of(one.pid) or 0) and _must_know(run, vm[0], one, record.at):
            yield f"look-ups: {who}, after a STRONG registration: {one}"
    over = name.before[last + 1] if last + 1 < len(name.before) else float("inf")
    if over < record.at - BEHIND * SECOND and _is_well(run, vm[0], record.at):
        yield f"look-ups: {who}, which was over at {shown(over)}: too far behind on a node that is well"


def _must_know(run: Run, node: str, strong: Operation, at: float) -> bool:
    """Whether a STRONG registration was complete by then, and the node registered and running all the time."""
    if strong.end is None or at <= strong.end + STRONG_AFTER * SECOND:
        return False
    stopped = run.troubles.of_between(node, strong.end, at, What.STOPPED)
    return not stopped and run.truth.registered(node, strong.begin, at)


def _is_well(run: Run, node: str, at: float) -> bool:
    """Whether the node had a good way to etcd for the last seconds."""
    since = at - (BEHIND + WELL_AFTER) * SECOND
    return not run.troubles.of_between(node, since, at, What.ETCD, What.STOPPED, What.SLOW, What.DEAD)
