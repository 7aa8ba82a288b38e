"""What `wippy services` makes of the answers of the nodes."""

from __future__ import annotations

from typing import Any

from node.cli.services import _short, merged


def row(node: str, state: str, service: str = "app:s", replica: int = 0, **more: Any) -> dict[str, Any]:
    return {"service": service, "replica": replica, "node": node, "state": state, "pid": "", **more}


def test_the_own_node_of_a_replica_knows_it_best() -> None:
    told = {"n1": [row("n2", "claimed")], "n2": [row("n2", "running", pid="{n2@h|1}")], "n3": [row("n2", "claimed")]}
    (shown,) = merged(told, {})
    assert (shown["state"], shown["pid"], shown["why"]) == ("running", "{n2@h|1}", "")


def test_of_a_silent_node_its_claims_are_shown_with_that_remark() -> None:
    (shown,) = merged({"n1": [row("n2", "claimed")]}, {"n2": "no answer"})
    assert (shown["state"], shown["why"]) == ("claimed", "n2 did not answer: this is what its claim says")


def test_what_one_node_has_is_nowhere_for_nobody() -> None:
    told = {"n1": [row("", "unplaced", why="n2 is about to claim it")], "n2": [row("n2", "running")]}
    assert [shown["state"] for shown in merged(told, {})] == ["running"]


def test_replicas_nobody_has_are_shown_once_beside_those_somebody_has() -> None:
    told = {node: [row("", "unplaced", replica=1, why="no node")] for node in ("n1", "n2")}
    told["n1"].append(row("n1", "running"))
    assert [(shown["replica"], shown["node"], shown["why"]) for shown in merged(told, {})] == [
        (0, "n1", ""),
        (1, "", "no node"),
    ]


def test_one_that_runs_on_every_node_is_a_row_for_each() -> None:
    told = {node: [row(node, "running")] for node in ("n2", "n1")}
    assert [shown["node"] for shown in merged(told, {})] == ["n1", "n2"]


def test_an_error_tells_why_one_does_not_run_and_is_history_when_it_does() -> None:
    failed = row("n1", "failed", last_error="boom" + "x" * 200 + "\ntraceback")
    runs = row("n1", "running", service="app:t", last_error="boom")
    waits = row("n1", "starting", service="app:u", waits_for="app:db", last_error="boom")
    first, second, third = merged({"n1": [failed, runs, waits]}, {})
    assert (second["why"], third["why"]) == ("", "waits for app:db")
    assert first["why"].endswith("traceback"), "whole for programs"
    assert _short(first)["why"] == "boom" + "x" * 200, "its first line for people, which says the cause at its end"
