"""The list of all settings, for documentation: made from the models, so it can't go stale."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from node.durations import format_duration
from node.settings import schema


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its dotted path, its default as it would stand in the file, and what it does."""

    path: str
    default: str
    text: str


def describe() -> list[Setting]:
    """Every setting, in the order of the file."""
    return list(_describe(schema.Settings, "", _documentation()))


def _describe(model: type[BaseModel], prefix: str, texts: Mapping[tuple[str, str], str]) -> Iterator[Setting]:
    for name, info in model.model_fields.items():
        if model is schema.Settings and name in schema.NOT_IN_FILE:
            continue
        path = f"{prefix}{name}"
        inner = _section(info.annotation)
        if inner is not None:
            yield from _describe(inner, f"{path}.", texts)
        else:
            default = info.get_default(call_default_factory=True)
            yield Setting(path, _shown(default), texts.get((model.__name__, name), ""))


def _section(annotation: Any) -> type[BaseModel] | None:
    candidates = (annotation, *getattr(annotation, "__args__", ()))
    return next((each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)), None)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return format_duration(value) if isinstance(value, timedelta) else str(value)


def _documentation() -> dict[tuple[str, str], str]:
    """The text under each field of each class of the schema."""
    found: dict[tuple[str, str], str] = {}
    for section in ast.parse(inspect.getsource(schema)).body:
        if not isinstance(section, ast.ClassDef):
            continue
        for statement, following in zip(section.body, section.body[1:], strict=False):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                text = _text(following)
                if text:
                    found[section.name, statement.target.id] = text
    return found


def _text(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return " ".join(str(statement.value.value).split())
    return ""
