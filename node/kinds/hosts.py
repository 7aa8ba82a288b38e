"""Kinds that processes run on: ``process.host`` and ``terminal.host``."""

from __future__ import annotations

from pydantic import Field

from node.kinds.lifecycle import Lifecycle
from node.kinds.model import Kind, KindModel, Model


class Workers(Model):
    """Size of a host in the original; a host is one Lua VM here, the numbers are accepted and kept."""

    workers: int | None = Field(default=None, ge=1)
    queue_size: int = Field(default=1024, ge=1)
    local_queue_size: int = Field(default=256, ge=1)


class ProcessHost(KindModel):
    """Runs many processes. Every node runs every host."""

    host: Workers = Workers()
    """Accepted, without effect: ``workers``, ``queue_size`` and ``local_queue_size``. A host is one Lua VM."""
    lifecycle: Lifecycle = Lifecycle()
    """A host runs on every node whatever this says."""


class TerminalHost(KindModel):
    """Runs one process that has the terminal."""

    hide_logs: bool = False
    """Show no logs on the terminal while it runs."""
    lifecycle: Lifecycle = Lifecycle()
    """A host runs on every node whatever this says."""


KINDS = (
    Kind("process.host", ProcessHost, host=True),
    Kind("terminal.host", TerminalHost, host=True),
)
