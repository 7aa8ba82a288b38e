"""Ends the embedded servers when the program that wanted them ends, whichever way it ends.

A process of its own (``python -I -S guardian.py``), started by ``cluster.embedded``, that
is the parent of the servers and reads commands from a pipe. Only the program holds the
other end, so the pipe closes with the program, kill -9 included; the guardian then ends
the servers, removes the throw-away directory and goes. The parent-death signal of Linux
would not do: it follows the starting *thread*, not the process.

Imports only what starts in milliseconds, and nothing of this package.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from typing import Any

GRACE_SECONDS = 3.0


class Guardian:
    """The servers by name, and what to do with them."""

    def __init__(self, scratch: str) -> None:
        self._scratch = scratch
        self._names: dict[int, str] = {}
        self._wanted = True

    def run(self) -> None:
        """Serve commands until the program's end of the pipe closes, then clean up."""
        wake, wake_write = os.pipe()
        for end in (wake, wake_write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._leave)
        try:
            self._serve(wake)
        finally:
            self._end_servers()
            self._remove_scratch()

    def _leave(self, *_: object) -> None:
        self._wanted = False

    def _serve(self, wake: int) -> None:
        pending = b""
        while self._wanted:
            ready, _, _ = select.select([0, wake], [], [])
            if wake in ready:
                os.read(wake, 4096)
                self._report_ended()
            if 0 in ready:
                chunk = os.read(0, 65536)
                if not chunk:
                    return
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))

    def _obey(self, command: dict[str, Any]) -> None:
        match command:
            case {"start": name, "argv": argv, "log": log}:
                self._start(name, argv, log)
            case {"signal": number, "pid": pid}:
                # a pid is signalled only while it is our unreaped child, so never a stranger's
                if pid in self._names:
                    os.kill(pid, number)

    def _start(self, name: str, argv: list[str], log: str) -> None:
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, append, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        try:
            pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsigdef=[signal.SIGPIPE])
        except OSError as error:
            self._say(event="refused", name=name, error=str(error))
            return
        self._names[pid] = name
        self._say(event="started", name=name, pid=pid)

    def _report_ended(self) -> None:
        while self._names:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            name = self._names.pop(pid)
            self._say(event="ended", name=name, pid=pid, code=os.waitstatus_to_exitcode(status))

    def _say(self, **event: Any) -> None:
        try:
            os.write(1, json.dumps(event).encode() + b"\n")
        except BrokenPipeError:
            self._wanted = False

    def _end_servers(self) -> None:
        """Gently where the data is kept, at once where it is thrown away."""
        if not self._scratch:
            self._signal_all(signal.SIGTERM)
            deadline = time.monotonic() + GRACE_SECONDS
            while self._names and time.monotonic() < deadline:
                self._reap(os.WNOHANG)
                time.sleep(0.01)
        self._signal_all(signal.SIGKILL)
        while self._names:
            self._reap(0)

    def _signal_all(self, number: int) -> None:
        for pid in self._names:
            os.kill(pid, number)

    def _reap(self, options: int) -> None:
        pid, _ = os.waitpid(-1, options)
        self._names.pop(pid, None)

    def _remove_scratch(self) -> None:
        if self._scratch:
            import shutil

            shutil.rmtree(self._scratch, ignore_errors=True)


if __name__ == "__main__":
    Guardian(sys.argv[1]).run()
