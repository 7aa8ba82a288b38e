"""The client's end of a console: what is completed, remembered, read and printed; what the helpers answer."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from cluster.client import Answers
from node.cli.failures import Failed
from node.cli.prompt.answers import Answering
from node.cli.prompt.attached import Attached
from node.cli.prompt.editor import history_in
from node.cli.prompt.reading import Printer, run_texts
from node.cli.prompt.words import Word, word_before


@pytest.mark.parametrize(
    ("before", "word"),
    [
        ("string.for", Word("string.for", False)),
        ("x = process.reg", Word("process.reg", False)),
        ("text:up", Word("text:up", False)),
        ("send('cou", Word("cou", True)),
        ('send("{node-1@app:p|1-', Word("{node-1@app:p|1-", True)),
        ("f('a', \"b", Word("b", True)),
        ("f('it\\'s ", Word("it\\'s ", True)),
        ("send('", Word("", True)),
        ("-- it's\nx", Word("x", False)),
        ("f('a').b", Word("b", False)),
        ("1 + ", None),
        ("", None),
    ],
)
def test_the_word_at_the_cursor(before: str, word: Word | None) -> None:
    assert word_before(before) == word


def test_the_history_is_for_its_user_alone(tmp_path: Path) -> None:
    history = history_in(tmp_path / "state")
    history.store_string("1 + 1")
    file = tmp_path / "state" / "console_history"
    assert "1 + 1" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(history_in(tmp_path / "state").load_history_strings()) == ["1 + 1"]


def test_a_history_that_can_not_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    history_in(tmp_path / "file").append_string("1")
    assert "lines are remembered until the end of this console" in capsys.readouterr().err


def test_the_line_editor_is_imported_by_nothing_else() -> None:
    code = (
        "import sys, node.cli.app as app; app.build(); print([one for one in sys.modules if 'prompt_toolkit' in one])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


class Scripted:
    """A session that runs nothing: lines with ``bad`` in them fail; ``end`` ends the console."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    broken: OSError | None = None

    async def run(self, text: str) -> bool:
        self.ran.append(text)
        if text.startswith("stop"):
            self.over.set_result(text.partition(" -- ")[2])
        elif text == "unread":
            self.broken = BrokenPipeError(32, "Broken pipe")
            self.over.set_result("nobody reads what is shown")
        return "bad" not in text

    def check(self) -> None:
        if self.broken is not None:
            raise self.broken


async def each(*lines: str) -> AsyncIterator[str]:
    for line in lines:
        yield line


async def test_texts_run_one_by_one_and_what_is_begun_goes_on_in_the_next() -> None:
    session = Scripted()
    assert await run_texts(cast(Attached, session), each("a = 1", "", "function f()", "  return 1", "end", "f()"))
    assert session.ran == ["a = 1", "function f()\n  return 1\nend", "f()"]


async def test_one_that_fails_is_remembered_and_the_rest_runs(capsys: pytest.CaptureFixture[str]) -> None:
    session = Scripted()
    assert not await run_texts(cast(Attached, session), each("bad()", "x = = 1", "good()"))
    assert session.ran == ["bad()", "good()"]
    assert capsys.readouterr().err == "error: prompt:1: expected an expression, found '='\n"


async def test_one_whose_output_nobody_reads_ends_as_any_verb_does() -> None:
    session = Scripted()
    with pytest.raises(BrokenPipeError):
        await run_texts(session, each("unread", "more"))  # type: ignore[arg-type]
    assert session.ran == ["unread"]


async def test_input_that_ends_within_something_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert not await run_texts(cast(Attached, Scripted()), each("for i = 1, 2 do", "print(i)"))
    assert "the input ends within this: for i = 1, 2 do" in capsys.readouterr().err


async def test_a_console_that_ends_ends_the_reading_though_more_could_come() -> None:
    async def endless() -> AsyncIterator[str]:
        yield "stop()"
        await asyncio.sleep(60)
        yield "never"

    session = Scripted()
    async with asyncio.timeout(10):
        assert await run_texts(cast(Attached, session), endless())
    with pytest.raises(Failed, match="the node stopped"):
        await run_texts(cast(Attached, Scripted()), each("stop() -- the node stopped", "never()"))


def test_values_go_to_stdout_and_everything_else_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    printer = Printer()
    for kind in ("value", "out", "text", "error", "note", "message", "event"):
        printer.show(kind, f"a {kind}")
    said = capsys.readouterr()
    assert said.out == "a value\na out\na text\n"
    assert said.err == "error: a error\na note\nmessage: a message\nevent: a event\n"


class Screen:
    def __init__(self) -> None:
        self.shown: list[tuple[str, str]] = []

    def show(self, kind: str, text: str) -> None:
        self.shown.append((kind, text))


class Cluster:
    """A client of two nodes, of which one is silent."""

    def __init__(self, processes: int = 2) -> None:
        self.processes = processes
        self.traced = 0

    async def ps(self) -> Answers:
        rows = [{"pid": f"{{a@h:p|1-{n}}}", "entry": "app:x", "state": "idle"} for n in range(self.processes)]
        return Answers({"a": rows}, {"b": "no answer"})

    async def names(self) -> Answers:
        return Answers({"a": [{"name": "one", "pid": "{a@h:p|1-1}", "scope": 2}]})

    async def services(self) -> Answers:
        def row(node: str) -> dict[str, Any]:
            return {"service": "app:s", "replica": 0, "node": node, "state": "running", "pid": f"{{{node}@h:p|1-1}}"}

        return Answers({"a": [row("a"), row("b")], "b": [row("b")]})

    async def ask_all(self, op: str, **query: Any) -> Answers:
        return Answers({"a": {"pid": query["pid"], "entry": "app:x"}} if query["pid"] == "{a@h:p|1-1}" else {})

    async def ask(self, node: str, op: str, **query: Any) -> Any:
        self.traced += 1
        record = {"at": 0, "way": "in", "other": "{b@h:p|1-9}", "topic": "t", "size": 9, "data": [{"n": self.traced}]}
        big = {"at": 0, "way": "out", "other": "{b@h:p|1-9}", "topic": "u", "size": 5000}
        return {"records": [record, big], "left_out": 0}


def answering(cluster: Cluster) -> tuple[Answering, Screen, list[str]]:
    screen, left = Screen(), list[str]()
    return Answering(cast(Any, cluster), screen, left.append), screen, left


async def test_pids_are_those_of_all_nodes_with_their_names_and_who_is_silent_is_said() -> None:
    answers, screen, _ = answering(Cluster())
    assert (await answers.outcome("pids", ["one"]))["value"] == [
        {"pid": "{a@h:p|1-1}", "entry": "app:x", "node": "a", "state": "idle", "names": "one"}
    ]
    assert screen.shown == [("note", "b did not answer: no answer")]


async def test_a_service_of_every_node_is_listed_once_for_each() -> None:
    answers, _, _ = answering(Cluster())
    assert [row["node"] for row in (await answers.outcome("services", []))["value"]] == ["a", "b"]


async def test_a_listing_has_a_bound_and_says_so() -> None:
    answers, screen, _ = answering(Cluster(5000))
    assert len((await answers.outcome("pids", []))["value"]) == 2000
    assert ("note", "the first 2000 of 5000; a text as argument selects") in screen.shown


async def test_a_process_is_found_by_name_and_one_that_is_not_there_is_said() -> None:
    answers, _, _ = answering(Cluster())
    assert (await answers.outcome("inspect", ["one"]))["value"]["entry"] == "app:x"
    assert "no process is registered as 'two'" in (await answers.outcome("inspect", ["two"]))["error"]
    assert "on any node that answers" in (await answers.outcome("inspect", ["{a@h:p|1-0}"]))["error"]
    assert "expected a PID or a name" in (await answers.outcome("inspect", []))["error"]


async def test_a_trace_shows_what_was_seen_until_it_is_stopped() -> None:
    answers, screen, _ = answering(Cluster())
    outcome, _ = await asyncio.gather(answers.outcome("trace", ["one", 60]), _stop_when(answers, screen))
    assert "seen of {a@h:p|1-1}" in outcome["value"]
    lines = [text.split("  ", 1)[1] for _, text in screen.shown]
    assert lines[:2] == ['<- {b@h:p|1-9}  t  {"n": 2}', "-> {b@h:p|1-9}  u  (5000 bytes)"]
    assert "expected 0 to 300 seconds" in (await answers.outcome("trace", ["one", -1]))["error"]


async def _stop_when(answers: Answering, screen: Screen) -> None:
    async with asyncio.timeout(10):
        while not screen.shown:
            await asyncio.sleep(0.01)
    answers.stop()


async def test_what_this_version_does_not_know_is_said() -> None:
    answers, _, left = answering(Cluster())
    assert "can't answer 'weather'" in (await answers.outcome("weather", []))["error"]
    assert await answers.outcome("exit", []) == {"value": None}
    assert left == [""]
