"""What ``wippy drain`` and ``wippy move`` say, and the codes they end with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, cast

import pytest

from cluster.client import Client, Moved
from cluster.errors import CallTimeout
from node.cli import drain as module
from node.cli.drain import counted, drain, progress
from node.cli.failures import Failed
from node.cli.operate import move

PID = "{n1@app:processes|1-2a}"
NOTHING: dict[str, Any] = {
    "node": "n1", "phase": "draining", "moved": 0, "restarted_elsewhere": 0, "handed_over": 0, "cancelled": 0,
    "killed": 0, "lost": 0, "waiting": 0, "moving": 0, "ending": 0, "left": 0, "still_here": [], "reasons": {},
    "within": 30.0, "seconds": 1.25, "slowest_move": 0.01, "settled": None, "state": "draining",
}  # fmt: skip


def told(**changes: Any) -> dict[str, Any]:
    return {**NOTHING, **changes}


class Node:
    """A client of a node whose drain goes through these states; a text stands for one it does not answer at."""

    def __init__(self, *states: dict[str, Any] | str) -> None:
        self._states = list(states)
        self.began: list[float] = []
        self.moved = Moved(PID, "n2", "moved", "", 0.0123)

    async def drain(self, node: str, within: float) -> None:
        self.began.append(within)

    async def drained(self, node: str, timeout: float) -> dict[str, Any]:
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        if isinstance(state, str):
            raise CallTimeout(state, timeout)
        return state

    async def move(self, process: str, node: str, *, within: float) -> Moved:
        return self.moved


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK", 0.001)


async def run(node: Node, **options: Any) -> None:
    given = {"deadline": "30s", "no_wait": False, "as_json": False, **options}
    await drain(cast(Client, node), "n1", **given)


async def test_it_says_how_far_it_is_and_what_became_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    node = Node(
        told(waiting=3, moving=2),
        "no answer",
        told(phase="drained", moved=5, cancelled=1, restarted_elsewhere=2, settled=True),
    )
    await run(node, deadline="1m")
    out, err = capsys.readouterr()
    assert node.began == [60.0]
    assert out == "n1 is empty after 1.2 s: 5 moved, 2 restarted elsewhere, 1 cancelled\n"
    assert err == "nothing yet; 2 moving, 3 waiting\n"


async def test_an_empty_node_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    await run(Node(told(phase="drained")))
    assert capsys.readouterr().out == "n1 is empty after 1.2 s: there was nothing to give away\n"


async def test_what_is_left_is_named_with_its_reason_and_the_code_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    left = [{"id": PID, "entry": "app:w", "reason": "no node took it in time"}]
    node = Node(told(phase="left", moved=1, left=3, still_here=left, reasons={"n2 is full": 4}))
    with pytest.raises(Failed) as failed:
        await run(node)
    out, err = capsys.readouterr()
    assert failed.value.code == 1
    assert out.splitlines() == [
        "n1 is not empty after 1.2 s: 1 moved, 3 left",
        f"  {PID}  app:w  no node took it in time",
        "  and 2 more",
    ]
    assert "4 times: n2 is full" in err


async def test_json_is_all_that_is_known_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    end = told(phase="drained", moved=5)
    await run(Node(told(waiting=3), end), as_json=True)
    out, err = capsys.readouterr()
    assert (json.loads(out), err) == (end, "")


async def test_without_waiting_it_only_begins(capsys: pytest.CaptureFixture[str]) -> None:
    await run(Node("never asked"), no_wait=True)
    assert capsys.readouterr().out == "n1 is draining\n"


async def test_a_drain_that_is_called_off_is_no_success() -> None:
    with pytest.raises(Failed, match="called off"):
        await run(Node(told(phase="called off")))


async def test_a_node_that_is_gone_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SILENCE", 0.01)
    with pytest.raises(Failed, match="n1 does not answer any more"):
        await run(Node("no answer"))


async def test_who_stops_looking_on_is_told_that_it_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    running = asyncio.ensure_future(run(Node(told())))
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    err = capsys.readouterr().err
    assert "the drain of n1 goes on; `wippy drain n1` shows it again, `wippy uncordon n1` calls it off" in err


async def test_messages_that_are_still_forwarded_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    await run(Node(told(phase="drained", settled=False)))
    assert "still forwarded through n1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (told(), "nothing yet"),
        (told(moved=1, ending=2), "1 moved; 2 ending"),
        (told(moved=1, lost=1, moving=3, waiting=4), "1 moved, 1 lost; 3 moving, 4 waiting"),
    ],
)
def test_one_line_tells_what_is_done_and_what_is_to_do(state: dict[str, Any], text: str) -> None:
    assert progress(state) == text
    assert text.startswith(counted(state))


class TestMove:
    async def say(self, verdict: str, reason: str = "", seconds: float = 0.0123) -> None:
        node = Node()
        node.moved = Moved(PID, "n2", verdict, reason, seconds)
        await move(cast(Client, node), PID, "n2", "10s")

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (("moved",), "moved to n2 in 12 ms\n"),
            (("moved", "", 2.34), "moved to n2 in 2.3 s\n"),
            (("",), "it runs on n2 already\n"),
        ],
    )
    async def test_it_says_where_to(self, given: Sequence[Any], said: str, capsys: pytest.CaptureFixture[str]) -> None:
        await self.say(*given)
        assert capsys.readouterr().out == said

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (("stayed", "n3 is full"), "not moved: n3 is full; it runs on n2"),
            (("died", "n3 is gone"), "not moved, and ended: n3 is gone"),
            (("", "etcd does not answer"), "etcd does not answer"),
        ],
    )
    async def test_it_says_why_not_and_fails(self, given: Sequence[Any], said: str) -> None:
        with pytest.raises(Failed) as failed:
            await self.say(*given)
        assert (str(failed.value), failed.value.code) == (said, 1)
