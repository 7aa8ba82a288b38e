"""A kernel with entries of its own, for tests: no thread, no node, one call per story.

Time is virtual: where all processes wait for a timer it jumps there.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cluster.envelope import Kind, unfold
from node.host.boundary import In, Item, Out
from node.host.kernel import Kernel, VmConfig
from node.lua.dialect import transform

HOST = b"{n1@app:processes|}"
OUTSIDE = b"{n1@node:test|1-0}"
"""A PID of the node itself: where a test stands."""
REMOTE = b"{n2@app:processes|5-2a}"

PATIENCE = 0.5
"""Seconds until a timer that a test waits for; deadlines of requests are further off."""
NOON = 1_735_473_600
"""When a world begins, in seconds of the Unix epoch: 2024-12-29 at 12:00 UTC."""


class VirtualClock:
    """Time that goes on as long as something is done, and jumps over what would be waiting."""

    def __init__(self) -> None:
        self.passed = 0.0
        """Seconds since the world began."""

    def monotonic_ns(self) -> int:
        return 10**12 + round(self.passed * 1e9)

    def time_ns(self) -> int:
        return NOON * 10**9 + round(self.passed * 1e9)


def one_by_one(items: list[Item]) -> list[Item]:
    """Items of a VM with the messages that left it together apart."""
    return [one for item in items for one in (unfold(item) if item[0] == Kind.MESSAGES else [item])]


class World:
    """Answers code requests from its entries and module calls from ``modules``; collects everything else."""

    def __init__(
        self,
        config: VmConfig | None = None,
        modules: Mapping[str, str] | None = None,
        *,
        node: str = "n1",
        incarnation: int = 1,
    ) -> None:
        self.clock = VirtualClock()
        self.patience = PATIENCE
        self.kernel = Kernel(1, node, incarnation, "app:processes", config or VmConfig(), modules or {}, self.clock)
        self.host = f"{{{node}@app:processes|}}".encode()
        self.entries: dict[bytes, dict[bytes, Any]] = {}
        self.out: list[Item] = []
        self.handlers: dict[tuple[bytes, bytes], Callable[..., Any]] = {}
        self.logs: list[str] = []
        self.asked: Counter[bytes] = Counter()
        """How often the code of an entry was asked for."""
        self._pending: list[Item] = []
        self._reference = 0
        self._mains = 0

    def entry(
        self,
        id: str,
        source: str,
        *,
        kind: str = "process.lua",
        modules: Sequence[str] = (),
        imports: Mapping[str, str] | None = None,
        method: str = "main",
        raw: bool = False,
    ) -> None:
        """Define an entry; ``raw`` keeps the dialect away from the source."""
        text = source if raw else transform(source, id)
        self.entries[id.encode()] = {
            b"id": id.encode(),
            b"kind": kind.encode(),
            b"source": text.encode(),
            b"method": method.encode(),
            b"modules": [name.encode() for name in modules],
            b"imports": {alias.encode(): target.encode() for alias, target in (imports or {}).items()},
            b"version": 1,
        }

    def function(self, id: str, source: str, **more: Any) -> None:
        self.entry(id, source, kind="function.lua", **more)

    def post(self, *items: Item) -> None:
        self._pending.extend(items)

    def run(self, *items: Item, seconds: float = 10.0, until: Callable[[], bool] | None = None) -> list[Item]:
        """Step until nothing is left to do or ``until`` holds. Returns what came out.

        Time jumps to timers that are due within ``patience``; ``seconds`` are those the test may take.
        """
        self._pending.extend(items)
        deadline = time.monotonic() + seconds
        mark = len(self.out)
        while True:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the kernel is still busy after {seconds} s; out: {self.out[mark:][-5:]}")
            pending, self._pending = self._pending, []
            began = time.monotonic()
            stepped = self.kernel.step(pending)
            self.clock.passed += time.monotonic() - began
            for item in one_by_one(stepped.out):
                self._take(item)
            if until is not None and until():
                return self.out[mark:]
            if self._pending or stepped.wait == 0:
                continue
            if stepped.wait is None or stepped.wait > self.patience:
                return self.out[mark:]
            self.clock.passed += max(stepped.wait, 1e-6)

    def _take(self, item: Item) -> None:
        match item[0]:
            case Out.CODE:
                self.asked[item[2]] += 1
                package = self.entries.get(item[2])
                missing = {b"kind": b"NotFound", b"message": b"no entry " + item[2]}
                answer = [None, [package]] if package else [missing, []]
                self._pending.append([In.ANSWER, item[1], *answer])
            case Out.CALL:
                handler = self.handlers.get((item[4], item[5]))
                if handler is None:
                    self.out.append(item)
                    return
                try:
                    self._pending.append([In.ANSWER, item[1], None, handler(*item[6])])
                except LookupError as error:
                    failure = {b"kind": b"NotFound", b"message": str(error).encode()}
                    self._pending.append([In.ANSWER, item[1], failure, []])
            case Out.CAST if item[3] == b"logger":
                self.logs.append(item[5][0].decode("utf-8", "replace"))
                self.out.append(item)
            case _:
                self.out.append(item)

    def spawn(self, id: str, *args: Any, options: dict[bytes, Any] | None = None) -> bytes:
        """Start a process, monitored by the test, and run until idle; returns its PID."""
        reference = self.post_spawn(id, *args, options=options)
        self.run()
        reply = self.reply(reference)
        assert reply[4] == 0, f"spawn refused: {reply[5]}"
        pid: bytes = reply[5]
        return pid

    def post_spawn(self, id: str, *args: Any, options: dict[bytes, Any] | None = None) -> int:
        self._reference += 64
        wanted = {b"monitor": True} if options is None else options
        self.post([int(Kind.SPAWN), self.host, OUTSIDE, self._reference, id.encode(), list(args), wanted])
        return self._reference

    def call(self, id: str, *args: Any, **options: Any) -> tuple[Any, Any]:
        """Call a function; returns its value and its error map."""
        self._reference += 64
        given = {name.encode(): value for name, value in options.items()}
        self.run([int(Kind.CALL), self.host, OUTSIDE, self._reference, id.encode(), list(args), given])
        reply = self.reply(self._reference)
        return (reply[5], None) if reply[4] == 0 else (None, reply[5])

    def main(self, source: str, *args: Any, **more: Any) -> Any:
        """Run the body of a function ``main(...)`` as a process to its end; returns its value.

        Raises AssertionError with the process's error when it fails.
        """
        exit = self.outcome(source, *args, **more)
        if exit[6] is not None:
            raise AssertionError(exit[6][b"message"].decode("utf-8", "replace"))
        return exit[5]

    def outcome(self, source: str, *args: Any, **more: Any) -> Item:
        """Like ``main``; returns the EXIT envelope."""
        return self.exit_of(self.spawn_body(source, *args, **more))

    def spawn_body(self, source: str, *args: Any, **more: Any) -> bytes:
        """Start a process whose main function has this body; returns its PID."""
        self._mains += 1
        id = f"app:main{self._mains}"
        self.entry(id, f"local function main(...) {source}\nend return {{ main = main }}", **more)
        return self.spawn(id, *args)

    def send(self, pid: bytes, topic: str, *payloads: Any, sender: bytes = OUTSIDE) -> None:
        self.run([int(Kind.MESSAGE), pid, sender, 0, topic.encode(), list(payloads), b"", 0])

    def reply(self, reference: int) -> Item:
        return next(item for item in self.out if item[0] == Kind.REPLY and item[3] == reference)

    def exit_of(self, pid: bytes) -> Item:
        """The EXIT envelope of a process the test monitors."""
        exits = [item for item in self.out if item[0] == Kind.EXIT and item[2] == pid]
        assert exits, f"{pid!r} has not ended; it shows {self.query(b'inspect', pid)}"
        return exits[-1]

    def has_ended(self, pid: bytes) -> bool:
        return any(item[0] == Kind.EXIT and item[2] == pid for item in self.out)

    def messages(self, to: bytes = OUTSIDE) -> list[tuple[str, list[Any]]]:
        """(topic, payloads) of what was sent to ``to``."""
        return [(item[4].decode(), item[5]) for item in self.out if item[0] == Kind.MESSAGE and item[1] == to]

    def query(self, what: bytes, argument: Any = None) -> Any:
        self._reference += 64
        self.run([In.QUERY, self._reference, what, argument])
        return next(item[2] for item in self.out if item[0] == Out.QUERY_ANSWER and item[1] == self._reference)

    def complaints(self) -> list[str]:
        return [item[1].decode() for item in self.out if item[0] == Out.COMPLAINT]
