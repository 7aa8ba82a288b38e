"""A placeholder in an entry in use: resolved by the handler, kept in the registry, missed with entry and field."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from cluster.keys import Keys
from cluster.registry import Entry, RegistryState
from cluster.tasks import Tasks
from node.convergence import Convergence
from node.stores import Stores
from node.stores.memory import MemoryStore


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_missing_variable_degrades_the_node_until_it_has_a_value_and_the_former_resource_serves_on() -> None:
    values = {"SIZE": "2"}
    stores = Stores(cast(Any, None), Keys("test"), values.get, cast(Any, None))
    converging = Convergence([stores])
    before = Entry("app:cache", "store.memory", {}, {"max_size": "${env:SIZE}"})
    after = Entry("app:cache", "store.memory", {}, {"max_size": "${env:OTHER}"})
    async with Tasks("test") as tasks:
        tasks.start(converging.run(), "run")
        converging.aim(RegistryState.of([before], 1))
        await until(stores.ids)
        made = stores.find("app:cache")
        assert isinstance(made, MemoryStore)
        assert before.data == {"max_size": "${env:SIZE}"}, "the entry keeps its text"

        converging.aim(RegistryState.of([after], 2))
        await until(converging.degraded)
        (degraded,) = converging.degraded()
        assert (degraded.entry, degraded.version) == ("app:cache", 2)
        assert "max_size: variable OTHER has no value" in degraded.reason
        assert stores.find("app:cache") is made

        values["OTHER"] = "3"
        await until(lambda: not converging.degraded())
        assert stores.find("app:cache") is made
