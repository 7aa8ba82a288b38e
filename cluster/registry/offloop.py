"""Heavy work beside the event loop: in a thread, while the loop goes on.

What takes a millisecond is done at once, because a thread costs more than that. Work given here
must only compute, on values nobody changes; one that was cancelled runs to its end unseen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def computed(is_heavy: bool, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``work`` returns or raises."""
    return await asyncio.to_thread(work, *args, **kwargs) if is_heavy else work(*args, **kwargs)
