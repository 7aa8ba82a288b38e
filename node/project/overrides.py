"""Changes to entries that stand outside of their files, and entries left out.

An override is ``namespace:entry:path`` with a value, from the section ``override`` (values keep
their type) or from ``-o namespace:entry:path=value`` (values by their shape: true, 5, 0.5, a JSON
list or map, else a text). One that meets no entry is a problem: it is a typing mistake more
often than not. Nothing here reads a file; a ``file://`` value is read by whoever loads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
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


def parse_overrides(
    section: Mapping[str, Any], options: Sequence[str], places: Mapping[str, str] | None = None
) -> tuple[list[Override], list[Problem]]:
    """Those of the configuration, then those of the command line, which win. ``places`` says where the former stand."""
    found: list[Override] = []
    problems: list[Problem] = []
    known = places or {}
    asked = [(key, value, True, known.get(key, f"override {key}")) for key, value in section.items()]
    for option in options:
        key, equals, text = option.partition("=")
        asked.append((key, _typed(text), bool(equals), f"-o {key}"))
    for key, value, complete, origin in asked:
        namespace, _, rest = key.partition(":")
        name, _, path = rest.partition(":")
        if complete and namespace and name and path:
            found.append(Override(f"{namespace}:{name}", path, value, origin))
        else:
            problems.append(Problem("expected namespace:entry:path and a value, such as app:db:port=5432", file=origin))
    return found, problems


def _typed(text: str) -> Any:
    if text[:1] not in ("[", "{"):
        return coerce(text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text  # a pattern such as [a-z]+ is a text like any other


def apply_overrides(drafts: Mapping[str, Draft], overrides: Sequence[Override]) -> Iterator[Problem]:
    """Change the drafts; yields what could not be done."""
    for override in overrides:
        draft = drafts.get(override.entry)
        if draft is None:
            near = did_you_mean(override.entry, drafts)
            yield Problem(f"there is no entry {override.entry}{near}", entry=override.entry, file=override.origin)
        elif wrong := _too_late(draft, override.path) or assign(draft, override.path, override.value, override.origin):
            yield Problem(wrong, entry=override.entry, field=override.path, file=override.origin)


def _too_late(draft: Draft, path: str) -> str:
    if draft.kind == "ns.dependency" and path.removeprefix("data.") in ("component", "version"):
        return "modules are read before overrides; name another one under workspace.replacements"
    return ""


def disabled(drafts: Mapping[str, Draft], disable: Disable) -> set[str]:
    """The ids that ``disable`` leaves out."""
    namespaces = [namespace_matcher(pattern) for pattern in disable.namespaces]
    entries = [_entry_matcher(pattern) for pattern in disable.entries]
    return {
        id
        for id, draft in drafts.items()
        if any(matches(draft.ns) for matches in namespaces)
        or any(matches(draft.ns) and fnmatchcase(id.partition(":")[2], name) for matches, name in entries)
        or any(_has(draft.meta.get(key), value) for key, value in disable.meta.items())
    }


def _entry_matcher(pattern: str) -> tuple[Callable[[str], bool], str]:
    namespace, _, name = pattern.partition(":")
    return namespace_matcher(namespace), name or "*"


def namespace_matcher(pattern: str) -> Callable[[str], bool]:
    """``*`` is one word, ``**`` any number of words: ``legacy.**`` takes ``legacy`` and all below it."""
    words = pattern.split(".")
    several = [word for at, word in enumerate(words) if word != "**" or words[at - 1 : at] != ["**"]]
    parts = [r"(?:[^.]+\.)*" if word == "**" else re.escape(word).replace(r"\*", "[^.]*") + r"\." for word in several]
    compiled = re.compile("".join(parts))
    return lambda namespace: compiled.fullmatch(f"{namespace}.") is not None


def _has(present: Any, wanted: Any) -> bool:
    values = wanted if isinstance(wanted, list) else [wanted]
    return present in values or (isinstance(present, list) and any(value in present for value in values))
