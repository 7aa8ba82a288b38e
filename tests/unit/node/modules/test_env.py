"""The env module over the node's env registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.registry import Entry
from node.env import EnvRegistry
from node.modules.env import EnvModule


@pytest.fixture
async def asker(asking: Any, tmp_path: Path) -> Any:
    registry = EnvRegistry({"FROM_OS": "os value"}, tmp_path)
    failed = registry.converge(
        [
            Entry("app:memory", "env.storage.memory"),
            Entry("app:os", "env.storage.os"),
            Entry(
                "app:level", "env.variable", {}, {"variable": "LOG_LEVEL", "storage": "app:memory", "default": "info"}
            ),
            Entry("app:os_var", "env.variable", {}, {"variable": "FROM_OS", "storage": "app:os"}),
            Entry("app:fixed", "env.variable", {}, {"variable": "FIXED", "storage": "app:memory", "readonly": True}),
            Entry("app:private", "env.variable", {}, {"storage": "app:memory", "default": "p"}),
        ]
    )
    assert failed == {}
    return await asking(EnvModule(registry))


async def test_get_reads_by_name_and_by_entry_id(asker: Any) -> None:
    assert await asker.value("env", "get", b"LOG_LEVEL") == b"info"
    assert await asker.value("env", "get", b"FROM_OS") == b"os value"
    assert await asker.value("env", "get", b"app:private") == b"p"


async def test_set_is_seen_by_the_next_get(asker: Any) -> None:
    assert await asker.value("env", "set", b"LOG_LEVEL", b"debug") is True
    assert await asker.value("env", "get", b"LOG_LEVEL") == b"debug"


async def test_get_all_lists_public_variables_with_a_value(asker: Any) -> None:
    assert await asker.value("env", "get_all") == {b"FROM_OS": b"os value", b"LOG_LEVEL": b"info"}


@pytest.mark.parametrize(
    ("fn", "args", "kind"),
    [
        ("get", [b"NOTHING"], b"NotFound"),
        ("get", [b"FIXED"], b"NotFound"),
        ("get", [b""], b"Invalid"),
        ("get", [7], b"Invalid"),
        ("set", [b"FIXED", b"x"], b"PermissionDenied"),
        ("set", [b"FROM_OS", b"x"], b"PermissionDenied"),
        ("set", [b"LOG_LEVEL", 7], b"Invalid"),
        ("set", [b"LOG_LEVEL"], b"Invalid"),
        ("burn", [], b"Invalid"),
    ],
)
async def test_what_can_not_be_had_is_refused_with_its_kind(asker: Any, fn: str, args: list[Any], kind: bytes) -> None:
    assert (await asker.error("env", fn, *args))[b"kind"] == kind
