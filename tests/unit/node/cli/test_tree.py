"""``wippy tree``: what the nodes told, put together and drawn."""

from __future__ import annotations

from typing import Any

from node.cli.tree import alone, drawn, grown

TOP, INNER = "{n1@node:supervisor|1-1s}", "{n2@node:supervisor|2-1s}"


def supervisor(pid: str, entry: str, parent: str = "") -> dict[str, Any]:
    node = pid[1:3]
    return {"pid": pid, "entry": entry, "node": node, "parent": parent, "strategy": "one_for_one", "restarts": 0}


def child(of: str, id: str, **more: Any) -> dict[str, Any]:
    return {"of": of, "id": id, "process": "app:child", "state": "running", "restarts": 0, **more}


ROWS = [
    supervisor(TOP, "app:top"),
    child(TOP, "a", pid="{n1@app:processes|1-1t}", node="n1", restarts=2, last_error="old"),
    child(TOP, "inner", process="app:inner", pid=INNER, node="n2"),
    child(TOP, "c", state="waiting for a place", waits_for="a ready node", last_error="node n3 is lost\nmore"),
    supervisor(INNER, "app:inner", TOP),
    child(INNER, "b", pid="{n3@app:processes|3-1t}", node="n3"),
]


def lines(rows: list[dict[str, Any]], silent: dict[str, str] | None = None) -> list[str]:
    return [text for root in grown(rows, silent or {}) for text, _ in drawn(root)]


def test_a_tree_is_drawn_through_its_nodes() -> None:
    assert lines(ROWS) == [
        "app:top  one_for_one  {n1@node:supervisor|1-1s}",
        "├─ a  app:child  running  {n1@app:processes|1-1t}  restarts=2",
        "├─ inner  app:inner  one_for_one  running  {n2@node:supervisor|2-1s}",
        "│  └─ b  app:child  running  {n3@app:processes|3-1t}",
        "└─ c  app:child  waiting for a place  (a ready node)  node n3 is lost",
    ]


def test_a_node_that_does_not_answer_is_said_where_its_branch_begins() -> None:
    drawing = lines(ROWS[:4], {"n2": "timeout"})
    assert drawing[2] == f"├─ inner  app:inner  running  {INNER}  (node n2 does not answer)"
    assert len(drawing) == 4


def test_a_supervisor_whose_parent_is_not_told_of_is_a_root() -> None:
    assert [root["entry"] for root in grown(ROWS[4:], {})] == ["app:inner"]


def test_names_from_the_cluster_paint_no_terminal() -> None:
    (_, line) = lines([supervisor(TOP, "app:top"), child(TOP, "\x1b[31mred")])
    assert "\x1b" not in line


def test_an_entry_that_runs_as_a_child_is_no_stopped_service_beside_the_trees() -> None:
    def service(id: str, state: str) -> dict[str, Any]:
        return {"service": id, "replica": 0, "node": "n1", "state": state}

    rows = [supervisor(TOP, "app:top"), child(TOP, "inner", process="app:inner", type="supervisor", state="down")]
    services = [service(id, "stopped") for id in ("app:inner", "app:other")] + [service("app:top", "running")]
    assert [one["service"] for one in alone({"n1": services}, rows)] == ["app:other"]
