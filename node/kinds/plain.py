"""Kinds without a resource behind them: ``registry.entry`` and the wiring of modules (``ns.*``)."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from pydantic import Field, field_validator

from node.kinds.model import Kind, KindModel, Model

_COMPONENT = re.compile(r"[a-z0-9][a-z0-9_-]*/[a-z0-9][a-z0-9_-]*")


def check_component(text: str) -> str:
    """What is wrong with the name of a module; empty when nothing is."""
    return "" if _COMPONENT.fullmatch(text) else f"expected organization/module, got {text!r}"


class RegistryEntry(KindModel):
    """The application's own data, of any shape."""

    free_form: ClassVar[bool] = True

    data: Any
    """Whatever stands beside ``name``, ``kind`` and ``meta``."""


class Definition(KindModel):
    """What a module is: its name and documents."""

    raw_fields: ClassVar[frozenset[str]] = frozenset({"readme", "wiki"})

    module: str | None = None
    """Its name."""
    readme: str = ""
    """A text about it; mostly ``file://README.md``."""
    wiki: dict[str, str] = Field(default_factory=dict)
    """Further texts by name."""


class Target(Model):
    """Where the value of a requirement is written."""

    entry: str
    """The entry to write into."""
    path: str
    """Where in it, e.g. ``.url`` or ``.meta.db``; ``.list+=`` appends."""


class Requirement(KindModel):
    """A value a module needs from whoever uses it."""

    targets: list[Target] = Field(min_length=1)
    default: Any = None
    """The value when nobody gives one."""


class Parameter(Model):
    """A value for one requirement of a module."""

    name: str
    """The requirement: its name, or its full id."""
    value: Any = None
    """The value."""


class Dependency(KindModel):
    """A module this one uses, and the values for its requirements."""

    component: str
    """The module as ``organization/name``; where it is taken from is told in projects.md."""
    version: str = "*"
    """Versions that will do, e.g. ``^1.2``."""
    parameters: list[Parameter] = Field(default_factory=list)

    @field_validator("component")
    @classmethod
    def _organization_and_module(cls, component: str) -> str:
        if wrong := check_component(component):
            raise ValueError(wrong)
        return component


KINDS = (
    Kind("registry.entry", RegistryEntry, applied=False),
    Kind("ns.definition", Definition, applied=False),
    Kind("ns.requirement", Requirement, applied=False),
    Kind("ns.dependency", Dependency, applied=False),
)
