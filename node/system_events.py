"""The runtime's own events: what a change of the registry or of the nodes means to subscribers.

Each node raises them for its own subscribers (``EventBus.send_local``), from its own copy of
what changed; so a process hears of a version when its node has it. Data is raw (texts as bytes).
"""

from __future__ import annotations

from collections.abc import Iterable

from cluster.envelope import to_raw
from cluster.events import Event
from cluster.members import Member
from cluster.registry import RegistryState, creation_order


def registry_events(before: RegistryState, after: RegistryState, changed: Iterable[str]) -> list[Event]:
    """One event per changed entry - what goes, users first, then what comes, what is used first - then
    ``registry.commit``."""
    ids = frozenset(changed)
    gone = creation_order(entry for id in ids if id not in after and (entry := before.get(id)))
    come = creation_order(entry for id in ids if (entry := after.get(id)))
    events = [_entry_event(id, before, after) for id in (*reversed(gone), *come)]
    commit = {"version": after.version, "previous": before.version, "changed": sorted(ids)}
    return [*events, Event("registry", "registry.commit", f"v{after.version}", to_raw(commit))]


def _entry_event(id: str, before: RegistryState, after: RegistryState) -> Event:
    was, now = before.get(id), after.get(id)
    kind = "entry.create" if was is None else "entry.delete" if now is None else "entry.update"
    entry = now or was
    data = {"id": id, "kind": entry.kind if entry else "", "version": after.version}
    return Event("registry", kind, id, to_raw(data))


def member_events(before: Member | None, after: Member | None) -> list[Event]:
    """A node joined (None, m), changed (m, m') or left (m, None)."""
    member = after or before
    if member is None:
        return []
    kind = "NodeJoined" if before is None else "NodeLeft" if after is None else "NodeUpdated"
    data = {
        "id": member.node,
        "epoch": member.epoch,
        "state": member.state.value,
        "meta": dict(member.labels),
        "addr": member.http,
    }
    return [Event("cluster", kind, member.node, to_raw(data))]
