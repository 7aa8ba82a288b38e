"""``wippy.lock`` written: the modules in use, everything else in the file left as it was."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.documents import Node, parse_document
from node.project.layout import Layout, Pin

_SECTION = "modules"


def lock_text(layout: Layout, pins: Mapping[str, Pin]) -> str:
    """The lock file of the project with ``pins`` in place of those it has. Comments and order stay."""
    file = layout.root / layout.lock
    present = file.read_text(encoding="utf-8-sig") if file.is_file() else ""
    root = parse_document(present, layout.lock).root
    if root is None or not isinstance(root.value, dict) or not root.value:
        return _dump(_directories(layout)) + _dump(_modules(pins))
    lines = present.splitlines(keepends=True)
    if _is_flow(root, lines):
        return _dump(root.plain() | _modules(pins))
    return _spliced(root, lines, _dump(_modules(pins)))


def _directories(layout: Layout) -> dict[str, Any]:
    source = layout.source or layout.root / "src"
    said = {"modules": layout.modules, "src": source}
    return {"directories": {name: path.relative_to(layout.root).as_posix() for name, path in said.items()}}


def _modules(pins: Mapping[str, Pin]) -> dict[str, Any]:
    if not pins:
        return {}
    said = [{"name": name, "version": pin.version, "hash": pin.hash} for name, pin in sorted(pins.items())]
    return {_SECTION: [{key: value for key, value in each.items() if value} for each in said]}


def _dump(value: dict[str, Any]) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True) if value else ""


def _is_flow(root: Node, lines: list[str]) -> bool:
    return lines[root.line - 1].lstrip().startswith("{")


def _spliced(root: Node, lines: list[str], section: str) -> str:
    start = root.keys.get(_SECTION)
    if start is None:
        text = "".join(lines)
        return f"{text}{'' if text.endswith(chr(10)) else chr(10)}{section}"
    following = min((line for line in root.keys.values() if line > start), default=len(lines) + 1)
    after = following - 1
    while after > start and (not lines[after - 1].strip() or lines[after - 1].lstrip().startswith("#")):
        after -= 1  # what stands above the next key belongs to it
    return "".join([*lines[: start - 1], section, *lines[after:]])


def write_lock(layout: Layout, text: str) -> None:
    """Replace the lock file, whole or not at all. Raises OSError."""
    file = layout.root / layout.lock
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as temporary:
            temporary.write(text)
            os.fchmod(temporary.fileno(), file.stat().st_mode & 0o777 if file.exists() else 0o644)
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
