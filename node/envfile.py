"""A file of ``NAME=value`` lines, as ``env.storage.file`` keeps it.

Comments, order and foreign lines survive a write; the file is replaced in one step, so a
reader never sees half of it. Changes made by others are seen at the next read.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

MAX_FILE = 1024 * 1024
_LINE = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z0-9_.-]+)[ \t]*=(.*)", re.DOTALL)
_BARE = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


class EnvFile:
    """One file. Every method may raise OSError."""

    def __init__(self, path: Path, *, file_mode: int = 0o644, dir_mode: int = 0o755) -> None:
        self._path = path
        self._file_mode = file_mode
        self._dir_mode = dir_mode
        self._read_at: tuple[int, int, int] | None = None
        self._values: dict[str, str] = {}

    def exists(self) -> bool:
        return self._path.is_file()

    def create(self) -> None:
        """Make an empty file, and its directory, when it is missing."""
        self._path.parent.mkdir(mode=self._dir_mode, parents=True, exist_ok=True)
        if not self.exists():
            self._replace("")

    def get(self, name: str) -> str | None:
        """The value of ``name``, or None; a file that went away holds nothing."""
        self._refresh()
        return self._values.get(name)

    def set(self, name: str, value: str) -> None:
        """Write ``name``, in place of its last line or at the end."""
        lines = _lines(self._text())
        wanted = f"{name}={_quoted(value)}"
        at = [index for index, line in enumerate(lines) if (match := _LINE.fullmatch(line)) and match[1] == name]
        if at:
            lines[at[-1]] = wanted
        else:
            lines.append(wanted)
        self._path.parent.mkdir(mode=self._dir_mode, parents=True, exist_ok=True)
        self._replace("\n".join(lines) + "\n")

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._values, self._read_at = {}, None
            return
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp != self._read_at:
            self._values = parse_lines(self._text())
            self._read_at = stamp

    def _text(self) -> str:
        try:
            with self._path.open("rb") as file:
                content = file.read(MAX_FILE + 1)
        except FileNotFoundError:
            return ""
        if len(content) > MAX_FILE:
            raise OSError(f"{self._path} is over the limit of {MAX_FILE} bytes")
        return content.decode("utf-8", "surrogateescape")

    def _replace(self, text: str) -> None:
        descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                file.write(text)
            os.chmod(temporary, self._file_mode)
            os.replace(temporary, self._path)
        except (OSError, ValueError):
            Path(temporary).unlink(missing_ok=True)
            raise


def parse_lines(text: str) -> dict[str, str]:
    """The values in ``text``; of several lines for one name the last counts, lines of another form are skipped."""
    values = {}
    for line in _lines(text):
        match = _LINE.fullmatch(line)
        if match:
            values[match[1]] = _unquoted(match[2].strip(" \t"))
    return values


def _lines(text: str) -> list[str]:
    """Only line feeds end a line: a value may hold any other separator of Unicode."""
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def _unquoted(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] == "'":
        return text[1:-1]
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text[1:-1], flags=re.DOTALL)
    return re.sub(r"(^|[ \t]+)#.*", "", text, flags=re.DOTALL)


def _quoted(value: str) -> str:
    if _BARE.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'
