"""A fresh kernel for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.luaworld import World


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    assert world.complaints() == []
