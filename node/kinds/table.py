"""All kinds of entries: those this version runs, and those it knows by name only."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from node.kinds import env, groups, hosts, lua, plain, service, store, supervisor
from node.kinds.model import Kind
from node.spelling import did_you_mean

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        kind.name: kind
        for family in (lua, hosts, service, supervisor, env, store, groups, plain)
        for kind in family.KINDS
    }
)
"""The kinds this version runs, by name."""

CAPABILITY: Mapping[str, int] = MappingProxyType(dict.fromkeys(KINDS, 1))
"""What a node of this version knows: the number of the schema by kind. A change of the registry must not bring a
kind, or a schema, that a ready node does not know."""

LATER = frozenset(
    (
        "workflow.lua", "module.lua", "function.lua.bc", "library.lua.bc", "process.lua.bc", "workflow.lua.bc",
        "function.wat", "function.wasm", "process.wasm", "http.service", "http.router", "http.endpoint",
        "http.static", "db.sql.sqlite", "db.sql.postgres", "db.sql.mysql", "db.cdc.postgres", "store.sql",
        "queue.driver.memory", "queue.driver.amqp", "queue.driver.sqs", "queue.queue",
        "queue.consumer", "fs.directory", "fs.embed", "template.set", "template.jet", "security.policy",
        "security.policy.expr", "security.token_store", "contract.definition", "contract.binding", "exec.native",
        "exec.docker", "config.aws", "cloudstorage.s3", "temporal.client", "temporal.worker", "network",
        "network.socks5", "network.tailscale", "network.i2p",
    )
)  # fmt: skip
"""Kinds of the original that this version does not run."""


def refused_kind(name: str) -> str:
    """Why entries of the kind ``name`` can't be taken; empty when they can."""
    if name in KINDS:
        return ""
    if name in LATER:
        return f"kind {name} is not supported by this version yet"
    return f"unknown kind {name!r}{did_you_mean(name, (*KINDS, *LATER))}"
