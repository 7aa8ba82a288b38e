"""The small node as a fixture."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.embedded import EmbeddedServers
from cluster.etcd import Etcd
from tests.integration.node.small_node import Lua, small_node


@pytest.fixture
async def lua(servers: EmbeddedServers, cluster_name: str, etcd: Etcd, tmp_path: Path) -> AsyncIterator[Lua]:
    async with small_node(servers, cluster_name, etcd, tmp_path) as lua:
        yield lua
