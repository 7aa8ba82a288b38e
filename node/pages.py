"""Long answers in pages: a listing of any length gets through messages of a limited size.

The first page is cut from the whole listing, which is then kept for a while; a cursor asks for the
rest of exactly that listing, so nothing is shown twice or left out because processes came and went in between.
A page holds as many items as were asked for and as fit into half a message.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack

PAGE_BYTES = 512 * 1024
PAGE_ITEMS = 2000
KEPT, KEPT_SECONDS = 8, 30.0
"""So many listings that are not read to their end are kept, each for so long."""


class CursorGone(ValueError):
    """The listing a cursor belongs to is kept no more."""


@dataclass
class _Listing:
    items: list[Any]
    expires: float


class Pages:
    """The listings of one node that are being read."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._listings: OrderedDict[str, _Listing] = OrderedDict()

    def first(self, items: list[Any], limit: int = PAGE_ITEMS) -> dict[str, Any]:
        """``{items, total, more}``: the first page; ``more`` is the cursor of the rest, None at the end."""
        return self._page(secrets.token_hex(8), items, 0, limit)

    def next(self, cursor: str, limit: int = PAGE_ITEMS) -> dict[str, Any]:
        """The page at ``cursor``. Raises CursorGone."""
        token, _, offset = cursor.partition("-")
        self._forget()
        listing = self._listings.pop(token, None)
        if listing is None or not offset.isdecimal():
            raise CursorGone(f"the listing of cursor {cursor!r} is kept no more; ask for it from the start")
        return self._page(token, listing.items, int(offset), limit)

    def _page(self, token: str, items: list[Any], offset: int, limit: int) -> dict[str, Any]:
        end = offset + _fitting(items, offset, limit)
        more = None
        if end < len(items):
            more = f"{token}-{end}"
            self._listings[token] = _Listing(items, self._clock() + KEPT_SECONDS)
            self._forget()
        return {"items": items[offset:end], "total": len(items), "more": more}

    def _forget(self) -> None:
        now = self._clock()
        while self._listings:
            token, listing = next(iter(self._listings.items()))
            if listing.expires > now and len(self._listings) <= KEPT:
                return
            del self._listings[token]


def _fitting(items: list[Any], offset: int, limit: int) -> int:
    """How many of the items from ``offset`` on make a page; at least one, so that it goes on."""
    size = count = 0
    for item in items[offset : offset + min(limit, PAGE_ITEMS)]:
        size += len(msgpack.packb(item, use_bin_type=False, unicode_errors="surrogateescape"))
        if count and size > PAGE_BYTES:
            break
        count += 1
    return count
