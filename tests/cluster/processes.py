"""Real processes for end-to-end tests: ``wippy`` verbs, a development cluster, waiting with a deadline.

Everything started here is ended by its process id, whatever the test did.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from cluster.client import Client
from cluster.errors import ClusterError

ROOT = Path(__file__).parents[2]
WIPPY = (sys.executable, "-m", "node.cli")
READY_SECONDS = 60.0
T = TypeVar("T")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """That of the tests, without anything that names a cluster."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WIPPY_", "PROTOCOL_BUFFERS"))}
    return {**kept, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **(extra or {})}


def eventually(probe: Callable[[], T], *, within: float, what: str) -> T:
    """The first truthy result of ``probe``. Fails with the last thing seen when none comes ``within`` seconds."""
    deadline = time.monotonic() + within
    seen: Any = None
    while time.monotonic() < deadline:
        try:
            result = probe()
        except (AssertionError, ClusterError, OSError, ValueError, KeyError) as error:
            seen = error
        else:
            if result:
                return result
            seen = result
        time.sleep(0.05)
    raise AssertionError(f"not within {within:g} s: {what}; last seen: {seen!r}")


def is_running(pid: int) -> bool:
    """Whether the process lives; one that has ended and waits for its parent does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        try:
            os.kill(pid, 0)
        except OSError:
            return False
        return not Path("/proc/self").exists()
    return stat.rpartition(")")[2].split()[0] != "Z"


class Program:
    """A process with its output in files. Ended when the ``with`` block is left."""

    def __init__(self, command: list[str], cwd: Path, name: str, env: Mapping[str, str] | None = None) -> None:
        self._command = command
        self._cwd = cwd
        self._env = environment(env)
        self._out = cwd / f"{name}.out"
        self._err = cwd / f"{name}.err"
        self.inherited: tuple[int, ...] = ()
        """Descriptors of ours that it has too."""

    def __enter__(self) -> Self:
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                self._command,
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                pass_fds=self.inherited,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def out(self) -> str:
        return self._out.read_text(errors="replace")

    @property
    def err(self) -> str:
        return self._err.read_text(errors="replace")

    def until(self, said: Callable[[], bool], within: float = READY_SECONDS) -> None:
        """Wait for output; a process that ends first has failed."""

        def probe() -> bool:
            found = said()
            assert found or self.process.poll() is None, f"ended with {self.process.returncode}"
            return found

        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if probe():
                return
            time.sleep(0.05)
        raise AssertionError(f"nothing of the kind within {within:g} s; stdout:\n{self.out}\nstderr:\n{self.err}")

    def stop(self, within: float = 40.0) -> int:
        """End it in good order; killed, and said, when it does not."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(within)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
                raise AssertionError(f"did not end within {within:g} s; stderr:\n{self.err[-4000:]}") from None
        return int(self.process.returncode)


class Development(Program):
    """``wippy up`` of the counter example, in a directory that looks like a clone of the repository."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.app = directory / "examples" / "counter"
        shutil.copytree(ROOT / "examples" / "counter", self.app, ignore=shutil.ignore_patterns(".wippy"))
        super().__init__([*WIPPY, "up", "examples/counter", *options], directory, "up")

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self.until(lambda: "Ctrl-C stops everything" in self.out)
        except BaseException:
            print(self.out, self.err)
            self.stop()
            raise
        return self

    @property
    def place(self) -> dict[str, Any]:
        return dict(json.loads((self.directory / ".wippy" / "cluster.json").read_text()))

    @property
    def pids(self) -> dict[str, int]:
        """The node processes by name."""
        return {node["name"]: node["pid"] for node in self.place["nodes"]}

    @property
    def suggestions(self) -> dict[str, str]:
        """The commands it printed, by what they do."""
        return dict(re.findall(r"^  # (.+)\n  (.+)$", self.out, re.MULTILINE))

    def wippy(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a verb in its directory; ``code`` is the exit code it must have."""
        return wippy(self.directory, *arguments, code=code)

    def call(self, target: str, topic: str, *payload: Any, gateway: str | None = None, timeout: float = 5.0) -> Any:
        """What the CLI's ``call`` prints, without the second it takes to start a Python."""

        async def call() -> Any:
            place = self.place
            async with Client(place["nats"], place["etcd"], place["cluster"], gateway=gateway) as client:
                return (await client.call(target, topic, *payload, timeout=timeout)).value

        return asyncio.run(call())

    def json(self, *arguments: str) -> Any:
        """What a verb prints, as a value."""
        return json.loads(self.wippy(*arguments).stdout)


def wippy(
    directory: Path, *arguments: str, code: int | None = 0, env: Mapping[str, str] | None = None, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a verb to its end, with ``text`` as its input."""
    ended = subprocess.run(
        [*WIPPY, *arguments],
        cwd=directory,
        env=environment(env),
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = f"wippy {' '.join(arguments)} ended with {ended.returncode}:\n{ended.stdout}\n{ended.stderr}"
    assert code is None or ended.returncode == code, said
    assert "Traceback" not in ended.stderr, said
    return ended
