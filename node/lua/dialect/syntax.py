"""The error of the dialect: a chunk's text that is not typed Lua, with its line."""

from __future__ import annotations

from cluster.errors import ClusterError


class LuaSyntaxError(ClusterError, ValueError):
    """Source text refused at ``line`` (from 1) of ``chunk``; the message says what was expected and near what."""

    def __init__(self, chunk: str, line: int, message: str) -> None:
        super().__init__(chunk, line, message)
        self.chunk = chunk
        self.line = line
        self.message = message

    def __str__(self) -> str:
        return f"{self.chunk}:{self.line}: {self.message}"
