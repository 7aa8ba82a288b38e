"""What the processes of a checked run did, as they wrote it down: see ``tests.chaos.recorded`` for how.

A record is an event, or the begin or the end of an operation. The times are of one clock for all processes of the
machine, taken between the process and what it did: an operation took effect, if it did, after its ``begin`` and before
its ``end``. One without an end was under way when its process ended. Within one VM (``Record.vm``) records stand in the
order in which they were made, whatever their process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

SECOND = 1_000_000_000
_PID = re.compile(r"\{([^@]+)@([^|]+)\|(\w+)-\w+\}")


@dataclass(frozen=True)
class Record:
    """One line: when (nanoseconds), who, what, and its place in the file of its node."""

    at: int
    pid: str
    fields: dict[str, Any]
    place: int = 0

    @property
    def node(self) -> str:
        return node_of(self.pid)

    @property
    def vm(self) -> tuple[str, ...]:
        """The node, its incarnation, and the host."""
        match = _PID.match(self.pid)
        assert match is not None, self.pid
        return match[1], match[3], match[2]


@dataclass(frozen=True)
class Operation:
    """What a process asked for, from ``begin`` to ``end``; no end: it never heard."""

    what: str
    pid: str
    begin: int
    asked: dict[str, Any]
    end: int | None = None
    answer: dict[str, Any] = field(default_factory=dict)

    @property
    def node(self) -> str:
        return node_of(self.pid)

    @property
    def key(self) -> str:
        return str(self.asked["key"])

    @property
    def problem(self) -> str:
        """The kind of its error; empty when there was none, or no answer."""
        return str(self.answer.get("kind") or "")

    @property
    def ok(self) -> bool:
        return self.end is not None and not self.problem

    @property
    def unknown(self) -> bool:
        """Whether it may have taken effect, or may yet."""
        return self.end is None or self.problem == "Timeout"

    def __str__(self) -> str:
        asked = " ".join(f"{name}={value}" for name, value in self.asked.items())
        if self.end is None:
            return f"{self.what} {asked} by {self.pid} at {shown(self.begin)}, never answered"
        answer = self.answer.get("error") or self.answer
        return f"{self.what} {asked} by {self.pid} at {shown(self.begin)} -> {answer} at {shown(self.end)}"


def node_of(pid: str) -> str:
    """The node in a PID."""
    return pid[1 : pid.index("@")]


def shown(at: float) -> str:
    """A time, in seconds."""
    return f"{at / SECOND:.3f}"


class History:
    """All records of a run."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.records = sorted(records, key=lambda record: (record.at, record.place))

    def of(self, *names: str) -> Iterator[Record]:
        """Events of these names, by time."""
        return (record for record in self.records if record.fields.get("f") in names and "op" not in record.fields)

    def by_vm(self) -> dict[tuple[str, ...], list[Record]]:
        """The records of each VM in the order they were made."""
        found: dict[tuple[str, ...], list[Record]] = {}
        for record in sorted(self.records, key=lambda record: record.place):
            found.setdefault(record.vm, []).append(record)
        return found

    def operations(self, *names: str) -> list[Operation]:
        """Operations of these names, by their begin."""
        return [operation for operation in self._operations if operation.what in names]

    @cached_property
    def _operations(self) -> list[Operation]:
        ends = {(one.pid, one.fields["done"]): one for one in self.records if "done" in one.fields}
        found = []
        for begin in self.records:
            if "op" in begin.fields:
                end = ends.get((begin.pid, begin.fields["op"]))
                asked = {name: value for name, value in begin.fields.items() if name not in ("f", "op")}
                answer = (end.at, end.fields) if end is not None else (None, {})
                found.append(Operation(begin.fields["f"], begin.pid, begin.at, asked, *answer))
        return found

    @cached_property
    def last_seen(self) -> dict[str, int]:
        """When each process wrote its last record."""
        return {record.pid: record.at for record in self.records}

    @cached_property
    def ended(self) -> dict[str, int]:
        """When a process wrote that it ends."""
        return {record.pid: record.at for record in self.of("ends")}


class Recording:
    """The files that nodes write, read as they grow."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = list(paths)
        self._read = dict.fromkeys(self._paths, 0)
        self._records: dict[Path, list[Record]] = {path: [] for path in self._paths}

    def history(self, since: int = 0) -> History:
        """All that is written by now, of the time after ``since``. What a kill cut off is no record."""
        for path in self._paths:
            self._read_on(path)
        return History(one for records in self._records.values() for one in records if one.at >= since)

    def _read_on(self, path: Path) -> None:
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._read[path])
            whole, _, _ = file.read().rpartition(b"\n")
        if not whole:
            return
        self._read[path] += len(whole) + 1
        records = self._records[path]
        for line in whole.split(b"\n"):
            at, pid, text = line.split(b" ", 2)
            records.append(Record(int(at), pid.decode(), json.loads(text), len(records)))
