"""Failed validations in words a person can act on: which field, what was expected, what stood there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import AliasChoices, BaseModel, ValidationError

from cluster.errors import Problem
from node.spelling import did_you_mean

_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}
_TYPES = {
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
}


def explain(error: ValidationError, model: type[BaseModel], entry: str = "") -> Iterator[Problem]:
    """The problems in a failed validation, one per field."""
    for detail in error.errors(include_url=False):
        location = detail["loc"]
        message = _message(detail, _fields_at(model, location[:-1]), str(location[-1]) if location else "")
        yield Problem(message, entry=entry, field=".".join(str(part) for part in location))


def _message(detail: Any, known: list[str], name: str) -> str:
    match detail["type"]:
        case "missing":
            return "is required and missing"
        case "extra_forbidden":
            fields = ", ".join(known)
            return f"unknown field {name!r}{did_you_mean(name, known)} (known: {fields})" if fields else "unknown field"
        case "value_error":
            return str(detail["ctx"]["error"])
        case bound if bound in _BOUNDS:
            key, words = _BOUNDS[bound]
            return f"expected {words} {detail['ctx'][key]}, got {_shown(detail['input'])}"
        case kind if kind in _TYPES:
            return f"expected {_TYPES[kind]}, got {_shown(detail['input'])}"
        case "model_type" | "dict_type" | "model_attributes_type":
            return f"expected a map of fields, got {_shown(detail['input'])}"
        case "too_short" | "string_too_short":
            things = "characters" if detail["type"].startswith("string") else "items"
            least = detail["ctx"].get("min_length", 1)
            wanted = f"at least {least} {things}" if least > 1 else f"at least one {things[:-1]}"
            return f"expected {wanted}, got {_shown(detail['input'])}"
        case "too_long" | "string_too_long":
            things = "characters" if detail["type"].startswith("string") else "items"
            return f"expected at most {detail['ctx']['max_length']} {things}, got {_shown(detail['input'])}"
        case "string_pattern_mismatch":
            return f"expected a text that matches {detail['ctx']['pattern']}, got {_shown(detail['input'])}"
        case _:
            message = str(detail["msg"]).replace("Input should be", "expected", 1)
            return f"{message}, got {_shown(detail['input'])}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The fields known at a place inside ``model``, by the names a file may use."""
    here: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        info = here.model_fields.get(part) if _is_model(here) else None
        here = None if info is None else _model_in(info.annotation)
    if not _is_model(here):
        return []
    return [name for key, info in here.model_fields.items() for name in _names(key, info.validation_alias)]


def _names(key: str, alias: Any) -> list[str]:
    if isinstance(alias, AliasChoices):
        return [choice for choice in alias.choices if isinstance(choice, str)]
    return [alias] if isinstance(alias, str) else [key]


def _model_in(annotation: Any) -> Any:
    """The model in an annotation such as ``Model | None`` or ``list[Model]``."""
    if _is_model(annotation):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
