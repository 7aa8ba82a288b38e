"""From save to running: what editors do to files becomes one version, or an error that changes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from cluster.client import Client
from tests.cluster.lab import Lab
from tests.cluster.processes import WIPPY, Program, eventually

pytestmark = pytest.mark.servers

INDEX = """\
version: "1.0"
namespace: app
entries:
  - name: processes
    kind: process.host
    lifecycle: {auto_start: true}
  - name: low
    kind: library.lua
    source: file://low.lua
  - name: high
    kind: library.lua
    source: file://high.lua
    imports: {low: app:low}
  - name: say
    kind: function.lua
    source: file://say.lua
    imports: {high: app:high, low: app:low}
"""
FILES = {
    "_index.yaml": INDEX,
    "low.lua": 'return { word = "one" }\n',
    "high.lua": 'return { word = "one", low = require("low").word }\n',
    "say.lua": """\
return { main = function()
    local high = require("high")
    return high.word .. " " .. high.low
end }
""",
}


class Saving(Lab):
    """One node, and somebody who edits its files."""

    def __init__(self, directory: Path, command: list[str], app: Path) -> None:
        self.directory = directory
        self.app = app
        self.source = app / "src"
        self.source.mkdir(parents=True)
        for name, text in FILES.items():
            (self.source / name).write_text(text)
        Program.__init__(self, command, directory, "program")

    def __enter__(self) -> Self:
        Program.__enter__(self)
        self.until(lambda: "Ctrl-C stops everything" in self.out or "node ready" in self.err)
        return self

    def save(self, name: str, text: str) -> None:
        """As editors do it: write beside, then put in its place."""
        beside = self.source / f".{name}.swp~"
        beside.write_text(text)
        os.replace(beside, self.source / name)

    def says(self) -> Any:
        async def call(client: Client) -> Any:
            return await client.call_function("app:say")

        return self.ask(call, gateway=None)

    def version(self) -> int:
        async def ask(client: Client) -> Any:
            return (await client.ask_all("health")).by_node

        (health,) = self.ask(ask, gateway=None).values()
        return int(health["registry_version"])

    def until_it_says(self, text: str) -> None:
        eventually(lambda: self.says() == text, within=15, what=f"it says {text!r}")

    def until_told(self, told: Callable[[], bool]) -> None:
        eventually(told, within=15, what=f"it is told; so far: {self.err[-2000:]}")


@pytest.fixture(scope="module", params=["up", "run --watch"])
def saving(
    request: pytest.FixtureRequest, binaries: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Saving]:
    directory = tmp_path_factory.mktemp("saving")
    quiet = ["--set", "logger.level=warn"]
    if request.param == "up":
        saving = Saving(directory, [*WIPPY, "up", "app", "--nodes", "1", *quiet], directory / "app")
    else:
        saving = Saving(directory, [*WIPPY, "run", "--watch"], directory)
    with saving:
        saving.until_it_says("one one")
        yield saving


def test_files_as_editors_save_them(saving: Saving) -> None:
    saving.save("low.lua", 'return { word = "two" }\n')
    saving.until_it_says("one two")

    # several at once are one version
    version = saving.version()
    for name in ("low.lua", "high.lua"):
        saving.save(name, FILES[name].replace('"one"', '"three"'))
    saving.until_it_says("three three")
    assert saving.version() == version + 1

    # a file saved as it was, or touched, is no version
    saving.save("high.lua", (saving.source / "high.lua").read_text())
    (saving.source / "low.lua").touch()

    # a broken one is told with file and line, and changes nothing; then it is right again
    saving.save("high.lua", 'return {\n    word = "four"\n    low = 1,\n}\n')
    saving.until_told(lambda: "high.lua:3" in saving.err)
    assert saving.says() == "three three"
    assert saving.version() == version + 1
    saving.save("high.lua", 'return { word = "four", low = require("low").word }\n')
    saving.until_it_says("four three")

    # a file that is missing is told; an entry that goes with its file goes
    (saving.source / "low.lua").unlink()
    saving.until_told(lambda: "low.lua" in saving.err.rpartition("high.lua:3")[2])
    assert saving.says() == "four three"
    index = INDEX[: INDEX.index("  - name: low")] + INDEX[INDEX.index("  - name: high") :]
    saving.save("_index.yaml", index.replace("    imports: {low: app:low}\n", "").replace(", low: app:low", ""))
    saving.save("high.lua", 'return { word = "alone", low = "gone" }\n')
    saving.until_it_says("alone gone")

    async def there(client: Client) -> list[str]:
        async with client.registry("test", None) as registry:
            return [entry.id for entry in registry.state.entries()]

    assert "app:low" not in saving.ask(there, gateway=None)
