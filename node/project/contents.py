"""The files a module consists of, and the hash that ``wippy.lock`` pins them by.

Every regular file below the module's directory belongs to it, except hidden ones,
``node_modules`` and what its manifest excludes. The hash is the SHA-256 of a list with path and
SHA-256 of each file, sorted by path: it does not depend on the machine, times or permissions.
A link inside the module stands for the file it leads to; one that leads out is refused, because
a copy of the module would not be the module.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

MAX_FILES = 10_000
MAX_BYTES = 256 * 1024 * 1024


class NoModule(ValueError):
    """The directory can't be taken as a module; the text says why."""


def module_files(root: Path, exclude: Sequence[str]) -> list[str]:
    """The paths of all files, relative to ``root``, sorted. Raises NoModule."""
    found = sorted(path for path in _walk(root) if not any(fnmatch(path, pattern) for pattern in exclude))
    if len(found) > MAX_FILES:
        raise NoModule(f"{root} holds {len(found)} files, more than {MAX_FILES}; exclude some in wippy.yaml")
    size = sum((root / path).stat().st_size for path in found)
    if size > MAX_BYTES:
        raise NoModule(f"{root} holds {size} bytes, more than {MAX_BYTES}; exclude some files in wippy.yaml")
    return found


def _walk(root: Path) -> Iterator[str]:
    inside = root.resolve()
    for parent, directories, files in os.walk(root, onerror=_refuse):
        directories[:] = [name for name in directories if not name.startswith(".") and name != "node_modules"]
        for name in [*directories, *files]:
            path = Path(parent, name)
            if name.startswith(".") or not (path.is_symlink() or path.is_file()):
                continue
            if not path.is_file() or not path.resolve().is_relative_to(inside):
                raise NoModule(f"{path} is a link that leads to no file of the module")
            yield path.relative_to(root).as_posix()


def _refuse(error: OSError) -> None:
    raise NoModule(f"{error.filename} can't be read: {error.strerror}")


def module_hash(root: Path, exclude: Sequence[str]) -> str:
    """The hash of a module, 64 hexadecimal digits. Raises NoModule."""
    total = hashlib.sha256()
    try:
        for path in module_files(root, exclude):
            with (root / path).open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{path}\0{content}\n".encode(errors="surrogateescape"))
    except OSError as error:
        raise NoModule(f"{error.filename} can't be read: {error.strerror}") from None
    return total.hexdigest()


def copy_module(root: Path, exclude: Sequence[str], to: Path) -> None:
    """Copy the files of a module into the directory ``to``, which must not be there. Raises NoModule, OSError."""
    to.mkdir(parents=True)
    for path in module_files(root, exclude):
        target = to / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, target)
