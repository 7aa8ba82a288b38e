"""What a node does as its lease nears its end, answers again, or is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from cluster.errors import Unavailable
from cluster.fencing import Phase
from cluster.tasks import Tasks
from node.ownership import EXIT_CODE, Ownership
from tests.sim.memory_etcd import run_virtually
from tests.unit.node.services import turns

LEASE = 5


class Node:
    """Everything ownership tells, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.epoch = 1
        self.owned = False
        self.killable = True
        self.registers: list[Callable[[], None]] = []
        self.exits: list[int] = []
        self.tasks = Tasks("test")
        self.ownership = Ownership(self.tasks, self.exits.append)
        self.ownership.bind(self, self, self.register, lambda lease: self.told.append(f"forget {lease}"))

    def in_doubt(self) -> None:
        self.told.append("in doubt")

    def kill_owned(self) -> None:
        self.told.append("kill")
        self.owned = self.owned and not self.killable

    def sure(self) -> None:
        self.told.append("sure")

    def owns(self) -> bool:
        return self.owned

    def end(self, reason: str) -> None:
        self.told.append("end links")

    async def register(self, anew: bool) -> int:
        self.told.append("register")
        self.epoch += 1
        if self.registers:
            self.registers.pop(0)()
        return self.epoch


@pytest.fixture
def node() -> Node:
    node = Node()
    node.ownership.begin()
    return node


def refuse() -> None:
    raise Unavailable("etcd is away")


def test_owned_work_is_cancelled_then_killed_and_goes_on_when_the_lease_answers(node: Node) -> None:
    for phase in (Phase.CANCEL, Phase.KILL, Phase.DOUBT, Phase.HELD):
        node.ownership.on_phase(phase, LEASE)
    assert node.told == [
        *["in doubt"],
        *["in doubt", "kill"],
        *["in doubt", "kill"],
        *["sure"],
    ]


def test_a_node_that_slept_past_the_other_phases_kills_in_doubt(node: Node) -> None:
    node.ownership.on_phase(Phase.DOUBT, LEASE)
    assert node.told == ["in doubt", "kill"]


async def test_a_lost_lease_ends_the_links_and_the_node_registers_again_when_its_work_has_ended(node: Node) -> None:
    node.owned = True
    node.ownership.on_phase(Phase.LOST, LEASE)
    node.ownership.on_lost(LEASE)
    await turns()
    assert node.told == ["in doubt", "kill", "end links", f"forget {LEASE}", "register", "sure"]
    assert node.ownership.rejoins == 1


def test_work_that_does_not_end_after_the_loss_ends_the_process(node: Node) -> None:
    async def scenario() -> None:
        node.owned, node.killable = True, False
        node.ownership.on_lost(LEASE)
        await asyncio.sleep(0.3)
        assert "register" not in node.told
        while not node.exits:
            await asyncio.sleep(1)
        assert node.exits == [EXIT_CODE]
        assert "register" not in node.told

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node.ownership.END_OWNED", 0.0)
        run_virtually(scenario())


def test_a_registration_that_fails_is_tried_again(node: Node) -> None:
    async def scenario() -> None:
        node.registers = [refuse, refuse]
        node.ownership.on_lost(LEASE)
        await asyncio.sleep(10)
        assert node.told.count("register") == 3
        assert node.told[-1] == "sure"

    run_virtually(scenario())


def test_a_server_that_is_back_cuts_the_wait_short(node: Node) -> None:
    async def scenario() -> None:
        clock = asyncio.get_running_loop()
        node.registers = [refuse] * 5
        node.ownership.on_lost(LEASE)
        await asyncio.sleep(7)
        assert node.told.count("register") == 4, "after 0.5, 1 and 2 s; the next pause takes 4 s"
        began = clock.time()
        node.ownership.server_back()
        await turns()
        assert node.told.count("register") == 5
        while node.told[-1] != "sure":
            await asyncio.sleep(0.1)
        assert clock.time() - began < 1, "the pauses begin anew"

    run_virtually(scenario())


def test_a_server_that_comes_back_during_a_try_that_fails_is_not_missed(node: Node) -> None:
    def returns() -> None:
        node.ownership.server_back()
        refuse()

    async def scenario() -> None:
        node.registers = [refuse, refuse, refuse, returns]
        node.ownership.on_lost(LEASE)
        await asyncio.sleep(3.6)
        assert node.told.count("register") == 5
        assert node.told[-1] == "sure"

    run_virtually(scenario())


def test_a_lease_lost_again_meanwhile_is_one_more_round_of_the_same_rejoin(node: Node) -> None:
    async def scenario() -> None:
        node.registers = [lambda: node.ownership.on_lost(LEASE + 1)]
        node.ownership.on_lost(LEASE)
        await asyncio.sleep(10)
        assert node.told.count("register") == 2
        assert node.told.count("sure") == 1
        assert node.ownership.rejoins == 1

    run_virtually(scenario())


async def test_the_new_lease_is_not_used_before_the_node_is_registered(node: Node) -> None:
    node.registers = [lambda: node.ownership.on_phase(Phase.HELD, LEASE + 1)]
    node.ownership.on_lost(LEASE)
    await turns()
    assert node.told[-2:] == ["register", "sure"]
    assert node.told.count("sure") == 1


async def test_what_is_owned_is_not_sure_while_the_new_lease_is_in_doubt(node: Node) -> None:
    node.registers = [lambda: node.ownership.on_phase(Phase.DOUBT, LEASE + 1)]
    node.ownership.on_lost(LEASE)
    await turns()
    assert "sure" not in node.told
    node.ownership.on_phase(Phase.HELD, LEASE + 1)
    assert node.told[-1] == "sure"


async def test_a_registration_that_vanished_is_made_again_and_owned_work_goes_on(node: Node) -> None:
    node.owned = True
    node.ownership.on_unregistered(node.epoch)
    node.ownership.on_unregistered(node.epoch)
    await turns()
    assert node.told == ["register", "sure"]


async def test_a_registration_that_vanishes_before_it_is_complete_is_made_again(node: Node) -> None:
    node.registers = [lambda: node.ownership.on_unregistered(node.epoch)]
    node.ownership.on_unregistered(node.epoch)
    await turns()
    assert node.told == ["register", "register", "sure"]


async def test_a_stopping_node_protects_what_it_owns_and_does_not_come_back(node: Node) -> None:
    node.ownership.end()
    node.ownership.on_phase(Phase.KILL, LEASE)
    node.ownership.on_lost(LEASE)
    node.ownership.on_unregistered(node.epoch)
    await turns()
    assert node.told == ["in doubt", "kill", "end links", f"forget {LEASE}"]


async def test_the_lease_is_given_back_only_when_nothing_owned_lives(node: Node) -> None:
    assert node.ownership.may_give_back()
    node.owned = True
    assert not node.ownership.may_give_back()


def test_a_lease_lost_while_the_node_starts_is_an_error_of_the_start() -> None:
    node = Node()
    node.ownership.on_lost(LEASE)
    with pytest.raises(Unavailable, match="ended while it started"):
        node.ownership.begin()
    assert "register" not in node.told
