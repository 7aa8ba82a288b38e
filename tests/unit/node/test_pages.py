"""Long listings, page by page."""

from __future__ import annotations

import pytest

from node.pages import KEPT, KEPT_SECONDS, PAGE_BYTES, PAGE_ITEMS, CursorGone, Pages


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pages(clock: Clock) -> Pages:
    return Pages(clock)


def test_a_short_listing_is_one_page(pages: Pages) -> None:
    assert pages.first([1, 2], 10) == {"items": [1, 2], "total": 2, "more": None}
    assert pages.first([], 10) == {"items": [], "total": 0, "more": None}


def test_the_rest_is_that_of_the_same_listing(pages: Pages) -> None:
    first = pages.first(list(range(5)), 2)
    pages.first(["others"] * 5, 2)
    second = pages.next(first["more"], 2)
    third = pages.next(second["more"], 2)
    assert (first["items"], second["items"], third["items"], third["more"]) == ([0, 1], [2, 3], [4], None)


def test_a_page_ends_where_a_message_would_be_full(pages: Pages) -> None:
    large = ["x" * (PAGE_BYTES // 2)] * 3
    assert len(pages.first(large)["items"]) == 1
    assert len(pages.first(["x" * (2 * PAGE_BYTES), "y"])["items"]) == 1, "one at least, so that it goes on"
    assert len(pages.first([1] * 10_000, 10_000)["items"]) == PAGE_ITEMS


def test_a_listing_nobody_reads_on_is_forgotten(pages: Pages, clock: Clock) -> None:
    more = pages.first([1, 2], 1)["more"]
    clock.now = KEPT_SECONDS + 1
    with pytest.raises(CursorGone, match="ask for it from the start"):
        pages.next(more)


def test_only_the_last_few_are_kept(pages: Pages) -> None:
    cursors = [pages.first([1, 2], 1)["more"] for _ in range(KEPT + 1)]
    with pytest.raises(CursorGone):
        pages.next(cursors[0])
    assert pages.next(cursors[1])["items"] == [2]


@pytest.mark.parametrize("cursor", ["", "x", "-", "x-y", "x--1"])
def test_a_cursor_nobody_gave_out_is_refused(pages: Pages, cursor: str) -> None:
    pages.first([1, 2], 1)
    with pytest.raises(CursorGone):
        pages.next(cursor)
