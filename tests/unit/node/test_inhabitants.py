"""Who cares for each process of a node, as a drain has to know it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster.drain import Care, Process
from node.inhabitants import Inhabitants, Overseen


@dataclass
class Service:
    service: str
    replica: int
    pids: tuple[bytes, ...]
    able: frozenset[str] = frozenset({"n2"})


TREE = Service("app:tree", 0, (b"{n1@node:supervisor|1-1}",), frozenset())
SERVICE = Service("app:s", 2, (b"{n1@app:p|1-2}",))
ROOT = Overseen("{n1@node:supervisor|1-1}", "app:tree", "{n1@node:supervisor|1-0}", False, "{n1@node:supervisor|1-1}")
INNER = Overseen("{n1@node:supervisor|1-3}", "app:inner", ROOT.pid, True, ROOT.pid)
GUEST = Overseen("{n1@node:supervisor|1-4}", "app:inner", "{n2@node:supervisor|1-9}", True, "{n1@node:supervisor|1-4}")
OWN = Overseen("{n1@node:supervisor|1-5}", "app:tree", "{n1@app:p|1-7}", False, "{n1@node:supervisor|1-5}")


def row(pid: str, **more: Any) -> dict[str, Any]:
    return {"pid": pid, "entry": "app:p", "kind": "process", "parent": "", **more}


async def count(*rows: dict[str, Any], supervisors: list[Overseen] | None = None) -> dict[str, Process]:
    async def processes() -> list[dict[str, Any]]:
        return list(rows)

    inhabitants = Inhabitants("n1", processes, lambda: supervisors or [], lambda: [TREE, SERVICE])
    census = await inhabitants.count()
    assert set(census.services) == {"app:tree/0", "app:s/2"}
    return {process.pid: process for process in census.processes}


async def test_a_process_nobody_cares_for_may_move_when_it_says_so() -> None:
    found = await count(row("a", migratable=True, moving=True), row("b"), row("c", kind="function"))
    assert found["a"] == Process("a", "app:p", migratable=True, is_busy=True)
    assert found["b"] == Process("b", "app:p")
    assert found["c"] == Process("c", "app:p", is_call=True)


async def test_the_process_of_a_service_goes_where_the_service_may() -> None:
    found = await count(row("{n1@app:p|1-2}", migratable=True))
    expected = Process("{n1@app:p|1-2}", "app:p", True, Care.SERVICE, "app:s/2", able=frozenset({"n2"}))
    assert found == {expected.pid: expected}


async def test_a_child_belongs_to_the_tree_it_is_in() -> None:
    found = await count(
        row("of root", supervised=True, parent=ROOT.pid),
        row("of inner", supervised=True, parent=INNER.pid),
        row("of guest", supervised=True, parent=GUEST.pid),
        row("of another", supervised=True, parent="{n2@node:supervisor|1-9}", migratable=True),
        row("spawned", parent=ROOT.pid),
        supervisors=[ROOT, INNER, GUEST],
    )
    assert (found["of root"].care, found["of root"].service) == (Care.HERE, "app:tree/0")
    assert (found["of inner"].care, found["of inner"].service) == (Care.HERE, "app:tree/0")
    assert (found["of guest"].care, found["of guest"].service) == (Care.HERE, "")
    assert (found["of another"].care, found["of another"].may_move) == (Care.ELSEWHERE, False)
    assert found["spawned"].care is Care.NOBODY


async def test_supervisors_are_processes_too_but_those_that_are_services_are_told_as_such() -> None:
    found = await count(supervisors=[ROOT, INNER, GUEST, OWN])
    assert ROOT.pid not in found
    assert (found[INNER.pid].care, found[INNER.pid].service) == (Care.HERE, "app:tree/0")
    assert found[GUEST.pid].care is Care.ELSEWHERE
    assert found[OWN.pid].care is Care.NOBODY
