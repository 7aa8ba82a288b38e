"""Streams, names, locks and monitors of three nodes while everything around them breaks: what they record is checked.

Every fault of the nemesis comes at least once, in an order and with lengths drawn from a seed that is printed with the
schedule; ``WIPPY_CHAOS_SEED`` repeats one. ``WIPPY_CHAOS=full`` runs several seeds for minutes, with faults at once,
and nodes that break their promises, each of which must be found.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from cluster.embedded import EmbeddedServers
from tests.chaos.checked import NODES, RECORDED, CheckedCluster
from tests.chaos.checking.everything import check_all
from tests.chaos.mutants import MUTANTS
from tests.chaos.nemesis import Kind, Measures, Nemesis, Turn, draw

FULL = os.environ.get("WIPPY_CHAOS") == "full"
GIVEN = os.environ.get("WIPPY_CHAOS_SEED")
RUNS = 3 if FULL and not GIVEN else 1
TURNS = 5 * len(Kind) if FULL else len(Kind)
MEASURES = Measures(share_two=0.3) if FULL else Measures(share_long=0.25, pause=(0.2, 0.8))
LINK_TIMEOUTS = (6.0, 30.0)
"""Long faults close links, or must not."""
MUTANT_SEED = 4
"""Its schedule has a node stopped for longer than its lease, and a partition longer than the timeout of its link."""
ANSWERS_WITHIN = 30.0
"""Seconds after the last fault in which everything answers again."""

pytestmark = [pytest.mark.servers, pytest.mark.chaos, pytest.mark.timeout(900 if FULL else 180)]


async def problems_of(
    schedule: list[Turn], seed: int, servers: EmbeddedServers, directory: Path, *program: str
) -> list[str]:
    """What is wrong after these faults, with nodes of this program."""
    link_timeout = random.Random(seed).choice(LINK_TIMEOUTS)
    async with CheckedCluster(servers, directory, link_timeout, program or RECORDED) as cluster:
        await cluster.start_all()
        await Nemesis(cluster, seed).perform(schedule)
        try:
            took = await cluster.settle(time.monotonic_ns(), within=ANSWERS_WITHIN)
        except AssertionError as error:
            return [str(error)]
        cluster.check_logs()
        run = await cluster.finish()
        print(f"everything answered {took:.1f} s after the last fault; {len(run.history.records)} records")
    return check_all(run)


@pytest.mark.parametrize("run", range(RUNS))
async def test_what_is_promised_holds_whatever_breaks(run: int, own_servers: EmbeddedServers, tmp_path: Path) -> None:
    seed = int(GIVEN) if GIVEN else random.randrange(10**6)
    schedule = draw(seed, NODES, TURNS, MEASURES)
    print(f"WIPPY_CHAOS_SEED={seed} repeats this schedule")
    problems = await problems_of(schedule, seed, own_servers, tmp_path)
    assert not problems, "\n".join(problems)


if FULL:

    @pytest.mark.parametrize("name", MUTANTS)
    async def test_a_promise_that_is_broken_is_found(name: str, own_servers: EmbeddedServers, tmp_path: Path) -> None:
        schedule = draw(MUTANT_SEED, NODES, len(Kind), Measures())
        found = await problems_of(schedule, MUTANT_SEED, own_servers, tmp_path, "tests.chaos.mutants", name)
        print("\n".join(found[:3]))
        assert found, f"nobody noticed that {name}"
