"""``file://path``: the content of a file in place of a field.

Only in the fields that hold documents or code, relative to the YAML file, and never outside
the project (or the module, for a module's files), symbolic links followed: a definition file
must not be a way to read the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.documents import MAX_FILE
from node.project.draft import Draft, Place

PREFIX = "file://"
FIELDS = (
    "source",
    "readme",
    "wiki.*",
    "tls.cert",
    "tls.key",
    "tls.ca",
    "tls.client_ca",
    "auth.cert_pem",
    "auth.key_pem",
)
_BINARY_KINDS = frozenset({"function.wasm", "process.wasm"})


class NotInlined(ValueError):
    """The file can't be taken; the text says why."""


def inline_files(draft: Draft, shown: Path) -> Iterator[tuple[str, str]]:
    """Replace every ``file://`` text in ``draft``, as its file has it.

    ``shown`` is what paths in messages are relative to. Yields path and reason for each that
    failed; such a field becomes empty.
    """
    for path, holder, key in _fields(draft):
        if holder[key].startswith(PREFIX):
            yield from _inline(draft, path, holder, key, shown)
        else:
            draft.texts[path] = _place_in_yaml(draft, path)


def inline_changed(draft: Draft, shown: Path) -> Iterator[tuple[str, str]]:
    """The same for the fields that something else than the file has set since."""
    for path, holder, key in _fields(draft):
        if path not in draft.texts and holder[key].startswith(PREFIX) and draft.is_changed(path):
            yield from _inline(draft, path, holder, key, shown)


def holds_document(kind: str, path: str) -> bool:
    """Whether ``file://`` at this path of the data stands for a file."""
    outer, _, inner = path.partition(".")
    return kind not in _BINARY_KINDS and (path in FIELDS or (bool(inner) and f"{outer}.*" in FIELDS))


def _inline(draft: Draft, path: str, holder: dict[str, Any], key: str, shown: Path) -> Iterator[tuple[str, str]]:
    try:
        file, holder[key] = _read(holder[key].removeprefix(PREFIX), draft.directory, draft.base)
        draft.texts[path] = Place(shown_path(file, shown), 1)
    except NotInlined as reason:
        holder[key] = ""
        yield path, str(reason)


def _fields(draft: Draft) -> Iterator[tuple[str, dict[str, Any], str]]:
    data = draft.data
    for path in () if draft.kind in _BINARY_KINDS else FIELDS:
        outer, _, inner = path.partition(".")
        if not inner:
            candidates = [(path, data, outer)]
        elif not isinstance(holder := data.get(outer), dict):
            continue
        else:
            candidates = [(f"{outer}.{key}", holder, key) for key in list(holder) if inner in ("*", key)]
        yield from (each for each in candidates if isinstance(each[1].get(each[2]), str))


def _place_in_yaml(draft: Draft, path: str) -> Place:
    node = draft.node
    for part in path.split("."):
        node = node.get(part) or node
    return Place(draft.file, node.line + 1 if node.block else node.line)


def _read(path: str, directory: Path, base: Path) -> tuple[Path, str]:
    if not path or "\0" in path:
        raise NotInlined("expected file://path, got no path")
    try:
        file = (directory / path).resolve(strict=True)
    except FileNotFoundError:
        file = (directory / path).resolve()
        _refuse_outside(file, path, base)
        raise NotInlined(f"there is no file {path}") from None
    except (OSError, RuntimeError) as error:  # a circle of links is the second one before Python 3.13
        reason = error.strerror if isinstance(error, OSError) else "a circle of links"
        raise NotInlined(f"{path} can't be read: {reason}") from None
    _refuse_outside(file, path, base)
    return file, _text(file, path)


def _refuse_outside(file: Path, path: str, base: Path) -> None:
    if not file.is_relative_to(base.resolve()):
        raise NotInlined(f"{PREFIX}{path} leads outside of {base.name or base}; keep the file inside")


def _text(file: Path, path: str) -> str:
    try:
        if file.stat().st_size > MAX_FILE:
            raise NotInlined(f"{path} is over the limit of {MAX_FILE} bytes")
        if not file.is_file():
            raise NotInlined(f"{path} is not a file")
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise NotInlined(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise NotInlined(f"{path} is not UTF-8 text: byte 0x{error.object[error.start]:02x} at {error.start}") from None


def shown_path(file: Path, root: Path) -> str:
    """``file`` relative to ``root`` where it is inside."""
    try:
        return file.relative_to(root).as_posix()
    except ValueError:
        return str(file)
