"""Environment variables entry by entry: what changes together is taken together, and each answers for itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cluster.registry import Entry
from node.env import EnvError, EnvRegistry
from node.variables import Variables

FILE = Entry("app:file", "env.storage.file", {}, {"file_path": "late.env"})


def variable(storage: str, default: str) -> Entry:
    return Entry("app:level", "env.variable", {}, {"storage": storage, "variable": "LEVEL", "default": default})


@pytest.fixture
def env(tmp_path: Path) -> EnvRegistry:
    return EnvRegistry({}, tmp_path)


async def test_a_storage_that_can_not_be_had_fails_alone_and_is_there_when_it_can(
    env: EnvRegistry, tmp_path: Path
) -> None:
    variables = Variables(env)
    assert variables.handles("env.variable")
    assert not variables.handles("process.host")
    memory = Entry("app:memory", "env.storage.memory")
    entries = (memory, FILE, variable("app:memory", "info"))
    outcomes = await asyncio.gather(*(variables.put(entry) for entry in entries), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), EnvError, type(None)]
    assert "late.env" in str(outcomes[1])
    assert env.get("LEVEL") == "info"
    (tmp_path / "late.env").write_text("LEVEL=warn\n")
    await variables.put(FILE)
    await variables.put(variable("app:file", "info"))
    assert env.get("LEVEL") == "warn"


async def test_what_went_is_gone_and_what_is_put_again_keeps_its_values(env: EnvRegistry) -> None:
    variables = Variables(env)
    for entry in (Entry("app:memory", "env.storage.memory"), variable("app:memory", "info")):
        await variables.put(entry)
    env.set("LEVEL", "debug")
    await variables.put(variable("app:memory", "warn"))
    assert env.get("LEVEL") == "debug"
    await variables.remove("app:level")
    assert env.lookup("LEVEL") is None
