"""What the verbs say of nodes that do not answer: by name, and with an exit code when nothing is known for it."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.client import Answers, NoNodes, QueryFailed
from cluster.errors import CallTimeout
from node.cli import look
from node.cli.failures import Failed
from node.cli.inspect import inspect
from node.cli.letters import dead_letters
from node.cli.services import services

SILENT = {"n2": "no answer within 5 s"}
PID = "{n2@app:processes|1-1}"


class Client:
    """A cluster of two nodes, of which those in ``silent`` do not answer."""

    cluster = "c"

    def __init__(self, silent: dict[str, str], names: list[dict[str, Any]] | None = None) -> None:
        by_node = {node: names or [] for node in ("n1", "n2") if node not in silent}
        self._answers = Answers(by_node, silent, dict.fromkeys(by_node, 0))

    async def member(self, node: str) -> str:
        return node

    async def names(self, timeout: float = 5.0) -> Answers:
        return self._answers

    async def locks(self) -> Answers:
        return self._answers

    async def services(self) -> Answers:
        return self._answers

    async def ps(self, **query: Any) -> Answers:
        return self._answers

    async def dead_letters(self, **query: Any) -> Answers:
        return self._answers

    async def ask(self, node: str, op: str, **query: Any) -> Any:
        raise CallTimeout(node, 5.0)

    async def ask_all(self, op: str, **query: Any) -> Answers:
        return Answers({}, dict.fromkeys(("n1", "n2"), "noproc"))


@pytest.mark.parametrize("verb", [look.ps, look.names, look.locks, services, dead_letters])
async def test_a_listing_names_the_silent_and_fails_when_all_are(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    await verb(Client(SILENT))
    assert "n2 did not answer: no answer within 5 s" in capsys.readouterr().err
    with pytest.raises(Failed, match="no node answers"):
        await verb(Client({"n1": "no answer", **SILENT}))


@pytest.mark.parametrize("verb", [look.ps, dead_letters])
async def test_a_listing_of_one_node_fails_when_that_is_silent(verb: Any) -> None:
    with pytest.raises(Failed, match="n2 does not answer"):
        await verb(Client(SILENT), on="n2")
    await verb(Client(SILENT), on="n1")


async def test_a_process_of_a_silent_node_is_not_said_to_be_gone() -> None:
    with pytest.raises(Failed, match="n2 does not answer, so nothing is known") as failed:
        await inspect(Client(SILENT), PID)  # type: ignore[arg-type]
    assert failed.value.code == 1
    assert "noproc" not in str(failed.value)


async def test_a_name_nobody_who_answers_has_may_be_one_of_a_silent_node() -> None:
    with pytest.raises(Failed, match="n2 did not answer") as failed:
        await inspect(Client(SILENT), "worker")  # type: ignore[arg-type]
    assert "noproc" not in str(failed.value)
    with pytest.raises(Failed, match="noproc"):
        await inspect(Client({}), "worker")  # type: ignore[arg-type]


async def test_a_name_that_is_known_leads_to_its_node() -> None:
    with pytest.raises(Failed, match="n2 does not answer"):
        await inspect(Client(SILENT, [{"name": "worker", "pid": PID}]), "worker")  # type: ignore[arg-type]


DETAIL: dict[str, Any] = {
    "pid": PID, "kind": "process", "entry": "app:x", "version": 0, "host": "app:processes", "parent": "",
    "state": "idle", "memory": 1, "mailbox": 0, "mailbox_limit": 9, "received": 0, "sent": 0, "names": [], "topics": {},
    "links": [], "watchers": [], "watching": [], "threads": 1, "timers": 0, "operations": 0, "calls": 0, "streams": 0,
    "migratable": True,
}  # fmt: skip


class Moved(Client):
    """A process that was born on n2 and is on n1 now."""

    def __init__(self, error: Exception) -> None:
        super().__init__({})
        self._error = error

    async def ask(self, node: str, op: str, **query: Any) -> Any:
        raise self._error

    async def ask_all(self, op: str, **query: Any) -> Answers:
        return Answers({"n1": DETAIL}, {"n2": "noproc"})


@pytest.mark.parametrize(
    "error",
    [QueryFailed("NotFound", "no process", "noproc", "n2"), NoNodes("node 'n2' is gone"), CallTimeout("n2", 5.0)],
)
async def test_a_process_that_has_moved_is_shown_where_it_is(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    await inspect(Moved(error), PID)  # type: ignore[arg-type]
    said = capsys.readouterr().out
    assert "app:processes on n1" in said
    assert "migratable" in said


async def test_a_process_is_listed_with_the_node_it_is_on(capsys: pytest.CaptureFixture[str]) -> None:
    client = Client({})
    client._answers.by_node["n1"].append({"pid": PID, "entry": "app:x", "name": "x"})
    await look.ps(client)  # type: ignore[arg-type]
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:3] == ["PID", "ENTRY", "NODE"]
    assert lines[1][:3] == [PID, "app:x", "n1"]
