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


class Definition(KindModel):
    """What a module is: its name and documents."""

    raw_fields: ClassVar[frozenset[str]] = frozenset({"readme", "wiki"})

    module: str | None = None
    readme: str = ""
    wiki: dict[str, str] = Field(default_factory=dict)


class Target(Model):
    """Where the value of a requirement is written."""

    entry: str
    path: str


class Requirement(KindModel):
    """A value a module needs from whoever uses it."""

    targets: list[Target] = Field(min_length=1)
    default: Any = None


class Parameter(Model):
    """A value for one requirement of a module."""

    name: str
    value: Any = None


class Dependency(KindModel):
    """A module this one uses, and the values for its requirements."""

    component: str
    version: str = "*"
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
