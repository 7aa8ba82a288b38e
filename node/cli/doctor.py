"""``wippy doctor``: looks at everything a cluster needs, and names cause and remedy of what is wrong.

It works when NATS, etcd or nodes don't answer: that is what it is for. Each thing is asked with
a deadline of its own, all of them at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from node.cli.console import Format, note, paint, printable, show_json
from node.cli.failures import Failed
from node.cli.findings import EtcdSeen, Finding, Level, NodeSeen, Sight, examine
from node.cli.gateway import AsJson, Listing, Timeout, listing, seconds

if TYPE_CHECKING:
    from cluster.client import Client
    from cluster.etcd import LeaseInfo
    from cluster.members import Member

T = TypeVar("T")
_STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}
_READS = 5
_SERVERS = 0.6
"""The part of the time that servers get to answer; a client lets them take 5 s and then says which did not."""


async def doctor(
    client: Client, timeout: Timeout = "10s", format: Listing = Format.TEXT, as_json: AsJson = False
) -> None:
    """Check NATS, etcd, nodes, clocks, leases, versions, the registry and services; name the cause and the remedy.

    Exit code 0: nothing has failed (warnings included), 1: something has, 2: wrong usage.
    """
    wanted = listing(format, as_json)
    found = examine(await look(client, seconds(timeout)))
    failed = [finding for finding in found if finding.level is Level.FAIL]
    if wanted is Format.JSON:
        show_json([finding.as_dict() for finding in found])
    else:
        _tell(found)
    if failed:
        raise Failed("", code=1)


async def look(client: Client, timeout: float) -> Sight:
    """Everything there is to see within ``timeout`` seconds."""
    from node.version import VERSION

    servers = timeout * _SERVERS
    etcd, nats, members, head = await asyncio.gather(
        _seen(_etcd(client), servers),
        _seen(client.nats(servers), servers),
        _seen(client.nodes(), servers),
        _seen(_head(client), servers),
    )
    if isinstance(members, str):
        return Sight(client.cluster, etcd, nats, members, version=VERSION)
    nodes: dict[str, NodeSeen] = {}
    silent: dict[str, str] = {}
    leases: dict[str, LeaseInfo] = {}
    services: dict[str, Sequence[Mapping[str, Any]]] = {}
    await asyncio.gather(
        *(_ask(client, member, timeout - servers, nodes, silent) for member in members),
        *(_lease(client, member, timeout - servers, leases) for member in members),
        *(_supervised(client, member, timeout - servers, services) for member in members),
    )
    version = head if isinstance(head, int) and head >= 0 else None
    return Sight(client.cluster, etcd, nats, members, version, leases, nodes, silent, VERSION, services)


async def _seen(work: Awaitable[T], timeout: float) -> T | str:
    """What ``work`` gives, or why it gives nothing."""
    from cluster.errors import ClusterError

    try:
        async with asyncio.timeout(timeout):
            return await work
    except TimeoutError:
        return f"no answer within {timeout:g} s"
    except ClusterError as error:
        return str(error)


async def _etcd(client: Client) -> EtcdSeen:
    from cluster.etcd.room import Room

    room = Room(client.etcd)
    await room.look()
    assert room.latest is not None  # it looked
    spans = []
    for _ in range(_READS):
        began = time.monotonic()
        await client.etcd.get(client.keys.head)
        spans.append(time.monotonic() - began)
    return EtcdSeen(room.latest, sorted(spans)[_READS // 2], room.remarks())


async def _head(client: Client) -> int:
    """The newest version of the registry, -1 when there is none."""
    from cluster.registry.record import decode_head

    kv = await client.etcd.get(client.keys.head)
    return decode_head(kv.value) if kv else -1


async def _ask(
    client: Client, member: Member, timeout: float, nodes: dict[str, NodeSeen], silent: dict[str, str]
) -> None:
    """A node's health, and how far its clock is from the middle of question and answer."""
    asked = time.time()
    health = await _seen(client.ask(member.node, "health", timeout=timeout), timeout)
    answered = time.time()
    if isinstance(health, str):
        silent[member.node] = health
    else:
        middle, error = (asked + answered) / 2, (answered - asked) / 2
        nodes[member.node] = NodeSeen(health, health.get("time", middle) - middle, error)


async def _lease(client: Client, member: Member, timeout: float, leases: dict[str, LeaseInfo]) -> None:
    info = await _seen(client.etcd.time_to_live(member.lease), timeout)
    if not isinstance(info, str):
        leases[member.node] = info


async def _supervised(
    client: Client, member: Member, timeout: float, services: dict[str, Sequence[Mapping[str, Any]]]
) -> None:
    """What the node's supervisor says; that a node is silent is told by its health."""
    told = await _seen(client.ask(member.node, "services", timeout=timeout), timeout)
    if not isinstance(told, str):
        services[member.node] = told["items"]


def _tell(found: Sequence[Finding]) -> None:
    width = max(len(finding.check) for finding in found)
    for finding in found:
        paint([(f"{finding.level:<5} {finding.check:<{width}}  {printable(finding.says)}", _STYLES[finding.level])])
        if finding.remedy:
            paint([(f"      {'':<{width}}  -> {printable(finding.remedy)}", "")])
    counts = {level: sum(finding.level is level for finding in found) for level in Level}
    note(f"{counts[Level.FAIL]} failed, {counts[Level.WARN]} warnings, {counts[Level.OK]} fine")
