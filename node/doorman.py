"""Brings what comes through the side door to its process, and back what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from cluster.envelope import Kind, Status
from cluster.pid import VM_SLOTS, base36
from node.router import Router

DOOR_DEADLINE = 5.0


class Doorman:
    """``accept`` is what the door asks for each message."""

    def __init__(self, router: Router, node: str, incarnation: int) -> None:
        self._router = router
        self._node = node
        self._incarnation = base36(incarnation)
        self._waiting: dict[int, tuple[asyncio.TimerHandle, Callable[[Status], None]]] = {}
        router.on_client_reply = self._replied

    def accept(
        self, counter: int, sender: bytes, topic: bytes, payloads: list[Any], answer: Callable[[Status], None]
    ) -> None:
        host = self._router.host_in(counter % VM_SLOTS)
        to = f"{{{self._node}@{host}|{self._incarnation}-{base36(counter)}}}".encode()
        ref = self._router.ports.next_ref()
        timer = asyncio.get_running_loop().call_later(DOOR_DEADLINE, self._settle, ref, Status.NOCONNECTION)
        self._waiting[ref] = (timer, answer)
        self._router.deliver([int(Kind.MESSAGE), to, sender, ref, topic, payloads, b"", 0])

    def _replied(self, envelope: list[Any]) -> None:
        self._settle(envelope[3], Status(envelope[4]))

    def _settle(self, ref: int, status: Status) -> None:
        waiting = self._waiting.pop(ref, None)
        if waiting is not None:
            waiting[0].cancel()
            waiting[1](status)
