"""The small applications of ``examples``, as a person runs them.

Between them they use what applications are made of: the terminal, function calls, services that
talk to each other, channels and coroutines, supervision by hand, the registry as it changes,
events, chains of processes, state behind a name, work by the clock, and thousands of processes.
Each program runs twice in one directory, because what a run leaves behind must not change the
next one; four of them run on three nodes.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.processes import WIPPY, Development, Program, eventually, wippy

pytestmark = pytest.mark.servers

EXAMPLES = Path(__file__).parents[2] / "examples"
APPS = Path(__file__).parents[1] / "apps"
AT_ONCE = 2
"""Applications that run at the same time."""


@dataclass(frozen=True)
class Ended:
    """One run of a program: its exit code and what it printed."""

    code: int
    out: str


PROGRAMS: dict[str, tuple[list[str], int, str]] = {
    "greeting": (
        ["-x", "app:greet", "Ann", "two words"],
        0,
        "Good morning, Ann!\n"
        "Good morning, two words!\n"
        "said by a process of app:greet on app:terminal\n"
        "as args: Ann,two words\n",
    ),
    "arithmetic": (
        ["-x", "app.arithmetic:calculator"],
        0,
        "11 squared is 121, its digits sum up to 4\n"
        "12 squared is 144, its digits sum up to 9\n"
        "13 squared is 169, its digits sum up to 16\n"
        "14 squared is 196, its digits sum up to 16\n"
        "17 / 5 is\t3\trest\t2\n"
        "1 / 0 is\tnil\tInvalid\tcan't divide by zero\t1\n"
        "a root is\tNotFound\n"
        "many squared is\tInternal\n"
        "at once: 1 4 9 16 25\n",
    ),
    "kitchen": (
        ["-x", "app:kitchen"],
        0,
        ", ".join(f"dish {number:02d}" for number in range(1, 13)) + "\n"
        "Ada cooked\n"
        "Ben cooked\n"
        "Cyd cooked\n"
        "an order after closing time:\tfalse\ttrue\n"
        "nobody at the pass:\ttrue\n",
    ),
    "lamp": (
        ["-x", "app:keeper"],
        0,
        "lamp 1 went out: the wick broke\n"
        "lamp 2 went out: out of oil\n"
        "lamp 3 went out: attempt to index a nil value (local 'nothing')\n"
        "lamp 4 went out: terminated\n"
        "lamp 5 burned for 10 hours\n",
    ),
    "bakery": (
        ["-x", "app:inspector"],
        0,
        "open\n"
        "the counter broke; started anew: counter, hands\n"
        "the oven broke; started anew: oven, counter, hands\n"
        "helping hands:\t3\n"
        "a mill that runs:\tConflict\n"
        "supervisor app:bakery: more than 2 restarts within 10 s; child mill ended once more, "
        "the last because of: terminated\n",
    ),
    "menu": (
        ["-x", "app.menu:waiter"],
        0,
        "v0:\n  dish.soup        Soup of the day, 5\n  dish.stew        Stew, 11\n"
        "v1:\n  dish.soup        Soup of the day, 5\n  dish.stew        Stew, 11\n  dish.trout       Trout, 14\n"
        "v2:\n  dish.cake        Cake, 4\n  dish.soup        Pumpkin soup, 6\n"
        "  dish.stew        Stew, 11\n  dish.trout       Trout, 14\n"
        "v3:\n  dish.cake        Cake, 4\n  dish.soup        Pumpkin soup, 6\n  dish.trout       Trout, 14\n"
        "a bad change is refused:\ttrue\tNotFound\n"
        "v3:\n  dish.cake        Cake, 4\n  dish.soup        Pumpkin soup, 6\n  dish.trout       Trout, 14\n"
        "v4:\n  dish.soup        Soup of the day, 5\n  dish.stew        Stew, 11\n",
    ),
    "mill": (
        ["-x", "app:miller"],
        0,
        "flour: 205\n  Brook: 40\n  Hill: 165\n"
        "not a sack: no corn at all\n"
        "not a sack: rye; ten; Brook\n"
        "grinder ground, reader read, weigher weighed\n",
    ),
    "shelf": (
        ["-x", "app:visitor"],
        0,
        "replaced:\tvase no. 3\n"
        "the vase is\tblue\tin\t2\tpieces\n"
        "a mirror is there:\tfalse\n"
        "taken:\tlamp no. 1\n"
        "on the shelf:\tclock, vase\n"
        "dusting:\tno such thing as dust\n"
        "left:\t0\n"
        "nobody by that name:\tNotFound\n",
    ),
    "rooms": (
        ["-x", "app:porter"],
        0,
        "0 rooms: \n"
        "5 rooms: The attic, The cellar, The garden, The hall, The library\n"
        "hall: Ann and Bo, 4 lines\n"
        "cellar: Cy, 0 lines\n"
        "closed in order:\t5\n"
        "0 rooms: \n",
    ),
}
"""Applications that end by themselves: arguments, exit code and what they print."""


def copied(name: str, directory: Path) -> Path:
    """An application of its own in ``directory``: an example, or one of the tests'."""
    source = next(place / name for place in (EXAMPLES, APPS) if (place / name).is_dir())
    return Path(shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns(".wippy")))


@pytest.fixture(scope="module")
def runs(binaries: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[list[Ended]]]]:
    """Two runs of every program in a directory of its own, a few programs at a time."""

    everything = tmp_path_factory.mktemp("programs")

    def twice(name: str) -> list[Ended]:
        directory = copied(name, everything)
        ended = [wippy(directory, "run", *PROGRAMS[name][0], code=None) for _ in range(2)]
        return [Ended(each.returncode, each.stdout) for each in ended]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(twice, name) for name in PROGRAMS}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_prints_the_same_in_every_run(runs: dict[str, Future[list[Ended]]], name: str) -> None:
    _, code, printed = PROGRAMS[name]
    first, second = runs[name].result(100)
    assert first == Ended(code, printed)
    assert second == first


@pytest.mark.parametrize(("entry", "code", "said"), [("refuse", 3, "not today"), ("stumble", 1, "no more tea")])
def test_the_exit_code_is_that_of_the_process(binaries: None, tmp_path: Path, entry: str, code: int, said: str) -> None:
    ended = wippy(copied("greeting", tmp_path), "run", "-x", f"app:{entry}", code=code)
    assert said in ended.stderr
    assert ended.stdout == ""


def test_the_page_of_the_examples_has_them_all_and_the_commands_that_run_here() -> None:
    page = (EXAMPLES / "README.md").read_text()
    rows = dict(re.findall(r"^\| \[(\w+)\]\(\1\) \|.*\| (.*) ?\|$", page, re.MULTILINE))
    assert set(rows) == {directory.name for directory in EXAMPLES.iterdir() if directory.is_dir()}
    for name, (arguments, _, _) in PROGRAMS.items():
        assert f"`{' '.join(arguments[:2])}" in rows[name]


def test_a_command_is_found_by_its_name(binaries: None, tmp_path: Path) -> None:
    greeting = copied("greeting", tmp_path)
    assert "Good morning, Bo!" in wippy(greeting, "run", "greet", "Bo").stdout
    assert "Greet whoever is named" in wippy(greeting, "run", "list").stdout


def records(log: str) -> list[dict[str, Any]]:
    """The JSON lines in what a node or ``wippy up`` wrote."""
    lines = (line[line.find("{") :] for line in log.splitlines() if '"level"' in line)
    return [json.loads(line) for line in lines]


def of_apps(log: str) -> list[dict[str, Any]]:
    """What Lua code logged: entry, message and fields."""
    told = [record for record in records(log) if str(record.get("entry", "")).startswith("app:")]
    hidden = ("time", "pid", "node", "logger", "location", "level")
    return [{key: value for key, value in record.items() if key not in hidden} for record in told]


class Service(Program):
    """``wippy run`` of an application made of services, with its log as JSON."""

    def __init__(self, app: Path, name: str, *options: str, env: Mapping[str, str] | None = None) -> None:
        super().__init__([*WIPPY, "run", "--set", "logger.encoding=json", *options], app, name, env)


STROKES = [{"entry": "app:player_process", "message": "stroke", "number": n, "speed": n * 10} for n in range(1, 7)]
TENNIS = [*STROKES, {"entry": "app:player_process", "message": "game over", "strokes": 6}]
NOTES = ["wind /hill", "rain /valley", "wind /coast", "tested /hill", "rain /hill", "wind /coast"]


def said_by(entry: str, said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in said if record["entry"] == entry]


class TestServices:
    def run(self, app: Path, name: str, until: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        with Service(app, name) as service:
            service.until(lambda: until(of_apps(service.err)), within=30)
            assert service.stop() == 0
        return of_apps(service.err)

    def test_two_services_play_until_one_has_enough(self, binaries: None, tmp_path: Path) -> None:
        app = copied("tennis", tmp_path)
        for name in ("first", "second"):
            said = self.run(app, name, lambda said: any(one["message"] == "game over" for one in said))
            assert said_by("app:player_process", said) == TENNIS
            assert [one["message"] for one in said_by("app:wall_process", said)] == [
                "the wall stands",
                "the wall rests",
            ]

    def test_every_listener_hears_what_it_subscribed_to(self, binaries: None, tmp_path: Path) -> None:
        app = copied("weather", tmp_path)
        for name in ("first", "second"):
            said = self.run(app, name, lambda said: len(said_by("app:diary_process", said)) >= len(NOTES))
            assert_diary(said_by("app:diary_process", said))
            storms = [(one["where"], one["speed"]) for one in said_by("app:alarm_process", said)]
            assert storms == [("/coast", 95), ("/coast", 80)]

    def test_work_by_the_clock_is_summed_up_when_the_node_stops(self, binaries: None, tmp_path: Path) -> None:
        def often(said: list[dict[str, Any]]) -> bool:
            return sum(one["message"] == "all is well" for one in said_by("app:tower", said)) >= 3

        said = self.run(copied("rounds", tmp_path), "node", often)
        pace = {"app:gate": "100ms", "app:wall": "250ms", "app:tower": "400ms"}
        for entry, every in pace.items():
            first, *rounds, last = said_by(entry, said)
            assert (first["message"], first["every"]) == ("on watch", every)
            assert [one["round"] for one in rounds] == list(range(1, len(rounds) + 1))
            assert (last["message"], last["rounds"]) == ("off watch", len(rounds))
            assert last["reason"]

    def test_chores_are_found_in_the_registry_also_while_they_come(self, binaries: None, tmp_path: Path) -> None:
        app = copied("chores", tmp_path)
        with Service(app, "node", "--watch") as service:

            def hired() -> list[str]:
                said = said_by("app:steward_process", of_apps(service.err))
                return sorted(one["chore"] for one in said if one["message"] == "hired")

            def done(chore: str) -> list[dict[str, Any]]:
                return [one for one in said_by("app:hand", of_apps(service.err)) if one["chore"] == chore]

            service.until(lambda: len(done("app:chore.wind_clock")) >= 2, within=30)
            assert hired() == ["app:chore.polish", "app:chore.sweep", "app:chore.wind_clock"]
            index = app / "src" / "_index.yaml"
            dust = {"name": "chore.dust", "kind": "function.lua", "meta": {"type": "chore", "every": "50ms"}}
            entry = {**dust, "source": "file://chores.lua", "method": "sweep"}
            index.write_text(f"{index.read_text()}\n  - {json.dumps(entry)}\n")
            service.until(lambda: len(done("app:chore.dust")) >= 2, within=30)
            assert service.stop() == 0
            first, second, *_ = done("app:chore.wind_clock")
            assert (first["what"], second["why"], second["kind"]) == ("clocks wound", "the key is gone", "Unavailable")
            left = [one for one in of_apps(service.err) if one["message"] == "dismissed"]
        assert {one["chore"]: one["runs"] for one in left} == {chore: len(done(chore)) for chore in hired()}

    def test_a_desk_answers_each_line_by_a_clerk_of_its_own(self, binaries: None, tmp_path: Path) -> None:
        asked = "what is the time\n\none two"
        ended = wippy(copied("desk", tmp_path), "run", "ask", text=asked)
        answers = [line for line in ended.stdout.replace("? ", "").splitlines() if line]
        assert answers == [
            "time the is what\t(4 words)",
            "sorry:\tnothing was asked",
            "two one\t(2 words)",
            "3 questions, 2 clerks",
        ]

    def test_thousands_of_processes_live_side_by_side(self, binaries: None, tmp_path: Path) -> None:
        many = {"FIREFLIES": "2000", "SLOWEST_BLINK": "400ms"}
        with Service(copied("swarm", tmp_path), "node", env=many) as service:
            service.until(lambda: '"the meadow at night"' in service.err, within=30)
            assert service.stop(within=20) == 0, "fireflies end with the meadow; nobody waits 30 s to kill them"
        flying, *nights, morning = said_by("app:meadow_process", of_apps(service.err))
        assert (flying["message"], flying["count"]) == ("all are flying", 2000)
        assert {night["alive"] for night in nights} == {morning["alive"]} == {2000}
        assert 0 < nights[0]["blinks"] <= morning["blinks"]

    def test_every_line_says_which_node_process_and_entry(self, binaries: None, tmp_path: Path) -> None:
        with Service(copied("tennis", tmp_path), "node") as service:
            service.until(lambda: "game over" in service.err, within=30)
        lines = service.err.splitlines()
        assert lines
        assert [line for line in lines if not line.startswith("{")] == []
        (over,) = [record for record in records(service.err) if record["message"] == "game over"]
        assert over["pid"].startswith(f"{{{over['node']}@app:court|")
        assert (over["entry"], over["level"]) == ("app:player_process", "info")
        assert over["location"] == "app:player_process:22"
        assert {record["node"] for record in records(service.err)} == {over["node"]}


def assert_diary(noted: list[dict[str, Any]]) -> None:
    *notes, day = noted
    assert [note["what"].partition(".")[2] for note in notes] == NOTES
    assert {note["system"] for note in notes} == {"weather"}
    assert [note.get("data") for note in notes][2:4] == [{"speed": 95}, None]
    assert (day["message"], day["reading.rain"], day["reading.wind"], day["station.tested"]) == ("the day", 2, 3, 1)


class AppUp(Development):
    """``wippy up`` of one of these applications on three nodes."""

    def __init__(self, directory: Path, name: str, *options: str) -> None:
        self.directory = directory
        self.app = copied(name, directory)
        command = [*WIPPY, "up", name, "--nodes", "3", "--set", "logger.encoding=json", *options]
        Program.__init__(self, command, directory, "up")

    def said(self, entry: str) -> dict[str, list[dict[str, Any]]]:
        """What the processes of an entry logged, by node."""
        by_node: dict[str, list[dict[str, Any]]] = {}
        for record in records(self.err):
            if record.get("entry") == entry:
                by_node.setdefault(record["node"], []).append(record)
        return by_node


class TestOnThreeNodes:
    def test_players_on_every_node_play_against_one_wall(self, binaries: None, tmp_path: Path) -> None:
        with AppUp(tmp_path, "tennis", "-o", "app:player:placement.mode=every_node") as up:

            def over() -> bool:
                players = up.said("app:player_process")
                return len(players) == 3 and all(said[-1]["message"] == "game over" for said in players.values())

            up.until(over, within=30)
            services = up.json("services", "--json")
            assert len({one["node"] for one in services if one["service"] == "app:wall"}) == 1
            assert up.stop() == 0
        for said in up.said("app:player_process").values():
            assert [one["number"] for one in said[:-1]] == [1, 2, 3, 4, 5, 6]

    def test_an_event_is_heard_once_on_every_node(self, binaries: None, tmp_path: Path) -> None:
        everywhere = [f"app:{name}:placement.mode=every_node" for name in ("diary", "alarm")]
        options = [part for text in (*everywhere, "app:season:listeners=6") for part in ("-o", text)]
        with AppUp(tmp_path, "weather", *options) as up:

            def heard() -> bool:
                diaries = up.said("app:diary_process")
                return len(diaries) == 3 and all(len(said) >= len(NOTES) for said in diaries.values())

            up.until(heard, within=30)
            assert up.stop() == 0
        for said in up.said("app:diary_process").values():
            assert_diary(said)
        for said in up.said("app:alarm_process").values():
            assert [one["speed"] for one in said] == [95, 80]
        assert len(up.said("app:station_process")) == 1

    def test_a_process_hops_between_nodes_and_its_clients_notice_nothing(self, binaries: None, tmp_path: Path) -> None:
        nodes = ["node-1", "node-2", "node-3"]
        with AppUp(tmp_path, "hop") as up:

            def score() -> dict[str, Any]:
                return dict(up.call("hopper", "score"))

            first = eventually(lambda: (told := score())["throwers"] == 3 and told, within=20, what="all three throw")
            pid = next(one["pid"] for one in up.json("names", "--json") if one["name"] == "hopper")
            start = nodes.index(first["node"])
            there, further = nodes[start - 1], nodes[start - 2]
            assert up.json("call", "hopper", "go", json.dumps(there))["node"] == there
            assert up.wippy("move", "hopper", further).stdout.startswith(f"moved to {further} in ")
            assert "1 moved" in up.wippy("drain", further).stdout
            assert score()["node"] != further
            up.wippy("uncordon", further)
            assert up.wippy("move", pid, further).stdout.startswith(f"moved to {further} in ")
            told = eventually(lambda: (told := score())["throwers"] == 3 and told, within=20, what="all throw again")
            assert (told["node"], told["hops"], told["missed"]) == (further, 4, 0)
            assert told["balls"] > first["balls"]
            for node in nodes:
                seen = up.call(f"thrower@{node}", "report")
                assert (seen["lost"], seen["doubled"], seen["hopper"], seen["hops"]) == (0, 0, further, 4)
                assert seen["caught"] > 0
                assert seen["longest_pause_ms"] < 10_000
            assert up.stop() == 0

    def test_a_program_beside_the_cluster_uses_the_service_by_its_name(self, binaries: None, tmp_path: Path) -> None:
        with AppUp(tmp_path, "shelf") as up:
            for _ in range(2):
                ended = up.wippy("run", "shelf", "-x", "app:visitor")
                assert ended.stdout == PROGRAMS["shelf"][2]
            assert "joining cluster dev" in ended.stderr
            copied("greeting", tmp_path)
            alone = up.wippy("run", "greeting", *PROGRAMS["greeting"][0])
            assert alone.stdout == PROGRAMS["greeting"][2]
            assert "is of another application" in alone.stderr
            served = eventually(lambda: up.call("shelf", "list")["served"], within=10, what="the shelf still answers")
            assert served == 25
            assert [node["node"] for node in up.json("nodes", "--json")] == ["node-1", "node-2", "node-3"]
