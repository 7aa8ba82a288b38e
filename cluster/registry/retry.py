"""Repeating what may be repeated: requests to etcd that mean the same however often they land."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cluster.errors import CallTimeout, OutcomeUnknown, Unavailable
from cluster.etcd import NoSpace

T = TypeVar("T")

UNANSWERED = (Unavailable, CallTimeout, OutcomeUnknown)


def pause(attempt: int, *, longest: float = 1.0) -> float:
    """Seconds to wait after failed attempt 0, 1, ...: doubling from 10 ms, with full jitter."""
    return random.uniform(0.3, 1.0) * min(longest, 0.01 * 2.0 ** min(attempt, 10))


async def until_answered(request: Callable[[], Awaitable[T]]) -> T:
    """The answer to ``request``, which is repeated until there is one. The caller sets the deadline.

    Raises NoSpace at once.
    """
    attempt = 0
    while True:
        try:
            return await request()
        except NoSpace:
            raise  # stays so until somebody makes room
        except UNANSWERED:
            await asyncio.sleep(pause(attempt))
            attempt += 1
