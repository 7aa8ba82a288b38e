"""What the entry of a host says of its limits and workers, laid over the node's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from cluster.registry import Entry
from node.host import VmConfig
from node.kinds.decode import decode
from node.kinds.hosts import HostBlock, ProcessHost, TerminalHost
from node.kinds.placeholders import Lookup

FIELDS = {
    "memory": "max_memory",
    "max_processes": "max_processes",
    "mailbox_size": "mailbox_limit",
    "mailbox_policy": "mailbox_policy",
    "max_message": "max_message",
    "max_timers": "max_timers",
    "max_waiting": "max_waiting",
    "max_subscriptions": "max_subscriptions",
    "pcall_depth": "pcall_depth",
    "quantum": "quantum",
    "stretch": "stretch",
}
"""Limits of the ``host`` block -> fields of a VM's configuration."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """How one host is made: the configuration of each of its VMs, and how many were asked for."""

    config: VmConfig
    workers: int = 1


def sizing(entry: Entry, config: VmConfig, lookup: Lookup) -> Sizing:
    """The sizing of a host on a node whose own limits are ``config``. Raises Invalid."""
    model = decode(entry, lookup)
    if not isinstance(model, ProcessHost | TerminalHost):
        raise TypeError(f"expected a process.host or a terminal.host, got the {entry.kind} {entry.id}")
    set_here: dict[str, Any] = {}
    for name, field in FIELDS.items():
        value = getattr(model.host, name)
        if value is not None:
            set_here[field] = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(model, TerminalHost):
        return Sizing(replace(config, **set_here, single=True))
    workers = model.host.workers if isinstance(model.host, HostBlock) else 1
    return Sizing(replace(config, **set_here), workers)


def limits_of(config: VmConfig) -> dict[str, float]:
    """The limits of a host by their names in its ``host`` block, those that are numbers."""
    values = {name: getattr(config, field) for name, field in FIELDS.items()}
    return {name: value for name, value in values.items() if isinstance(value, int | float)}
