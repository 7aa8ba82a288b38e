"""What a run ends with."""

from __future__ import annotations

import math
from typing import Any

import pytest

from node.execution import exit_code, outcome
from node.ports import Exit


@pytest.mark.parametrize(
    ("value", "code", "text"),
    [
        (None, 0, ""),
        (0, 0, ""),
        (3, 3, ""),
        (3.9, 3, ""),
        (math.nan, 1, ""),
        (math.inf, 1, ""),
        (True, 0, ""),
        (False, 1, ""),
        ("done", 0, "done"),
        ({"a": 1}, 0, ""),
    ],
)
def test_the_returned_value_decides_the_exit_code(value: Any, code: int, text: str) -> None:
    assert exit_code(value) == (code, text)


def test_a_failed_process_ends_with_1() -> None:
    assert outcome(Exit(b"{n@h|1-1}", None, {"kind": "Internal", "message": "boom"})) == (1, "")
