"""``wippy run -x``: one process in the terminal, whose end is the end of the run.

The exit code follows the result: an error is 1, a number is itself, true 0 and false 1, a
string is printed and 0, anything else 0.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import structlog

from cluster.envelope import to_text
from cluster.errors import CallTimeout, ClusterError
from cluster.pid import host_address
from node.ports import Exit, Ports, Refused

log = structlog.get_logger("wippy.run")

SPAWN_DEADLINE = 15.0


class CannotRun(ClusterError):
    """The entry can't be started; the message says why and what to do."""


class Execution:
    """Runs one entry on a terminal host."""

    def __init__(self, ports: Ports, node: str) -> None:
        self._ports = ports
        self._node = node
        self._ended: asyncio.Future[Exit] | None = None

    async def run(self, entry: str, host: str, args: list[str]) -> tuple[int, str]:
        """Start ``entry`` with ``args`` as strings and wait for its end: (exit code, text to print).

        Raises CannotRun.
        """
        port = self._ports.open("node:run")
        self._ended = asyncio.get_running_loop().create_future()
        port.on_exit = self._on_exit
        try:
            address = host_address(self._node, host).encode()
            arguments = [argument.encode("utf-8", "surrogateescape") for argument in args]
            options = {b"monitor": True}
            await port.spawn(address, entry, arguments, options, timeout=SPAWN_DEADLINE)
            ended = await self._ended
        except (Refused, CallTimeout) as error:
            raise CannotRun(f"{entry} can't be started on {host}: {error}") from None
        finally:
            port.close()
        return outcome(ended)

    def _on_exit(self, ended: Exit) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(ended)


def outcome(ended: Exit) -> tuple[int, str]:
    """Exit code and what to print on the way out, from the end of the process."""
    if ended.error is not None:
        log.error("process failed", pid=ended.pid.decode(), error=ended.error.get("message", ""))
        return 1, ""
    return exit_code(to_text(ended.value))


def exit_code(value: Any) -> tuple[int, str]:
    """The exit code of a returned value, and the text to print."""
    match value:
        case bool():
            return (0 if value else 1), ""
        case int():
            return value & 0xFF, ""
        case float():
            return (int(value) & 0xFF if math.isfinite(value) else 1), ""
        case str():
            return 0, value
        case _:
            return 0, ""
