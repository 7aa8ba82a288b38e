"""Histories made up by hand, for the tests of the checkers. Times are seconds, processes letters.

``a1`` is process 1 on node ``a``; its incarnation is 1, its host app:processes.
"""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import Any

from cluster.envelope import pack
from tests.chaos.checking.history import SECOND, History, Record
from tests.chaos.checking.run import Run
from tests.chaos.checking.troubles import Trouble, Troubles, What
from tests.chaos.checking.truth import Change, Truth

TIMEOUT, TTL = 8.0, 5.0


def pid(name: str) -> str:
    """The PID of a process: ``a1``, or ``a1@others`` on the other host."""
    process, _, host = name.partition("@")
    return f"{{{process[0]}@app:{host or 'processes'}|1-{process[1:]}}}"


class Story:
    """Told in any order; ``run`` is what would have been recorded."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._places: Counter[str] = Counter()
        self._numbers = count(1)
        self._changes: list[Change] = []
        self.troubles = Troubles()
        self.until = 100.0
        for node in "abc":
            self.change(1, f"nodes/{node}", b"joined", 0.5)

    def event(self, at: float, who: str, f: str, **fields: Any) -> None:
        """Something happened to a process. ``from_``, ``to`` and ``pid`` are names."""
        self._write(at, who, {"f": f, **_with_pids(fields)})

    def ask(self, begin: float, end: float | None, who: str, what: str, *, answer: Any = None, **asked: Any) -> None:
        """An operation; ``end`` None: never answered. An ``answer`` that is a text is the kind of its error."""
        number = next(self._numbers)
        self._write(begin, who, {"f": what, "op": number, **_with_pids(asked)})
        if end is not None:
            fields = {"kind": answer, "error": f"it was {answer}"} if isinstance(answer, str) else answer or {}
            self._write(end, who, {"done": number, **fields})

    def send(self, at: float, who: str, to: str, first: int, last: int, *, refused: tuple[int, ...] = ()) -> None:
        answer = {"last": last, "refused": list(refused)}
        self.ask(at, at + 0.1, who, "send", to=to, first=first, last=last, answer=answer)

    def took(self, at: float, who: str, sender: str, first: int, last: int) -> None:
        self.event(at, who, "took", from_=sender, first=first, last=last)

    def change(self, revision: int, key: str, value: bytes | None, at: float) -> None:
        """Etcd has a value; seen within a tenth of a second."""
        self._changes.append(Change(revision, key, value, (at - 0.1) * SECOND, at * SECOND))

    def write(self, revision: int, lock: str, who: str, token: int, n: int, at: float) -> None:
        value = {"pid": pid(who), "token": token, "n": n}
        self.change(revision, f"kv/checked/{lock}", pack([0, value]), at)

    def trouble(self, node: str, what: What, begin: float, end: float) -> None:
        self.troubles.every.append(Trouble(node, what, begin * SECOND, end * SECOND))

    def run(self) -> Run:
        truth = Truth(sorted(self._changes, key=lambda change: change.revision))
        return Run(History(self._records), truth, self.troubles, self.until * SECOND, TIMEOUT, TTL)

    def _write(self, at: float, who: str, fields: dict[str, Any]) -> None:
        self._places[who[0]] += 1
        self._records.append(Record(round(at * SECOND), pid(who), fields, self._places[who[0]]))


def _with_pids(fields: dict[str, Any]) -> dict[str, Any]:
    named = {name.rstrip("_"): value for name, value in fields.items()}
    return {name: pid(value) if name in ("from", "to", "pid") else value for name, value in named.items()}
