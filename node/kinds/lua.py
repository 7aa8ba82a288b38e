"""Kinds that hold Lua code: ``process.lua``, ``function.lua``, ``library.lua``."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from node.kinds.model import ImportRef, Int, Kind, KindModel, Model


class Code(KindModel):
    """What all Lua entries share."""

    raw_fields: ClassVar[frozenset[str]] = frozenset({"source"})

    source: str = Field(min_length=1)
    """The Lua text; in a file mostly ``file://name.lua``."""
    modules: list[str] = Field(default_factory=list)
    """Modules of the runtime that ``require`` may load."""
    imports: dict[str, ImportRef] = Field(default_factory=dict)
    """Names for other entries, or for modules of the runtime (``:json``), that ``require`` may load."""


class Pool(Model):
    """How calls of a function were pooled in the original; accepted, every call is a process of its own here."""

    type: Literal["static", "lazy", "inline", "adaptive"] | None = None
    size: Int | None = Field(default=None, ge=0)
    workers: Int | None = Field(default=None, ge=0)
    buffer: Int | None = Field(default=None, ge=0)
    max_size: Int | None = Field(default=None, ge=0)
    warm_start: bool | None = None


class Callable(Code):
    """Code with an entry point."""

    method: str = Field(default="main", min_length=1)
    """The function to run; of no effect when the chunk returns a function rather than a table."""
    pool: Pool | None = None
    """Accepted, without effect: every call of a function is a process of its own."""


class Process(Callable):
    """Code of long-running processes."""


class Function(Callable):
    """Code that is called and returns."""


class Library(Code):
    """Code that other entries import."""


KINDS = (
    Kind("process.lua", Process, code=True, importable=True),
    Kind("function.lua", Function, code=True, importable=True),
    Kind("library.lua", Library, code=True, importable=True),
)
