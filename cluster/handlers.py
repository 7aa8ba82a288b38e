"""Handlers that are told of something: each is called, whatever the others do.

A handler that raises is logged and counted and does not keep the rest from being told, nor the teller from
going on: an observer's failure must not stop the watch or the connection it observes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec

import structlog

log = structlog.get_logger("wippy.handlers")

P = ParamSpec("P")


class Handlers(Generic[P]):
    """The handlers of one thing that happens. ``what`` names it in the log."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._handlers: list[Callable[P, None]] = []
        self.failures = 0

    def add(self, handler: Callable[P, None]) -> None:
        self._handlers.append(handler)

    def tell(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call every handler, in the order they were added."""
        for handler in self._handlers:
            try:
                handler(*args, **kwargs)
            except Exception as error:
                self.failures += 1
                log.error("a handler failed", what=self._what, exc_info=error)
