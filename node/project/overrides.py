"""Changes to entries that stand outside of their files, and entries left out.

An override is ``namespace:entry:path`` with a value, from the section ``override`` (values keep
their type) or from ``-o namespace:entry:path=value`` (values by their shape). One that meets no
entry is a problem: it is a typing mistake more often than not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from cluster.errors import Problem
from node.project.draft import Draft
from node.project.paths import assign
from node.scalars import coerce
from node.settings.schema import Disable
from node.spelling import did_you_mean


@dataclass(frozen=True, slots=True)
class Override:
    """One change; ``origin`` says where it was asked for."""

    entry: str
    path: str
    value: Any
    origin: str


def parse_overrides(section: Mapping[str, Any], options: Sequence[str]) -> tuple[list[Override], list[Problem]]:
    """Those of the configuration, then those of the command line, which win."""
    found: list[Override] = []
    problems: list[Problem] = []
    asked = [(key, value, True, f"override {key}") for key, value in section.items()]
    for option in options:
        key, equals, text = option.partition("=")
        asked.append((key, coerce(text), bool(equals), f"-o {key}"))
    for key, value, complete, origin in asked:
        namespace, _, rest = key.partition(":")
        name, _, path = rest.partition(":")
        if complete and namespace and name and path:
            found.append(Override(f"{namespace}:{name}", path, value, origin))
        else:
            problems.append(Problem("expected namespace:entry:path and a value", file=origin))
    return found, problems


def apply_overrides(drafts: Mapping[str, Draft], overrides: Sequence[Override]) -> Iterator[Problem]:
    """Change the drafts; yields what could not be done."""
    for override in overrides:
        draft = drafts.get(override.entry)
        if draft is None:
            near = did_you_mean(override.entry, drafts)
            yield Problem(f"there is no entry {override.entry}{near}", entry=override.entry, file=override.origin)
        elif wrong := assign(draft, override.path, override.value, override.origin):
            yield Problem(wrong, entry=override.entry, field=override.path, file=override.origin)


def disabled(drafts: Mapping[str, Draft], disable: Disable) -> set[str]:
    """The ids that ``disable`` leaves out."""
    namespaces = [_namespace_pattern(pattern) for pattern in disable.namespaces]
    entries = [_entry_pattern(pattern) for pattern in disable.entries]
    return {
        id
        for id, draft in drafts.items()
        if any(pattern.fullmatch(draft.ns) for pattern in namespaces)
        or any(namespace.fullmatch(draft.ns) and fnmatchcase(id.partition(":")[2], name) for namespace, name in entries)
        or any(_has(draft.meta.get(key), value) for key, value in disable.meta.items())
    }


def _entry_pattern(pattern: str) -> tuple[re.Pattern[str], str]:
    namespace, _, name = pattern.partition(":")
    return _namespace_pattern(namespace), name or "*"


def _namespace_pattern(pattern: str) -> re.Pattern[str]:
    """``*`` is one word, ``**`` any number of words: ``legacy.**`` takes ``legacy`` and all below it."""
    text = ""
    for position, word in enumerate(pattern.split(".")):
        dot = r"\." if position else ""
        if word == "**":
            text += rf"(?:{dot}[^.]+)*" if position else r"[^.]+(?:\.[^.]+)*"
        else:
            text += dot + re.escape(word).replace(r"\*", "[^.]*")
    return re.compile(text)


def _has(present: Any, wanted: Any) -> bool:
    values = wanted if isinstance(wanted, list) else [wanted]
    return present in values or (isinstance(present, list) and any(value in present for value in values))
