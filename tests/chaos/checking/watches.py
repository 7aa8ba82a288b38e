"""Requests, monitors and links (G3).

``check_answers``  every request is answered within its deadline, with an answer that may be expected
``check_watches``  every monitor and link fires, once, and tells an end only of what ended; what its process sent
                   before its end came before
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tests.chaos.checking.history import Operation, Record, node_of, shown
from tests.chaos.checking.run import PROBE, SLACK, Run
from tests.chaos.checking.streams import is_disconnection

DEADLINES = {
    "spawn": 10.0,
    "monitor": 5.0,
    "link": 5.0,
    "terminate": 5.0,
    "register": 30.0,
    "unregister": 15.0,
    "acquire": 15.0,
    "release": 15.0,
    "write": 30.0,
    "send": 35.0,
}
"""Seconds in which each request is answered, whatever happens. A send to a node that takes nothing waits for 30."""


def check_answers(run: Run) -> list[str]:
    """Every request is answered in time, unless its process ended."""
    problems = []
    for operation in run.history.operations(*DEADLINES):
        limit = DEADLINES[operation.what] + SLACK
        if operation.end is not None:
            waited = run.seconds(operation.node, operation.begin, operation.end)
        else:
            over = [at for at in (run.ended(operation.pid), run.until) if at is not None]
            waited = run.seconds(operation.node, operation.begin, min(over))
        if waited > limit:
            problems.append(f"G3: {waited:.1f} s, expected {limit:g} at most: {operation}")
    for operation in run.history.operations(*DEADLINES):
        if operation.problem in ("Internal", "Invalid"):
            problems.append(f"G3: an answer nobody expects: {operation}")
    for record in run.history.of("failed"):
        if record.fields["entry"] != "app:locker":  # one that owns a lock is killed when the lease is in doubt
            problems.append(f"G3: {record.fields['pid']} failed: {record.fields['error']}")
    return problems


def check_watches(run: Run) -> list[str]:
    """Every monitor and link fires when it has to, and only then."""
    by_watcher: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for record in run.history.of("exit", "down", "link_down"):
        kind = "link" if record.fields["f"] == "link_down" else "monitor"
        by_watcher[kind, record.pid, record.fields["from"]].append(record)
    asked: dict[tuple[str, str, str], list[Operation]] = defaultdict(list)
    for operation in run.history.operations("monitor", "link"):
        asked[operation.what, operation.pid, operation.asked["pid"]].append(operation)
    problems = []
    for key in sorted({*by_watcher, *asked}):
        problems += _check_watch(run, key, asked[key], by_watcher[key])
    return problems


def _check_watch(run: Run, key: tuple[str, str, str], asked: list[Operation], fired: list[Record]) -> list[str]:
    kind, watcher, pid = key
    who, problems = f"{kind} of {pid} by {watcher}", []
    begun = sum(operation.ok for operation in asked)
    if len(fired) > begun:
        problems.append(f"G3: {who} fired {len(fired)} times, was confirmed {begun} times")
    for record in fired:
        problems += [] if is_disconnection(record) else _check_end(run, who, pid, record)
    ended, last = run.ended(pid), asked[-1] if asked else None
    if len(fired) < begun and ended is not None and last is not None and last.end is not None:
        is_due = kind == "monitor" or _failed(run, pid)
        over = min(at for at in (run.ended(watcher), run.until) if at is not None)
        since = max(ended, last.end)
        waited, well = run.seconds(node_of(watcher), since, over), run.well_seconds(watcher, pid, since, over)
        if is_due and (waited > run.timeout + PROBE + SLACK or well > run.ttl + SLACK):
            problems.append(f"G3: {who} has not fired, {waited:.1f} s after the end of {pid} at {shown(ended)}")
    return problems


def _failed(run: Run, pid: str) -> bool:
    """Whether the end was one that takes linked processes along, for certain."""
    return pid in run.terminated or (run.died(pid) is not None and pid not in run.history.ended)


def _check_end(run: Run, who: str, pid: str, record: Record) -> Iterator[str]:
    """An end was told: there was one, and what the process sent before it has come."""
    ended = run.history.ended.get(pid)
    error = str(record.fields.get("error") or "")
    if "linked process failed" in error or "terminated" in error or "name is taken" in error:
        return
    if ended is None or ended > record.at:
        yield f"G3: {who} told of an end at {shown(record.at)} ({error or 'normal'}), but {pid} lives"
    before = [word.fields["n"] for word in run.words_taken[record.pid, pid] if word.place < record.place]
    accepted = [word.asked["n"] for word in run.words_said[record.pid, pid] if word.ok]
    if before != accepted:
        yield f"G3: {who} told of the end at {shown(record.at)} after {before} of the words {accepted} sent before it"
