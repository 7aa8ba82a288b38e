"""What `wippy dead-letters` says when there is nothing to list."""

from __future__ import annotations

from typing import Any, cast

import pytest

from cluster.client import Answers, Client
from node.cli.letters import dead_letters


class _Keeps:
    """Stands for a client of a cluster whose nodes keep letters of these reasons."""

    def __init__(self, **reasons: list[str]) -> None:
        self._reasons = reasons

    async def member(self, node: str) -> None:
        assert node in self._reasons

    async def dead_letters(self, *, limit: int | None = None, reason: str | None = None) -> Answers:
        letter = {"at": 1.0, "to": "{n1@h|1}", "sender": "", "topic": "t", "name": ""}
        kept: dict[str, list[dict[str, Any]]] = {
            node: [{**letter, "reason": one} for one in reasons if reason in (None, one)]
            for node, reasons in self._reasons.items()
        }
        return Answers(kept, {})


CLIENT = cast(Client, _Keeps(n1=["noproc", "full"], n2=["noproc", "stale_name"]))


@pytest.mark.parametrize(
    ("on", "told"), [(None, "there are some for full, noproc, stale_name"), ("n1", "there are some for full, noproc")]
)
async def test_a_reason_that_no_letter_has_is_answered_with_those_there_are(
    on: str | None, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await dead_letters(CLIENT, reason="nope", on=on, limit=50)
    out, err = capsys.readouterr()
    assert (out, err.strip()) == ("", f"no dead letters for the reason 'nope'; {told}")


async def test_without_any_letter_it_names_no_reason(capsys: pytest.CaptureFixture[str]) -> None:
    await dead_letters(cast(Client, _Keeps(n1=[])), reason="nope", on=None, limit=50)
    assert "there are none for another one either" in capsys.readouterr().err
