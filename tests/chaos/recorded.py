"""A node whose Lua processes write a history: ``python -m tests.chaos.recorded FILE run ...`` is ``wippy run ...``.

A ``print`` whose text begins with "@" is one record: the rest, JSON, goes to FILE with the time and the PID. It is
written before the node does anything the process asked for later, by one write to a file opened for appending: what
took effect has been recorded, also when the node is killed with -9 the moment after. Records of a process that may
not act (it owned something, its lease is in doubt) leave the VM as little as its other deeds.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from node.cli.app import main
from node.modules.contract import Caller, Values
from node.modules.logger import LoggerModule

MARK = b"@"


def record_to(path: str) -> None:
    """Have every node of this program write its history to ``path``."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    log = LoggerModule.cast

    def cast(self: LoggerModule, caller: Caller, fn: str, args: Values) -> None:
        text: Any = args[0] if args else None
        if fn == "print" and isinstance(text, bytes) and text.startswith(MARK):
            os.write(descriptor, b"%d %s %s\n" % (time.monotonic_ns(), caller.pid, text[1:]))
        else:
            log(self, caller, fn, args)

    LoggerModule.cast = cast  # type: ignore[method-assign]


if __name__ == "__main__":
    record_to(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
