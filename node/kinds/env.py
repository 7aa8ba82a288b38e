"""Kinds of environment values: storages (``env.storage.*``) and ``env.variable``."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field, field_validator

from node.kinds.model import Kind, KindModel, Ref
from node.scalars import PlainText

_VARIABLE = re.compile(r"[A-Za-z0-9_]+")
_OCTAL = re.compile(r"0?o?[0-7]{3,4}")


def check_variable(name: str) -> str:
    """What is wrong with the name of a variable; empty when nothing is."""
    return "" if _VARIABLE.fullmatch(name) else f"expected letters, digits and _ only, got {name!r}"


class Octal(int):
    """A number that is shown as permissions are written: 0644."""

    def __str__(self) -> str:
        return f"0{self:o}"


def _file_mode(value: Any) -> Any:
    """A mode may be written ``0600`` (YAML reads octal) or as the text ``"0600"``."""
    if isinstance(value, str) and _OCTAL.fullmatch(value):
        return int(value.replace("o", ""), 8)
    if value is True or value is False or isinstance(value, float):
        raise ValueError(f'expected permissions such as "0644", got {value!r}')
    return value


FileMode = Annotated[int, BeforeValidator(_file_mode), Field(ge=0, le=0o777)]


class MemoryStorage(KindModel):
    """Values that live as long as the node."""


class OsStorage(KindModel):
    """The environment of the node's process, read only."""


class StaticStorage(KindModel):
    """Values given in the entry, read only."""

    values: dict[str, PlainText] = Field(default_factory=dict)
    """The values by name."""


class FileStorage(KindModel):
    """Values in a file of ``NAME=value`` lines."""

    file_path: str = Field(min_length=1)
    """Relative to the project."""
    auto_create: bool = False
    """Make the file, and its directory, when it is missing."""
    file_mode: FileMode = Octal(0o644)
    """The permissions of the file."""
    dir_mode: FileMode = Octal(0o755)
    """The permissions of a directory it makes."""


class RouterStorage(KindModel):
    """Several storages as one: the first that has a value answers, the first of all is written to."""

    storages: list[Ref] = Field(min_length=1)
    """``env.storage.*`` entries, in the order they are asked."""


class Variable(KindModel):
    """A name for a value in a storage."""

    variable: str | None = None
    """The public name, unique; without one the value is reached by the entry's id."""
    storage: Ref
    """The ``env.storage.*`` entry that keeps the value."""
    default: PlainText | None = None
    """The value while the storage has none."""
    readonly: bool = Field(default=False, validation_alias=AliasChoices("readonly", "read_only"))
    """Refuse ``env.set``. May be written ``read_only`` too."""

    @field_validator("variable")
    @classmethod
    def _plain_name(cls, name: str | None) -> str | None:
        if name is not None and (wrong := check_variable(name)):
            raise ValueError(wrong)
        return name


KINDS = (
    Kind(
        "env.storage.memory",
        MemoryStorage,
        one_node="what is set at run time stays on its node; keep what all nodes must see in a store.kv.raft",
    ),
    Kind("env.storage.os", OsStorage),
    Kind("env.storage.static", StaticStorage),
    Kind("env.storage.file", FileStorage),
    Kind("env.storage.router", RouterStorage),
    Kind("env.variable", Variable),
)
