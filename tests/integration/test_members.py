"""Registrations and members on a real etcd."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from cluster.errors import NodeDown, Unavailable
from cluster.etcd import Etcd, PrefixWatch
from cluster.keys import Keys
from cluster.members import Description, Member, Members, NodeState, Registration, draw_incarnation
from tests.waiting import eventually

pytestmark = pytest.mark.servers

DESCRIPTION = Description(7, labels={"zone": "a"}, version="0.1", http="127.0.0.1:9464", started="2026-01-01T00:00:00Z")


@pytest.fixture
def keys(cluster_name: str) -> Keys:
    return Keys(cluster_name)


async def register(etcd: Etcd, keys: Keys, node: str, description: Description = DESCRIPTION) -> Registration:
    registration = Registration(etcd, keys, node, await etcd.grant(60), description)
    await registration.register()
    return registration


class TestRegistration:
    async def test_the_key_is_on_the_lease_and_its_create_revision_is_the_epoch(self, etcd: Etcd, keys: Keys) -> None:
        lease = await etcd.grant(60)
        registration = Registration(etcd, keys, "n", lease, DESCRIPTION)
        epoch = await registration.register()
        kv = await etcd.get(keys.node("n"))
        assert kv is not None
        assert (kv.lease, kv.create_revision) == (lease.id, epoch)
        assert Description.from_json(kv.value) == DESCRIPTION

    async def test_registering_twice_under_one_lease_finds_the_own_key(self, etcd: Etcd, keys: Keys) -> None:
        lease = await etcd.grant(60)
        first = await Registration(etcd, keys, "n", lease, DESCRIPTION).register()
        assert await Registration(etcd, keys, "n", lease, DESCRIPTION).register() == first

    async def test_a_second_node_of_the_name_waits_until_the_first_lease_ended_and_says_so(
        self, etcd: Etcd, keys: Keys
    ) -> None:
        held = await etcd.grant(60)
        first = await Registration(etcd, keys, "n", held, DESCRIPTION).register()
        told: list[Member] = []
        second = Registration(
            etcd, keys, "n", await etcd.grant(60), replace(DESCRIPTION, incarnation=8), on_wait=told.append
        )
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(second.register())
            await eventually(lambda: bool(told))
            assert not waiting.done()
            await etcd.revoke(held.id)
        assert waiting.result() > first
        assert [(member.incarnation, member.epoch) for member in told] == [(7, first)]

    async def test_it_gives_up_naming_the_holder(self, etcd: Etcd, keys: Keys) -> None:
        await register(etcd, keys, "n")
        second = Registration(etcd, keys, "n", await etcd.grant(60), DESCRIPTION, patience=timedelta(milliseconds=100))
        with pytest.raises(Unavailable, match="node name 'n' is still held by a process of incarnation 7"):
            await second.register()

    async def test_labels_and_the_state_changed_at_once_undo_nothing_of_each_other(
        self, etcd: Etcd, keys: Keys
    ) -> None:
        registration = await register(etcd, keys, "n")
        told = await asyncio.gather(
            registration.set_labels({"disk": "ssd"}),
            registration.set_state(NodeState.CORDONED),
            registration.set_labels({"zone": None, "rack": "7"}),
        )
        kv = await etcd.get(keys.node("n"))
        assert kv is not None
        said = Description.from_json(kv.value)
        assert (said.state, said.labels) == (NodeState.CORDONED, {"disk": "ssd", "rack": "7"})
        assert told[2] == said.labels
        assert kv.create_revision == registration.epoch
        await etcd.revoke(kv.lease)
        with pytest.raises(NodeDown):
            await registration.set_labels({"more": "1"})
        assert registration.description.labels == said.labels, "what was not taken is not remembered"

    async def test_a_state_change_keeps_the_epoch(self, etcd: Etcd, keys: Keys) -> None:
        registration = await register(etcd, keys, "n")
        await registration.set_state(NodeState.READY)
        kv = await etcd.get(keys.node("n"))
        assert kv is not None
        assert kv.create_revision == registration.epoch
        assert Description.from_json(kv.value) == replace(DESCRIPTION, state=NodeState.READY)

    async def test_a_state_change_after_the_registration_ended_is_refused(self, etcd: Etcd, keys: Keys) -> None:
        registration = await register(etcd, keys, "n")
        await etcd.delete(keys.node("n"))
        await register(etcd, keys, "n")
        with pytest.raises(NodeDown):
            await registration.set_state(NodeState.READY)


class TestMembers:
    async def test_joins_changes_and_leaves_are_told_in_order(self, etcd: Etcd, keys: Keys) -> None:
        early = await register(etcd, keys, "early")
        watch = PrefixWatch(etcd, keys.prefix)
        members = Members(watch, keys)
        told: list[tuple[str | None, str | None]] = []
        members.on_change(lambda before, after: told.append((_short(before), _short(after))))
        async with watch:
            assert told == [(None, "early joining")]
            late = await register(etcd, keys, "late")
            await late.set_state(NodeState.READY)
            await early.set_state(NodeState.READY)
            await etcd.delete(keys.node("early"))
            await eventually(lambda: len(told) == 5)
            assert told[1:] == [
                (None, "late joining"),
                ("late joining", "late ready"),
                ("early joining", "early ready"),
                ("early ready", None),
            ]
            member = members.get("late")
            assert member is not None
            assert (member.epoch, member.labels) == (late.epoch, {"zone": "a"})
            assert [m.node for m in members.all()] == [m.node for m in members.ready()] == ["late"]

    async def test_the_end_of_a_lease_is_seen(self, etcd: Etcd, keys: Keys) -> None:
        watch = PrefixWatch(etcd, keys.prefix)
        members = Members(watch, keys)
        async with watch:
            lease = await etcd.grant(1)
            await Registration(etcd, keys, "short", lease, DESCRIPTION).register()
            await eventually(lambda: members.get("short") is not None)
            await eventually(lambda: members.get("short") is None, within=6)

    async def test_a_node_that_came_back_is_told_as_gone_first(self, etcd: Etcd, keys: Keys) -> None:
        watch = PrefixWatch(etcd, keys.prefix)
        members = Members(watch, keys)
        told: list[tuple[int, int]] = []
        members.on_change(
            lambda before, after: told.append((before.epoch if before else 0, after.epoch if after else 0))
        )
        first = await register(etcd, keys, "n")
        async with watch:
            await etcd.delete(keys.node("n"))
            second = await register(etcd, keys, "n")
            await eventually(lambda: len(told) == 3)
        assert told == [(0, first.epoch), (first.epoch, 0), (0, second.epoch)]

    async def test_an_unreadable_registration_counts_as_absent(self, etcd: Etcd, keys: Keys) -> None:
        odd = b'{"incarnation": 1, "state": "odd"}'
        for node, value in enumerate((b"nonsense", b"\xff", b"[]", b"[" * 99_999, b'{"incarnation": 1e999}', odd)):
            await etcd.put(keys.node(f"n{node}"), value)
        watch = PrefixWatch(etcd, keys.prefix)
        members = Members(watch, keys)
        async with watch:
            assert members.all() == []
            assert members.unreadable == 6


def _short(member: Member | None) -> str | None:
    return f"{member.node} {member.state.value}" if member else None


async def test_incarnations_drawn_at_the_same_time_differ(etcd: Etcd, keys: Keys) -> None:
    drawn = await asyncio.gather(*(draw_incarnation(etcd, keys) for _ in range(12)))
    assert sorted(drawn) == list(range(1, 13))
