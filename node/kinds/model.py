"""The base of all kind models and the types their fields share.

A model describes the data of one kind of entry: frozen, unknown fields refused. References
are full ids after decoding, whatever the file wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationInfo

from cluster.registry.entry import id_flaw, with_default_ns


class Model(BaseModel):
    """A frozen set of fields; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class KindModel(Model):
    """The data of one kind of entry."""

    raw_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that hold code or documents: placeholders in them mean nothing."""

    free_form: ClassVar[bool] = False
    """Whether the data is the application's own; the model then has one field, ``data``."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of entry this version runs."""

    name: str
    model: type[KindModel]
    code: bool = False
    """Holds Lua source."""
    importable: bool = False
    """May stand in the ``imports`` of another entry."""
    host: bool = False
    """Processes run on it."""
    applied: bool = True
    """Has a handler; the others are data that applications read."""
    one_node: str = ""
    """What to use instead in a cluster, when each node has data of its own under the entry."""


def _no_truth_value(value: Any) -> Any:
    if value is True or value is False:
        raise ValueError(f"expected a number, got {str(value).lower()}")
    return value


def _text(value: Any) -> Any:
    """A reference may be written as a map ``{ns, name}`` too."""
    match value:
        case {"name": str(name), **rest} if rest.keys() <= {"ns"} and isinstance(rest.get("ns", ""), str):
            return f"{rest.get('ns', '')}:{name}"
        case _:
            return value


def _reference(value: str, info: ValidationInfo) -> str:
    namespace = info.context["namespace"] if info.context else ""
    reference = with_default_ns(value, namespace)
    if wrong := id_flaw(reference):
        raise ValueError(wrong)
    return reference


def _import(value: str, info: ValidationInfo) -> str:
    if value.startswith(":"):
        if len(value) == 1:
            raise ValueError("expected an entry id or :module, got ':'")
        return value
    return _reference(value, info)


# a truth value is no number; pydantic by itself takes true for 1
Int = Annotated[int, BeforeValidator(_no_truth_value)]
Float = Annotated[float, BeforeValidator(_no_truth_value)]

Ref = Annotated[str, BeforeValidator(_text), AfterValidator(_reference)]
"""The id of another entry."""

ImportRef = Annotated[str, BeforeValidator(_text), AfterValidator(_import)]
"""The id of an entry, or ``:name`` for a module of the runtime."""
