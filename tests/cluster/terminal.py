"""A program on a terminal of its own, as a person would use it: keys go in, and what it paints can be read."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster.processes import environment

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\r")
_ASKS_WHERE = b"\x1b[6n"
ROWS, COLUMNS = 50, 160


class OnTerminal:
    """``with`` runs the command. ``text`` is all it has painted, without what only moves the cursor."""

    def __init__(self, command: list[str], cwd: Path, env: Mapping[str, str] | None = None) -> None:
        self._command = command
        self._cwd = cwd
        self._env = environment({"TERM": "xterm", **(env or {})})
        self._raw = b""

    def __enter__(self) -> Self:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            self._command, cwd=self._cwd, env=self._env, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=_lead
        )
        os.close(theirs)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        os.close(self._ours)

    @property
    def text(self) -> str:
        return _CONTROL.sub("", self._raw.decode(errors="replace"))

    def type(self, keys: str) -> None:
        """Forget what was painted, and press keys."""
        self._raw = b""
        os.write(self._ours, keys.encode())

    def until(self, *texts: str, within: float = 20.0) -> str:
        """Read until all ``texts`` are painted, in this order."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if re.search(".*".join(map(re.escape, texts)), self.text, re.DOTALL):
                return self.text
            self._read()
        raise AssertionError(f"not within {within:g} s: {texts}; painted:\n{self.text}")

    def end(self, within: float = 20.0) -> int:
        """Wait for its end; its exit code."""
        deadline = time.monotonic() + within
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read()
        self._read()
        assert self.process.returncode is not None, f"did not end within {within:g} s; painted:\n{self.text}"
        return self.process.returncode

    def _read(self) -> None:
        if not select.select([self._ours], [], [], 0.05)[0]:
            return
        try:
            read = os.read(self._ours, 65536)
        except OSError:  # it has ended
            time.sleep(0.01)
            return
        if _ASKS_WHERE in read:  # a terminal says where its cursor is
            os.write(self._ours, b"\x1b[1;1R")
        self._raw += read


def _lead() -> None:
    """The child has the terminal: Ctrl-C reaches it."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
