"""Names and locks as registers that one process holds at a time, for the search in ``linearizability``.

What a process was told becomes a step. Besides, a holder may lose what it has: to the end of its node's registration,
which certainly frees everything of that node at some time between two reads of etcd, and to its own end, which frees
it at some time after. Where the outcome was unknown, the step may have happened at any later time, or never.

    register, acquire    ok: it was free (or, a name, the caller's own) and is the caller's
                         taken: it was held by the one the error names
    unregister, release  true: it is not the caller's any more; false: it was not the caller's

A lock's token grows with every holder. What an answer "Unavailable" leaves open is not held against it: a lock may
have been held for a moment and given back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import TypeAlias

from tests.chaos.checking.history import History, Operation, node_of
from tests.chaos.checking.linearizability import Step, TooMuch, check
from tests.chaos.checking.run import Run
from tests.chaos.checking.truth import Epoch

Held: TypeAlias = tuple[str, int]
"""Who has it ("": nobody), and the highest token that was given."""
FREE: Held = ("", 0)
Apply: TypeAlias = Callable[[Held], Held | None]
TAKES, GIVES = ("register", "acquire"), ("unregister", "release")


def check_registers(run: Run) -> list[str]:
    """What is wrong with the names and locks of a run, key by key."""
    history, ends = run.history, [one for one in run.truth.epochs() if one.gone != inf]
    problems = []
    for takes, gives in zip(TAKES, GIVES):
        by_key: dict[str, list[Operation]] = {}
        for operation in history.operations(takes, gives):
            by_key.setdefault(operation.key, []).append(operation)
        for key, operations in sorted(by_key.items()):
            steps = steps_of(operations, history, ends)
            try:
                verdict = check(steps, FREE)
            except TooMuch as error:
                problems.append(f"{takes} of {key!r}: {error}")
                continue
            if not verdict.linearizable:
                problems.append(f"G4: {takes} of {key!r} is not linearizable: {verdict}")
    return problems


def steps_of(operations: Iterable[Operation], history: History, ends: Iterable[Epoch]) -> list[Step[Held]]:
    """The steps of one key, ends of registrations included."""
    operations, ends = list(operations), list(ends)
    known = {pid for operation in operations for pid in _seen_by(operation)}
    steps = [step for operation in operations for step in _steps(operation, operation.pid in known)]
    steps += [_for_a_moment(one) for one in operations if one.pid in known and _was_asked_twice(one, ends)]
    for pid in sorted(known):
        since = history.ended.get(pid, history.last_seen.get(pid, 0))
        steps.append(Step(since, inf, _frees(pid), f"end of {pid}"))
    for epoch in ends:
        shown = f"end of the registration {epoch.number} of {epoch.node}"
        steps.append(Step(epoch.until, epoch.gone, _frees_node(epoch.node), shown))
    return steps


def _seen_by(operation: Operation) -> list[str]:
    """Who held it, as this answer shows."""
    if operation.what in TAKES and operation.ok:
        return [operation.pid]
    details = operation.answer.get("details")
    holder = details.get("by") or details.get("holder") if isinstance(details, dict) else None
    return [holder] if holder else []


def _was_asked_twice(operation: Operation, ends: Iterable[Epoch]) -> bool:
    """Whether it may have been had under a registration that ended before the answer: then it was asked for again."""
    if operation.what not in TAKES or operation.problem != "AlreadyExists" or operation.end is None:
        return False
    end = operation.end
    return any(one.node == operation.node and operation.begin <= one.gone and one.until <= end for one in ends)


def _for_a_moment(operation: Operation) -> Step[Held]:
    return Step(operation.begin, inf, _may_take(operation.pid), f"first try of: {operation}")


def _steps(operation: Operation, is_known: bool) -> list[Step[Held]]:
    """What an operation may have done; nothing, where nobody ever saw it."""
    begin, end, shown = operation.begin, operation.end, str(operation)
    takes = operation.what in TAKES
    if operation.ok:
        assert end is not None
        return [Step(begin, end, _took(operation) if takes else _gave(operation), shown)]
    if operation.problem == "AlreadyExists":
        assert end is not None
        return [Step(begin, end, _was(_seen_by(operation)[0]), shown)]
    if not is_known:
        return []
    if operation.unknown or operation.what != "register":
        return [Step(begin, inf, _may_take(operation.pid) if takes else _frees(operation.pid), shown)]
    return []


def _took(operation: Operation) -> Apply:
    pid, token = operation.pid, int(operation.answer.get("token", 0))

    def apply(held: Held) -> Held | None:
        holder, highest = held
        if operation.what == "register":
            return (pid, 0) if holder in ("", pid) else None
        return (pid, token) if not holder and token > highest else None

    return apply


def _gave(operation: Operation) -> Apply:
    pid, value = operation.pid, operation.answer.get("value")

    def apply(held: Held) -> Held | None:
        if value:
            return ("", held[1]) if held[0] == pid else held
        return None if held[0] == pid else held

    return apply


def _may_take(pid: str) -> Apply:
    return lambda held: (pid, held[1]) if not held[0] else None


def _was(holder: str) -> Apply:
    return lambda held: held if held[0] == holder else None


def _frees(pid: str) -> Apply:
    return lambda held: ("", held[1]) if held[0] == pid else held


def _frees_node(node: str) -> Apply:
    return lambda held: ("", held[1]) if held[0] and node_of(held[0]) == node else held
