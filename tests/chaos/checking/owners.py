"""Owners of locks and what they write (G4); ``registers`` searches what they were told.

``check_writes``  by etcd's own order, a write took effect only while its writer held the lock; one that was told to
                  have taken effect has, one that was refused has not
``check_acts``    nobody acts after the end of its lease
"""

from __future__ import annotations

from collections import Counter

from cluster.envelope import to_text, unpack
from tests.chaos.checking.history import shown
from tests.chaos.checking.run import Run


def check_writes(run: Run) -> list[str]:
    """Held against etcd's order of revisions; no clock is involved."""
    problems: list[str] = []
    tokens: dict[str, int | None] = {}
    effects: Counter[tuple[str, int, int]] = Counter()
    for change in run.truth.changes:
        if change.key.startswith("locks/"):
            tokens[change.key.removeprefix("locks/")] = None if change.value is None else change.token
        elif change.key.startswith("kv/checked/") and change.value is not None:
            value = to_text(unpack(change.value))[1]
            lock, token = change.key.removeprefix("kv/checked/"), value["token"]
            effects[lock, token, value["n"]] += 1
            if tokens.get(lock) != token:
                held = tokens.get(lock) or "nobody"
                problems.append(f"G4: write {value} took effect at revision {change.revision}, held by {held}")
    for write in run.history.operations("write"):
        count = effects[write.key, write.asked["token"], write.asked["n"]]
        if count > 1 or (write.ok and not count):
            problems.append(f"G4: took effect {count} times: {write}")
        if count and write.problem and not write.unknown:
            problems.append(f"G4: took effect though it was refused: {write}")
    return problems


def check_acts(run: Run) -> list[str]:
    """F4: nothing leaves a process under a lock that etcd had ended by then, unless the process gave it back."""
    lost: dict[tuple[str, int], float] = {}
    held: dict[str, int] = {}
    for change in run.truth.of("locks/"):
        lock = change.key.removeprefix("locks/")
        if change.value is not None:
            held[lock] = change.token
        elif lock in held:
            lost[lock, held.pop(lock)] = change.before
    released = {one.pid: one.begin for one in run.history.operations("release")}
    acquired = {one.pid: one for one in run.history.operations("acquire") if one.ok}
    problems = []
    for record in run.history.records:
        acquire = acquired.get(record.pid)
        if acquire is None or record.at <= (acquire.end or 0) or record.at >= released.get(record.pid, float("inf")):
            continue
        over = lost.get((acquire.key, acquire.answer["token"]))
        if over is not None and record.at > over and "kind" not in record.fields:
            problems.append(f"G4: {record.pid} acts at {shown(record.at)}, its lock was over at {shown(over)}")
    return problems[:5]
