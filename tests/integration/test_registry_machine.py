"""The state machine of the registry on a real etcd: fewer steps, and nothing of it is made up."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from cluster.embedded import EmbeddedServers
from cluster.etcd import Etcd, PrefixWatch
from cluster.keys import Keys
from tests.sim.registry_machine import RegistryMachine
from tests.sim.registry_scene import Scene

pytestmark = pytest.mark.servers


@pytest.fixture
def url(servers: EmbeddedServers) -> str:
    return servers.etcd_url


def machine_on(url: str) -> type[RegistryMachine]:
    class OnEtcd(RegistryMachine):
        def make(self, seed: int) -> Scene:
            keys = Keys(f"machine-{secrets.token_hex(5)}")

            async def connect(stack: AsyncExitStack) -> Etcd:
                return await stack.enter_async_context(Etcd([url]))

            def make_watch(client: Any) -> PrefixWatch:
                return PrefixWatch(client, keys.prefix, unloaded=[keys.blobs])

            async def start(stack: AsyncExitStack, watch: PrefixWatch) -> None:
                await stack.enter_async_context(watch)

            return Scene(keys, connect, make_watch, start)

        def run(self, work: Coroutine[Any, Any, Any]) -> Any:
            if not hasattr(self, "runner"):
                self.runner = asyncio.Runner()
            return self.runner.run(work)

        def teardown(self) -> None:
            try:
                super().teardown()
            finally:
                if hasattr(self, "runner"):
                    self.runner.close()

    return OnEtcd


@pytest.mark.parametrize("number", range(15))
def test_every_replica_is_where_the_model_is_whatever_happens(url: str, number: int) -> None:
    # Generated only, and few at a time: on a real etcd the same steps are not the same twice, so there is
    # nothing to shrink, and what an earlier example drew must not be held against a later one.
    searching = settings(
        max_examples=2,
        stateful_step_count=25,
        deadline=None,
        phases=[Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    # the machine runs an event loop of its own, and this thread has one already
    with ThreadPoolExecutor(1) as thread:
        thread.submit(run_state_machine_as_test, machine_on(url), settings=searching).result()
