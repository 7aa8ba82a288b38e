"""The kernel's ``sendorder.lua`` alone, for tests: it decides whether a returned message may be sent again."""

from __future__ import annotations

from functools import cache
from typing import Any

import lupa.lua54 as lupa

from node.host.sources import read_kernel


def source() -> bytes:
    """Its text."""
    return dict(read_kernel())[b"sendorder"]


@cache
def _runtime() -> Any:
    return lupa.LuaRuntime(encoding=None, register_eval=False)


class SendOrders:
    """The orders of the processes of one VM."""

    def __init__(self) -> None:
        kernel = _runtime().table()
        _runtime().compile(source())(kernel)
        self._core = kernel[b"sendorder"]

    def new(self) -> Any:
        return self._core[b"new"]()

    def note(self, order: Any, pid: bytes) -> int:
        return int(self._core[b"note"](order, pid))

    def note_all(self, order: Any) -> None:
        self._core[b"note_all"](order)

    def follow(self, order: Any, pid: bytes, number: int) -> bool:
        return bool(self._core[b"follow"](order, pid, number))

    def retire(self, pid: bytes, order: Any) -> None:
        self._core[b"retire"](pid, order)

    def of_ended(self, pid: bytes) -> Any:
        return self._core[b"of_ended"](pid)
