"""The second peer of the local figures: the same work in Erlang/OTP, where ``erl`` is on the PATH.

Each run is a fresh Erlang VM with its default settings, so it uses as many schedulers as there are
cores. Without ``erl`` there is no number, and the line of the figure says so.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAM = Path(__file__).parent / "local_peer.erl"
DEADLINE_SECONDS = 60


class Erlang:
    """Compiles the peer's program once; ``measure`` runs it. Use it with ``async with``."""

    def __init__(self) -> None:
        self.is_there = shutil.which("erl") is not None and shutil.which("erlc") is not None

    async def __aenter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        if self.is_there:
            await _output("erlc", "-o", self._folder.name, str(PROGRAM))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    async def measure(self, figure: str, count: int) -> list[float]:
        """The number of one figure, or none where there is no Erlang."""
        if not self.is_there:
            return []
        command = ("erl", "-noshell", "-pa", self._folder.name, "-run", "local_peer", "main", figure, str(count))
        return [float(await _output(*command))]


async def _output(*command: str) -> bytes:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}: {output.decode(errors='replace')[-500:]}")
    return output
