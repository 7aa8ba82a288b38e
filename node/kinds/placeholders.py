"""Placeholders in the data of entries: ``${env:NAME}``, ``${env:NAME|default}``, ``${NAME|default}``.

They are resolved when an entry is decoded for use; the stored entry keeps them, so a secret
never stands in the registry. ``NAME`` is a variable of the env registry, by public name or
entry id. A string that is one placeholder and nothing else takes the type of its default
(true, 10, 0.5); inside other text it becomes text. ``$${`` is a literal ``${``. A sibling
``<field>_env: NAME`` is the older form of the same and is left alone when NAME is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

from cluster.errors import Problem
from node.scalars import coerce

Lookup = Callable[[str], str | None]
"""The value of a variable, None when it has none."""

_PLACEHOLDER = re.compile(
    r"\$\$\{"
    r"|\$\{env:(?P<name>[^|{}]+)(?:\|(?P<default>[^}]*))?\}"
    r"|\$\{(?P<short>[A-Z][A-Z0-9_]*)\|(?P<short_default>[^}]*)\}"
)
_LEGACY = "_env"


def resolve_data(data: dict[str, Any], env: Lookup, raw: Collection[str] = ()) -> tuple[dict[str, Any], list[Problem]]:
    """``data`` with every placeholder resolved, and a problem (field and message) for each that can't be.

    Top-level fields named in ``raw`` are code and stay as they are.
    """
    resolver = _Resolver(env)
    resolved = {key: value if key in raw else resolver.value(value, key) for key, value in data.items()}
    return resolver.legacy(resolved), resolver.problems


def unresolved_fields(data: dict[str, Any], raw: Collection[str] = ()) -> set[str]:
    """The dotted paths of the values that hold a placeholder: what they will be is not known before decoding."""
    return {path for path, text in _texts(data, raw) if any(True for _ in _asked(text))}


def needed_variables(data: dict[str, Any], raw: Collection[str] = ()) -> list[tuple[str, str]]:
    """Dotted path and name for each placeholder without a default: variables that must be there."""
    return [(path, name) for path, text in _texts(data, raw) for name, default in _asked(text) if default is None]


def malformed(data: dict[str, Any], raw: Collection[str] = ()) -> list[Problem]:
    """A problem (field and message) for each text that begins a placeholder and does not end it as one."""
    return [Problem(wrong, field=path) for path, text in _texts(data, raw) if (wrong := _flaw(text))]


def _flaw(text: str) -> str:
    if any(default is not None and "${" in default for _, default in _asked(text)):
        return "a placeholder can't hold another one; give a plain default, or declare a variable that has one"
    if "${env:" in _PLACEHOLDER.sub("", text):
        return "expected ${env:NAME} or ${env:NAME|default}; write $${ for a literal ${"
    return ""


def _asked(text: str) -> Iterator[tuple[str, str | None]]:
    for match in _PLACEHOLDER.finditer(text):
        if match[0] != "$${":
            yield _parts(match)


def _texts(data: dict[str, Any], raw: Collection[str]) -> Iterator[tuple[str, str]]:
    for key, value in data.items():
        if key not in raw:
            yield from _texts_in(value, key)


def _texts_in(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        if "${" in value:
            yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts_in(item, f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts_in(item, f"{path}.{index}")


class _Resolver:
    def __init__(self, env: Lookup) -> None:
        self._env = env
        self.problems: list[Problem] = []

    def value(self, value: Any, path: str) -> Any:
        if isinstance(value, str):
            return self._text(value, path) if "${" in value else value
        if isinstance(value, dict):
            return self.legacy({key: self.value(item, f"{path}.{key}") for key, item in value.items()})
        if isinstance(value, list):
            return [self.value(item, f"{path}.{index}") for index, item in enumerate(value)]
        return value

    def legacy(self, mapping: dict[str, Any]) -> dict[str, Any]:
        for key in [key for key in mapping if key.endswith(_LEGACY) and key != _LEGACY]:
            name = mapping[key]
            found = self._env(name) if isinstance(name, str) else None
            if found is not None:
                del mapping[key]
                if found:
                    mapping[key.removesuffix(_LEGACY)] = found
        return mapping

    def _text(self, text: str, path: str) -> Any:
        whole = _PLACEHOLDER.fullmatch(text)
        if whole is not None and whole[0] != "$${":
            return self._typed(whole, path)
        return _PLACEHOLDER.sub(lambda match: self._inline(match, path), text)

    def _inline(self, match: re.Match[str], path: str) -> str:
        if match[0] == "$${":
            return "${"
        name, default = _parts(match)
        found = self._env(name)
        if found is not None:
            return found
        return self._missing(name, path) if default is None else default

    def _typed(self, match: re.Match[str], path: str) -> Any:
        name, default = _parts(match)
        found = self._env(name)
        if found is None:
            return self._missing(name, path) if default is None else coerce(default)
        return found if default is None else self._as(type(coerce(default)), found, name, path)

    def _as(self, kind: type, found: str, name: str, path: str) -> Any:
        value = found if kind is str else coerce(found)
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:
            # the value may be a secret: it is not shown
            expected = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
            self.problems.append(
                Problem(f"expected variable {name} to hold {expected}, as its default does", field=path)
            )
        return value

    def _missing(self, name: str, path: str) -> str:
        message = f"variable {name} has no value; set it, or give a default: ${{env:{name}|...}}"
        self.problems.append(Problem(message, field=path))
        return ""


def _parts(match: re.Match[str]) -> tuple[str, str | None]:
    if match["short"]:
        return match["short"], match["short_default"]
    return match["name"], match["default"]
