"""A cluster to break: no nodes yet, on servers of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from cluster.embedded import EmbeddedServers
from tests.chaos.nodes import Cluster, chaos_cluster


@pytest_asyncio.fixture
async def cluster(own_servers: EmbeddedServers, cluster_name: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with chaos_cluster(own_servers, cluster_name, tmp_path) as cluster:
        yield cluster
