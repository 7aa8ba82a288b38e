"""What `wippy top` makes of two looks at the nodes."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from cluster.members import Member, NodeState
from node.cli.top import _drawn, _print, cell, frame

MEMBERS = [Member(node, 1, 1, 1, 1, NodeState.READY, {}, "", {}, "", "") for node in ("n1", "n2")]


def told(at: float, received: int = 0, **more: Any) -> dict[str, Any]:
    figures = {
        "at": at, "incarnation": 1, "up": 90.0, "cpu_seconds": at / 4, "resident": 50 * 1024**2, "processes": 3,
        "mailbox": 2, "run_queue": 1, "hosts": [], "services": {"running": 5, "failed": 1},
        "messages": {"local": received, "remote_in": 0, "remote_out": 0}, "dead_letters": {"noproc": received // 10},
    }  # fmt: skip
    return {**figures, **more}


def test_rates_are_differences_by_the_clock_of_the_node() -> None:
    row, silent = frame(MEMBERS, {"n1": told(100.0, 1000)}, {"n1": told(102.0, 3000)}, {"n2": "no answer within 1 s"})
    assert (row["local"], row["dead_letters"], row["cpu"]) == (1000.0, 100.0, 0.25)
    assert [cell(key, row) for key in ("local", "cpu", "resident", "up")] == ["1,000", "25%", "50M", "1m30s"]
    assert cell("services", row) == "5, 1 failed"
    assert (silent["state"], cell("services", silent)) == ("silent", "no answer within 1 s")


@pytest.mark.parametrize("before", [None, told(500.0, 9, incarnation=0), told(102.0, 3000)])
def test_without_an_earlier_look_at_the_same_node_there_are_no_rates(before: dict[str, Any] | None) -> None:
    row, _ = frame(MEMBERS, {} if before is None else {"n1": before}, {"n1": told(102.0, 3000)}, {})
    assert (cell("local", row), cell("cpu", row), cell("processes", row)) == ("-", "-", "3")


def test_a_frame_shows_nodes_and_the_busiest_hosts_and_obeys_nobody() -> None:
    hosts = [
        {"host": f"app:h{n}", "processes": n, "mailbox": 0, "run_queue": 0, "memory": 2048, "busy": n / 100}
        for n in range(12)
    ]
    hosts.append({"host": "app:\x1b[31mred", "processes": 1, "mailbox": 9, "run_queue": 0, "memory": 0, "busy": 0.9})
    rows = frame(MEMBERS, {}, {"n1": told(1.0, hosts=hosts)}, {"n2": "gone"})
    paper = io.StringIO()
    Console(file=paper, width=160).print(_drawn("shop", rows))
    text = paper.getvalue()
    assert "cluster shop   1 of 2 nodes ready" in text
    assert "silent" in text
    shown = [line.split()[0] for line in text.splitlines() if line.lstrip().startswith("app:")]
    assert shown == ["app:\\x1b[31mred", *(f"app:h{n}" for n in range(11, 2, -1))]
    assert "\x1b" not in text


def test_into_a_pipe_go_plain_columns_of_nodes_and_then_of_hosts(capsys: pytest.CaptureFixture[str]) -> None:
    host = {"host": "app:h", "processes": 1, "mailbox": 0, "run_queue": 0, "memory": 2048, "busy": 0.5}
    problem = "no answer " * 40
    _print("shop", frame(MEMBERS, {}, {"n1": told(1.0, hosts=[host])}, {"n2": problem}))
    out, err = capsys.readouterr()
    nodes, hosts = (block.splitlines() for block in out.split("\n\n"))
    assert [line.split()[0] for line in nodes] == ["NODE", "n1", "n2"]
    assert nodes[2].endswith(problem.rstrip()), "nothing is cut"
    assert [line.split() for line in hosts][1] == ["app:h", "n1", "50%", "1", "0", "2K"]
    assert "1 of 2 nodes ready" in err


def test_nodes_that_are_not_registered_any_more_count_as_not_ready(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {node: told(1.0, expected_nodes=3) for node in ("n1", "n2")}
    _print("shop", frame(MEMBERS, {}, figures, {}))
    assert "2 of 3 nodes ready" in capsys.readouterr().err
