"""The lease keeper against a real etcd, and real processes that hang."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from cluster.embedded import EmbeddedServers
from cluster.errors import Unavailable
from cluster.etcd import Etcd
from cluster.fencing import EXIT_CODE, LeaseKeeper, Phase

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]
CHILD = """
import asyncio, sys, time
from datetime import timedelta
from cluster.fencing import LeaseKeeper

async def last_words(etcd, slot, reason):
    if sys.argv[4] == "hang":
        await asyncio.sleep(60)
    await etcd.put(sys.argv[4], f"{slot}: {reason}".encode())

async def main():
    words = last_words if len(sys.argv) > 4 else None
    limits = {"wedge_limit": timedelta(seconds=float(sys.argv[3])), "step_limit": timedelta(seconds=1)}
    async with LeaseKeeper([sys.argv[1]], last_words=words, **limits) as keeper:
        print("lease id", keeper.lease.id, flush=True)
        if sys.argv[2] == "blocked loop":
            time.sleep(60)
        if sys.argv[2] == "stuck step":
            keeper.step_began(3)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def until(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.02)


class Told:
    """What the keeper told the main loop, with the time left at that moment."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self.left: dict[Phase, float] = {}
        self.lost: list[int] = []
        self.keeper: LeaseKeeper | None = None

    def on_phase(self, phase: Phase, lease: int) -> None:
        self.phases.append(phase)
        if self.keeper is not None:
            self.left[phase] = self.keeper.remaining()


def keep(servers: EmbeddedServers, told: Told) -> LeaseKeeper:
    told.keeper = LeaseKeeper([servers.etcd_url], on_phase=told.on_phase, on_lost=told.lost.append)
    return told.keeper


async def test_lease_is_renewed_and_may_be_used(servers: EmbeddedServers, etcd: Etcd) -> None:
    async with keep(servers, Told()) as keeper:
        lease = keeper.lease.id
        assert keeper.may_start_owned(lease)
        assert keeper.may_run_owned(lease)
        assert not keeper.may_run_owned(lease + 1)
        first = keeper.remaining()
        assert 4 < first <= 5
        await until(lambda: keeper.remaining() < first - 0.5, "time passes")
        await until(lambda: keeper.remaining() > first - 0.3, "a renewal")
        assert (await etcd.time_to_live(lease)).remaining >= 3


async def test_leaving_the_scope_does_not_revoke(servers: EmbeddedServers, etcd: Etcd) -> None:
    async with keep(servers, Told()) as keeper:
        pass
    assert (await etcd.time_to_live(keeper.lease.id)).remaining > 0


async def test_orderly_stop_revokes_and_tells_nobody_of_a_loss(servers: EmbeddedServers, etcd: Etcd) -> None:
    told = Told()
    async with keep(servers, told) as keeper:
        await keeper.revoke()
        assert (await etcd.time_to_live(keeper.lease.id)).remaining == -1
        assert not keeper.may_run_owned(keeper.lease.id)
    assert told.phases == [Phase.HELD]
    assert told.lost == []


async def test_lease_taken_away_is_lost_and_a_new_one_goes_on(servers: EmbeddedServers, etcd: Etcd) -> None:
    told = Told()
    async with keep(servers, told) as keeper:
        old = keeper.lease.id
        await etcd.revoke(old)
        async with asyncio.timeout(3):
            await keeper.lost.wait()
        assert told.lost == [old]
        assert not keeper.may_run_owned(old)
        new = await keeper.new_lease()
        assert new.id != old
        assert not keeper.lost.is_set()
        assert keeper.may_run_owned(new.id)
        assert not keeper.may_run_owned(old)
        await until(lambda: told.phases == [Phase.HELD, Phase.LOST, Phase.HELD], "the phases in order")


async def test_lease_survives_a_restart_of_etcd(own_servers: EmbeddedServers) -> None:
    told = Told()
    async with keep(own_servers, told) as keeper:
        await own_servers.etcd.kill()
        await own_servers.etcd.start()
        before = keeper.remaining()
        await until(lambda: keeper.remaining() > before, "a renewal after the restart")
        assert told.phases == [Phase.HELD]


async def test_etcd_away_goes_through_the_phases_in_time_and_back(own_servers: EmbeddedServers) -> None:
    told = Told()
    async with keep(own_servers, told) as keeper:
        lease = keeper.lease.id
        await own_servers.etcd.kill()
        await until(lambda: told.phases[-1] is Phase.CANCEL, "CANCEL")
        assert not keeper.may_start_owned(lease)
        assert keeper.may_run_owned(lease)
        await until(lambda: told.phases[-1] is Phase.KILL, "KILL")
        assert not keeper.may_run_owned(lease)
        await until(lambda: told.phases[-1] is Phase.DOUBT, "DOUBT")
        with pytest.raises(ValueError, match="doubt, not lost"):
            await keeper.new_lease()
        await own_servers.etcd.start()
        await until(lambda: told.phases[-1] is Phase.HELD, "HELD again")
        assert keeper.may_start_owned(lease)
        assert told.phases == [Phase.HELD, Phase.CANCEL, Phase.KILL, Phase.DOUBT, Phase.HELD]
        assert 2.1 < told.left[Phase.CANCEL] <= 2.5
        assert 0.6 < told.left[Phase.KILL] <= 1.0
        assert -0.4 < told.left[Phase.DOUBT] <= 0
        assert told.lost == []


async def test_keeper_renews_while_the_main_loop_is_busy_below_the_limit(servers: EmbeddedServers) -> None:
    async with keep(servers, Told()) as keeper:
        time.sleep(2.5)  # noqa: ASYNC251 - the loop is blocked on purpose
        assert keeper.remaining() > 3


async def test_no_etcd_at_the_start_is_unavailable(own_servers: EmbeddedServers) -> None:
    await own_servers.etcd.kill()
    with pytest.raises(Unavailable, match="grant a lease"):
        async with keep(own_servers, Told()):
            pass


@pytest.mark.parametrize(
    ("what", "wedge_limit", "said"),
    [
        ("blocked loop", 1.0, "the main loop has not ticked for 1."),
        ("stuck step", 30.0, "a step of VM 3 has run for 1."),
    ],
)
async def test_process_that_hangs_ends_with_a_last_line_and_keeps_its_lease_to_the_end(
    servers: EmbeddedServers, etcd: Etcd, what: str, wedge_limit: float, said: str
) -> None:
    args = [sys.executable, "-c", CHILD, servers.etcd_url, what, str(wedge_limit)]
    child = await asyncio.create_subprocess_exec(*args, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert child.stdout is not None
    lease = 0
    while not lease:
        line = await child.stdout.readline()
        assert line, "the child ended before it had a lease"
        lease = int(line.split()[-1]) if line.startswith(b"lease id") else 0
    output, _ = await asyncio.wait_for(child.communicate(), 20)
    assert child.returncode == EXIT_CODE
    assert said in output.decode()
    assert (await etcd.time_to_live(lease)).remaining > 0


@pytest.mark.parametrize("words", ["written", "hang"])
async def test_whose_step_hangs_is_written_before_the_end_when_etcd_takes_it_in_time(
    servers: EmbeddedServers, etcd: Etcd, cluster_name: str, words: str
) -> None:
    key = f"/{cluster_name}/words" if words == "written" else words
    args = [sys.executable, "-c", CHILD, servers.etcd_url, "stuck step", "30", key]
    child = await asyncio.create_subprocess_exec(*args, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = await asyncio.wait_for(child.communicate(), 20)
    assert child.returncode == EXIT_CODE
    said = output.decode()
    assert "a step of VM 3 has run for" in said
    kv = await etcd.get(key)
    if words == "written":
        assert kv is not None
        assert kv.value.startswith(b"3: a step of VM 3 has run for")
        assert "could not be written" not in said
    else:
        assert kv is None
        assert "whose it is could not be written: etcd did not answer" in said


async def test_wedge_limits_are_settings() -> None:
    keeper = LeaseKeeper(["http://127.0.0.1:1"], wedge_limit=timedelta(seconds=1), step_limit=timedelta(seconds=2))
    assert keeper.phase is Phase.LOST
    assert keeper.remaining() < 0
