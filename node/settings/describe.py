"""The fields of a model, for documentation: made from the source of the models, so it can't go stale.

``describe`` lists the settings of a node, ``fields_of`` those of any model.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, get_origin

from pydantic import BaseModel

from node.durations import format_duration
from node.settings import schema


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting or field: its dotted path, its default as it would stand in the file, and what it does."""

    path: str
    default: str
    text: str
    required: bool = False


def describe() -> list[Setting]:
    """Every setting, in the order of the file."""
    return list(fields_of(schema.Settings, without=schema.NOT_IN_FILE))


def fields_of(
    model: type[BaseModel], prefix: str = "", *, without: Collection[str] = (), whole: Collection[str] = ()
) -> Iterator[Setting]:
    """The fields of ``model`` and of the models in it.

    Fields named in ``without`` are left out; those in ``whole`` are not taken apart.
    """
    texts = _documentation(model)
    for name, info in model.model_fields.items():
        if name in without:
            continue
        path = f"{prefix}{name}"
        inner = None if name in whole else _section(info.annotation)
        if inner is not None:
            many = "[]" if get_origin(info.annotation) is list else ""
            yield from fields_of(inner, f"{path}{many}.")
        else:
            required = info.is_required()
            default = None if required or name in whole else info.get_default(call_default_factory=True)
            yield Setting(path, _shown(default), texts.get(name, ""), required)


def _section(annotation: Any) -> type[BaseModel] | None:
    candidates = (annotation, *getattr(annotation, "__args__", ()))
    return next((each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)), None)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return format_duration(value) if isinstance(value, timedelta) else str(value)


@cache
def _documentation(model: type[BaseModel]) -> Mapping[str, str]:
    """The text under each field of the class and of those it is derived from."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if issubclass(each, BaseModel) and each.model_fields:
            (section,) = ast.parse(inspect.getsource(each)).body
            assert isinstance(section, ast.ClassDef)
            found.update(_texts(section))
    return found


def _texts(section: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement, following in zip(section.body, section.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            text = _text(following)
            if text:
                yield statement.target.id, text


def _text(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return " ".join(str(statement.value.value).split())
    return ""
