"""``wippy console``: scripts and people use it, over real nodes; what happens when something goes away."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.processes import ROOT, WIPPY, Development, environment, eventually, wippy
from tests.cluster.terminal import OnTerminal
from tests.cluster.test_lost_servers import listening

pytestmark = pytest.mark.servers

PROMPT = "node-2>"
"""It is painted again after what was shown: only then keys are for the editor."""


def piped(up: Development, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*WIPPY, "console", *arguments],
        cwd=up.directory,
        env=environment(),
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def consoles(up: Development) -> list[str]:
    return [str(one["pid"]) for one in up.json("ps", "--json", "--entry", "node:console")]


class Held:
    """A console whose standard input stays open."""

    def __init__(self, up: Development, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*WIPPY, "console", *arguments],
            cwd=up.directory,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *ended: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=20)

    def said(self) -> str:
        """All it said on standard error. It has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def run(self, line: str) -> str:
        """Run a line that shows one line."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        return self.process.stdout.readline().strip()


@pytest.fixture
def screen(up: Development, tmp_path: Path) -> Any:
    with OnTerminal([*WIPPY, "console", "node-2"], up.directory, {"XDG_STATE_HOME": str(tmp_path)}) as screen:
        screen.until("on node-2; help() says what there is", "node-2>")
        yield screen


def test_the_lines_of_standard_input_run_one_by_one(up: Development) -> None:
    script = """
        local n = 20
        function twice(x: number): number
            return 2 * x
        end
        twice(n) + 2
        { a = 1, "b" }
        print("printed")
        string.match(process.pid(), "^{node%-3@node:console|")
        #pids("app:worker_process"), #nodes(), #reg("app:counter") > 0
        call("counter", "get").node == names("counter")[1].pid:match("{(.-)@")
        call("app:total").count >= 0
    """
    done = piped(up, script, "node-3")
    assert done.stdout.splitlines() == [
        "42",
        '{ "b", a = 1 }',
        "printed",
        '"{node-3@node:console|"',
        "3",
        "3",
        "true",
        "true",
        "true",
    ]
    assert (done.returncode, done.stderr) == (0, "")


def test_a_line_that_fails_is_told_on_stderr_the_rest_runs_and_the_exit_code_is_1(up: Development) -> None:
    done = piped(up, "error('no luck')\nx = = 1\n'" + "a" * 1_000_000 + "'\n'after'\nfunction f(\n")
    assert done.stdout == '"after"\n'
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: Internal: prompt:1: no luck",
        "error: prompt:1: expected an expression, found '='",
        "error: the input has 1000002 bytes; a prompt takes 65536: put it into an entry and `use` that",
        "error: the input ends within this: function f(",
    ]


def test_output_of_megabytes_is_bounded(up: Development) -> None:
    done = piped(
        up, "string.rep('x', 5000000)\nfor i = 1, 100000 do print(string.rep('y', 50)) end\n#string.rep('z', 9)"
    )
    assert len(done.stdout) < 400_000
    assert done.stdout.endswith("9\n")
    assert "this line has printed 262144 bytes; the rest is left out" in done.stderr
    assert done.returncode == 0


def test_one_whose_output_nobody_reads_any_more_ends(up: Development) -> None:
    with Held(up, "-e", "for i = 1, 20000 do print(i) end", "-e", "process.inbox():receive()") as held:
        assert held.process.stdout is not None
        assert held.process.stdout.readline() == "1\n"
        held.process.stdout.close()
        held.process.stdout = None
        code = held.process.wait(timeout=30)
        assert code == 1, held.said()


def test_options_run_code_and_a_node_that_is_not_there_is_said(up: Development) -> None:
    assert up.wippy("console", "-e", "x = 20", "-e", "x + 1").stdout == "21\n"
    assert "node 'node-9' is not in cluster" in up.wippy("console", "node-9", "-e", "1", code=1).stderr


def test_consoles_send_to_each_other_and_each_line_is_in_the_log(up: Development) -> None:
    with Held(up, "node-1") as one, Held(up, "node-2") as other:
        pid = one.run("process.pid()").strip('"')
        assert pid in consoles(up)
        assert other.run(f"send('{pid}', 'from afar', {{ n = 1 }})") == "true"
        assert one.run("select(2, receive(10))") == "{ n = 1 }"
        one.process.communicate("", timeout=20)
        assert one.process.returncode == 0
    written = up.out + up.err
    assert re.search(r"console line +line=process\.pid\(\) number=1 .*who=\"?\w+@\S+ \(client-\w+\)", written)
    eventually(lambda: pid not in consoles(up), within=20, what="its process ended")


def test_a_client_that_is_killed_leaves_no_process(up: Development) -> None:
    with Held(up) as held:
        pid = held.run("process.pid()").strip('"')
        held.process.stdin.write("while true do end\n")  # type: ignore[union-attr]
        held.process.kill()
        held.process.wait(10)
    eventually(lambda: pid not in consoles(up), within=30, what="its process ended")


def test_a_client_that_is_ended_closes_its_console(up: Development) -> None:
    with Held(up) as held:
        pid = held.run("process.pid()").strip('"')
        held.process.terminate()
        _, err = held.process.communicate(timeout=20)
        assert (held.process.returncode, err) == (128 + signal.SIGTERM, "")
    closed = rf"console closed .*reason=closed .*{re.escape(pid.rpartition('|')[2].rstrip('}'))}"
    eventually(lambda: re.search(closed, up.out + up.err), within=4, what="it was closed, not found to be gone")


def test_a_person_edits_stops_and_completes(up: Development, screen: OnTerminal) -> None:
    screen.type("'for' .. 'ty'\r")
    screen.until('"forty"', PROMPT)
    screen.type("function q()\r")
    screen.until("..")
    screen.type("return 'from q' end\rq()\r")
    screen.until('"from q"', PROMPT)
    for endless in ("while true do end", "process.inbox():receive()"):
        screen.type(f"print('be' .. 'gun') {endless}\r")
        screen.until("begun")
        screen.type("\x03")
        screen.until("Canceled: the line was stopped", PROMPT)
    screen.type("string.form\t")
    screen.until("string.form", "at")
    screen.type("('%d!', 42)\r")
    screen.until('"42!"', PROMPT)
    screen.type("call('coun\t")
    screen.until("ter")
    screen.type("', 'get').node:sub(1, 5)\r")
    screen.until('"node-"', PROMPT)
    screen.type("nothing.at.all\r")
    screen.until("Internal: prompt:1: attempt to index a nil value (global 'nothing')", PROMPT)
    screen.type("\x04")
    assert screen.end() == 0


def test_what_arrives_is_shown_above_the_line_that_is_typed(up: Development, screen: OnTerminal) -> None:
    screen.type("process.pid()\r")
    pid = re.search(r"\"({node-2@node:console\|[^}]+})\"", screen.until('"{node-2@node:console|', '}"', PROMPT))
    assert pid is not None
    screen.type("'half a li")
    screen.until("'half a li")
    up.wippy("send", pid[1], "greeting", '{"n": 1}')
    screen.until("<- greeting from {", "{ n = 1 }", "'half a li")
    screen.type("ne'\r")
    screen.until('"half a line"', PROMPT)
    screen.type("\x1b[A\r")  # the history has it
    screen.until('"half a line"', PROMPT)
    screen.type("exit()\r")
    assert screen.end() == 0


def test_the_commands_of_the_page_work(up: Development) -> None:
    page = (ROOT / "docs" / "console.md").read_text()
    commands = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0].splitlines()
    said = []
    for command in commands:
        typed, _, run = command.rpartition(" | ")
        words = shlex.split(run)
        assert words[0] == "wippy"
        text = shlex.split(typed)[1] if typed else ""
        said.append(wippy(up.directory, *words[1:], text=text).stdout)
    assert said == ["3\n", "21\n", "true\n"]


def test_what_goes_through_a_process_is_shown(up: Development, screen: OnTerminal) -> None:
    screen.type("trace('counter')\r")
    time.sleep(1)  # it begins with a look that nothing tells of
    up.wippy("call", "counter", "get")
    screen.until("<- {", "  get", "-> {", "  count  {")
    screen.type("\x03")
    screen.until("Canceled: the line was stopped", PROMPT)
    screen.type("\x04")
    assert screen.end() == 0


def test_an_outage_is_waited_for_and_a_node_that_dies_ends_its_consoles(own_up: Development) -> None:
    with Held(own_up, "node-2") as held:
        assert held.run("n = 1 return n") == "1"
        server = listening(own_up.place["nats"][0])
        os.kill(server, signal.SIGSTOP)
        try:
            held.process.stdin.write("n = n + 1 return n\n")  # type: ignore[union-attr]
            said = held.process.stderr.readline()  # type: ignore[union-attr]
        finally:
            os.kill(server, signal.SIGCONT)
        assert said.startswith("no answer from node-2")
        assert held.process.stdout.readline() == "2\n"  # type: ignore[union-attr]
        with Held(own_up, "node-3") as stopped:
            assert stopped.run("1") == "1"
            os.kill(own_up.pids["node-3"], signal.SIGTERM)
            assert stopped.process.wait(30) == 1
            assert "the console on node-3 ended: it was asked to end: node stopping" in stopped.said()
        os.kill(own_up.pids["node-2"], signal.SIGKILL)
        assert held.process.wait(60) == 1
        err = held.said()
        assert "error: node node-2 is gone, and its consoles with it; `wippy nodes` shows what is there" in err
