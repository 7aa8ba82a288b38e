"""Kinds that processes run on: ``process.host`` and ``terminal.host``."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, field_validator

from cluster.patterns import Pattern
from node.durations import PositiveDuration
from node.kinds.lifecycle import Lifecycle
from node.kinds.model import Int, Kind, KindModel, Model
from node.scalars import Size


class Limits(Model):
    """What a host and its processes may take. What is not set is as the node's settings (``limits``) have it, or as
    said here. Each worker of a host is a Lua VM of its own, and limits of a host hold for each of its workers.

    A change takes effect at once and in place; what is beyond a lower limit already stays.
    """

    memory: Annotated[Size, Field(ge=8 * 1024**2, le=1024**4)] | None = None
    """Bytes of the heap of each worker; at 80 % of it whoever holds most is killed. Setting
    ``limits.vm_max_memory``."""
    max_processes: Int | None = Field(default=None, ge=1, le=10_000_000)
    """Processes and function calls alive in each worker; more are refused. 100000 when not set."""
    mailbox_size: Int | None = Field(default=None, ge=1, le=10_000_000)
    """Messages that may wait for one process. Setting ``limits.mailbox_limit``."""
    mailbox_policy: Literal["reject", "kill"] | None = None
    """What a message to a full mailbox does: ``reject`` refuses it, ``kill`` also ends the process. Setting
    ``limits.mailbox_policy``."""
    max_message: Annotated[Size, Field(le=8 * 1024**2)] | None = None
    """Bytes of one message. Setting ``limits.max_message``, which stays the limit between nodes."""
    max_timers: Int | None = Field(default=None, ge=1, le=10_000_000)
    """Timers of one process, its sleeps and deadlines among them. 100000 when not set."""
    max_waiting: Int | None = Field(default=None, ge=1, le=1_000_000)
    """Answers that one process waits for at once, its streams among them. 10000 when not set."""
    max_subscriptions: Int | None = Field(default=None, ge=1, le=1_000_000)
    """Topics that one process listens to. 10000 when not set."""
    pcall_depth: Int | None = Field(default=None, ge=2, le=100)
    """How deep ``pcall``, ``xpcall`` and ``coroutine.resume`` may be nested. 60 when not set."""
    quantum: Int | None = Field(default=None, ge=100, le=10_000_000)
    """Yield points (loop turns and calls) a process may pass before others have their turn. 20000 when not set."""
    stretch: Annotated[PositiveDuration, Field(ge=timedelta(milliseconds=10), le=timedelta(seconds=2))] | None = None
    """How long code that can't be interrupted may run (the comparator of a sort); then its process is killed. 250 ms
    when not set."""


class HostBlock(Limits):
    """Workers and limits of a ``process.host``."""

    workers: Int = Field(default=1, ge=1)
    """Lua VMs with a thread each, so that processes of the host run on several cores. At most the cores of the machine
    and 16. Fewer than before: nothing new starts in those too many, and each ends when its last process has."""
    queue_size: Int = Field(default=1024, ge=1)
    """Accepted, without effect: it sizes the scheduler of the original. Mailboxes have ``mailbox_size``."""
    local_queue_size: Int = Field(default=256, ge=1)
    """Accepted, without effect."""


class RegistryRule(Model):
    """What the programs of a host may do to the registry."""

    write: list[str] | None = None
    """Namespaces they may change: ``tools`` is one, ``tools.*`` each right below it, ``tools.**`` it and all below,
    ``**`` every one, ``[]`` none. Without it the setting ``registry.write`` counts, and without that: every one where
    the node runs its own servers, none in a cluster of external ones."""

    @field_validator("write")
    @classmethod
    def _check_patterns(cls, patterns: list[str] | None) -> list[str] | None:
        return _patterns(patterns)


class ProcessRule(Model):
    """What the programs of a host may do to processes."""

    move: list[str] | None = None
    """Namespaces of hosts whose processes they may move with ``process.move``, written as in ``registry.write``.
    Without it the setting ``processes.move`` counts, and without that: every one where the node runs its own servers,
    none in a cluster of external ones."""

    @field_validator("move")
    @classmethod
    def _check_patterns(cls, patterns: list[str] | None) -> list[str] | None:
        return _patterns(patterns)


def _patterns(patterns: list[str] | None) -> list[str] | None:
    for pattern in patterns or ():
        Pattern(pattern)
    return patterns


class ProcessHost(KindModel):
    """Runs many processes. Every node runs every host."""

    host: HostBlock = HostBlock()
    """Its workers, and the limits of its processes."""
    registry: RegistryRule = RegistryRule()
    """What its programs may do to the registry."""
    processes: ProcessRule = ProcessRule()
    """What its programs may do to processes."""
    lifecycle: Lifecycle = Lifecycle()
    """A host runs on every node whatever this says."""


class TerminalHost(KindModel):
    """Runs one process that has the terminal."""

    hide_logs: bool = False
    """Show no logs on the terminal while it runs."""
    host: Limits = Limits()
    """The limits of its process."""
    registry: RegistryRule = RegistryRule()
    """What its programs may do to the registry."""
    processes: ProcessRule = ProcessRule()
    """What its programs may do to processes."""
    lifecycle: Lifecycle = Lifecycle()
    """A host runs on every node whatever this says."""


KINDS = (
    Kind("process.host", ProcessHost, host=True),
    Kind("terminal.host", TerminalHost, host=True),
)
