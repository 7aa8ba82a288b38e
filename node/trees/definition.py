"""What a ``process.supervisor`` entry says, as the supervision core takes it.

What a child *is* - its process, host, place and input - is its ``Work``: when that differs, the
child is another one. How it is kept may change while it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import ValidationError

from cluster.errors import Invalid, Problem
from cluster.registry import Entry
from cluster.supervision import AutoShutdown, Backoff, BranchSpec, ChildSpec, Restart, Strategy
from node.explain import explain
from node.kinds import decode
from node.kinds.supervisor import LOCAL, Child, ProcessSupervisor, Template

SHUTDOWN = 5.0
"""Seconds a process may take to end when its child says nothing."""
SUPERVISOR = "process.supervisor"


@dataclass(frozen=True)
class Work:
    """What a child runs, and where it may."""

    process: str
    host: str
    """Empty for a supervisor."""
    node: str
    labels: tuple[tuple[str, str], ...]
    input: list[Any]

    @property
    def is_local(self) -> bool:
        """Whether it runs beside its supervisor only."""
        return self.node == LOCAL and not self.labels


@dataclass(frozen=True)
class Definition:
    """A supervisor as its entry says."""

    spec: BranchSpec
    children: Sequence[ChildSpec]
    template: Template | None
    allows_duplicates: bool

    @property
    def is_spread(self) -> bool:
        """Whether children may be on other nodes."""
        templates = () if self.template is None else (self.template,)
        return any(not child.work.is_local for child in self.children) or any(one.is_placed for one in templates)


class Definitions:
    """Reads entries. ``entry`` gives one of the registry, ``env`` the value of a variable."""

    def __init__(self, entry: Callable[[str], Entry | None], env: Callable[[str], str | None]) -> None:
        self._entry = entry
        self._env = env

    def of(self, id: str) -> Definition:
        """The definition of the supervisor ``id``. Raises Invalid."""
        entry = self._entry(id)
        if entry is None:
            raise Invalid([Problem("there is no such entry", id)])
        if entry.kind != SUPERVISOR:
            raise Invalid([Problem(f"is of kind {entry.kind}; expected {SUPERVISOR}", id, "kind")])
        model = decode(entry, self._env)
        assert isinstance(model, ProcessSupervisor)
        backoff = model.backoff
        return Definition(
            BranchSpec(
                Strategy(model.strategy),
                model.intensity,
                model.period.total_seconds(),
                AutoShutdown(model.auto_shutdown),
                Backoff(
                    backoff.initial_delay.total_seconds(),
                    backoff.max_delay.total_seconds(),
                    backoff.backoff_factor,
                    backoff.jitter,
                    backoff.stable_threshold.total_seconds(),
                ),
            ),
            [self.child(child.id, child) for child in model.children],
            model.template,
            model.duplicates == "allowed",
        )

    def child(self, id: str, template: Template, more: Sequence[Any] = ()) -> ChildSpec:
        """A child made from what its supervisor's entry says, with ``more`` arguments. Raises Invalid."""
        entry = self._entry(template.process)
        if entry is None:
            raise Invalid([Problem(f"there is no entry {template.process}", field="process")])
        is_supervisor = entry.kind == SUPERVISOR
        if not is_supervisor and template.host is None:
            raise Invalid([Problem("is required and missing; name the process.host it runs on", field="host")])
        work = Work(
            template.process,
            "" if is_supervisor else template.host or "",
            template.node,
            tuple(sorted(template.labels.items())),
            [*template.input, *more],
        )
        return ChildSpec(
            id, Restart(template.restart), _shutdown(template, is_supervisor), template.significant, is_supervisor, work
        )

    def added(self, supervisor: str, told: Any) -> ChildSpec:
        """A child as a program gave it to ``supervisor.start_child``. Raises Invalid."""
        namespace = supervisor.partition(":")[0]
        try:
            child = Child.model_validate(told, context={"namespace": namespace})
        except ValidationError as error:
            raise Invalid(list(explain(error, Child))) from None
        return self.child(child.id, child)


def _shutdown(template: Template, is_supervisor: bool) -> float | None:
    match template.shutdown:
        case timedelta() as time:
            return time.total_seconds()
        case "kill":
            return 0.0
        case "infinity":
            return None
        case _:
            return None if is_supervisor else SHUTDOWN
