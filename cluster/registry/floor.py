"""The capability in use: which kinds, with which schema numbers, the registry may hold.

A node that does not know a kind in use must not become ready, and a change must not bring
a kind that a ready node does not know. ``registry/floor`` says what is in use; every commit
compares the floor it was checked against, and raising it compares that no node came or changed
meanwhile. Each node publishes its own in its registration, ``capability: {kind: schema}``; one that
publishes none is taken to know what is in use and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.errors import Invalid, Problem
from cluster.etcd import Compare, Etcd, Get, KeyValue, Put
from cluster.keys import Keys
from cluster.registry.retry import until_answered
from cluster.registry.value import canonical, parse


@dataclass(frozen=True, slots=True)
class Floor:
    """The kinds in use and the mod_revision they were read at (0 when there is no floor yet)."""

    kinds: Mapping[str, int]
    mod: int

    @classmethod
    def of(cls, kv: KeyValue | None) -> Floor:
        return cls(_kinds(_decode(kv.value).get("kinds")), kv.mod_revision) if kv else cls({}, 0)

    def unmet(self, own: Mapping[str, int]) -> list[str]:
        """What a node of capability ``own`` lacks, as texts; empty when it may become ready."""
        return [
            f"kind {kind} with schema {schema} (this node knows {own.get(kind, 'none')})"
            for kind, schema in sorted(self.kinds.items())
            if own.get(kind, 0) < schema
        ]

    def unchanged(self, keys: Keys) -> Compare:
        """The compare that becoming ready and every commit carries."""
        return Compare.mod(keys.floor, "=", self.mod)

    def covers(self, needed: Mapping[str, int]) -> bool:
        return all(self.kinds.get(kind, 0) >= schema for kind, schema in needed.items())


async def read_floor(etcd: Etcd, keys: Keys) -> Floor:
    return Floor.of(await until_answered(lambda: etcd.get(keys.floor)))


def needed_kinds(kinds: Iterable[str], own: Mapping[str, int]) -> dict[str, int]:
    """The capability that entries of ``kinds`` need, as this node writes them."""
    return {kind: own[kind] for kind in kinds if kind in own}


async def raise_floor(etcd: Etcd, keys: Keys, floor: Floor, needed: Mapping[str, int]) -> Floor:
    """The floor raised to cover ``needed``; when another raised it meanwhile, what stands now.

    Raises Invalid naming the nodes that do not know a kind.
    """
    result = await until_answered(lambda: etcd.txn([], [Get(keys.floor), Get(keys.nodes, whole_prefix=True)]))
    floors, nodes = (response if isinstance(response, list) else [] for response in result.responses)
    floor = Floor.of(floors[0] if floors else None)
    if floor.covers(needed):
        return floor
    if problems := _refusals(nodes, keys, floor, needed):
        raise Invalid(problems)
    kinds = {kind: max(floor.kinds.get(kind, 0), needed.get(kind, 0)) for kind in floor.kinds.keys() | needed.keys()}
    await until_answered(
        lambda: etcd.txn(
            [floor.unchanged(keys), Compare.mod_prefix(keys.nodes, "<", result.revision + 1)],
            [Put(keys.floor, canonical({"kinds": kinds}))],
        )
    )
    return await read_floor(etcd, keys)


def _refusals(nodes: list[KeyValue], keys: Keys, floor: Floor, needed: Mapping[str, int]) -> list[Problem]:
    problems = []
    for kv in nodes:
        said = _decode(kv.value)
        if said.get("state") == "joining":
            continue  # it becomes ready only when it meets the floor
        known = _kinds(said.get("capability")) or floor.kinds
        node = kv.key.removeprefix(keys.nodes)
        problems += [
            Problem(f"node {node} does not know kind {kind} with schema {schema}; upgrade or remove it first")
            for kind, schema in sorted(needed.items())
            if known.get(kind, 0) < schema
        ]
    return problems


def _decode(raw: bytes) -> dict[str, Any]:
    try:
        value = parse(raw)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _kinds(kinds: Any) -> dict[str, int]:
    if not isinstance(kinds, dict):
        return {}
    return {kind: schema for kind, schema in kinds.items() if isinstance(kind, str) and isinstance(schema, int)}
