"""A development cluster for tests that only use it; those that break one start their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.processes import Development


@pytest.fixture(scope="session")
def up(binaries: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Development]:
    """Three nodes running the counter example. Leave them as they were."""
    with Development(tmp_path_factory.mktemp("up")) as development:
        yield development


@pytest.fixture
def own_up(binaries: None, tmp_path: Path) -> Iterator[Development]:
    """Three nodes of one test's own, to be killed."""
    with Development(tmp_path) as development:
        yield development
