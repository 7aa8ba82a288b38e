"""The steps of a plan: what a supervisor does with several children, one step after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class StopStep:
    """Stop these at the same time and wait for all."""

    children: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StartStep:
    """Start this one and wait until that is done, or failed."""

    child: str


Step: TypeAlias = StopStep | StartStep


def one_by_one(ids: Sequence[str]) -> list[StopStep]:
    """Stop these, the latest first, each when the one before has ended."""
    return [StopStep((id,)) for id in reversed(ids)]
