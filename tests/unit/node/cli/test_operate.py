"""What the verbs that operate say of what they did."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster.client import Client
from node.cli.operate import label


class _Node:
    """Stands for a client of a cluster whose node has these labels."""

    def __init__(self, **labels: str) -> None:
        self._labels = labels

    async def member(self, node: str) -> Any:
        return SimpleNamespace(labels=dict(self._labels))

    async def ask(self, node: str, op: str, *, labels: dict[str, str | None], timeout: float) -> Any:
        left = {**self._labels, **labels}
        return {"labels": {name: value for name, value in left.items() if value is not None}}


@pytest.mark.parametrize(("change", "said"), [("nope-", "n1 had no label nope: nothing to take away\n"), ("disk-", "")])
async def test_taking_away_a_label_that_is_not_there_is_told(
    change: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    client = cast(Client, _Node(zone="a", disk="ssd"))
    await label(client, "n1", [change])
    out, err = capsys.readouterr()
    assert "zone=a" in out
    assert err == said
