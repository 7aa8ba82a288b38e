"""The YAML files of one directory tree, read into drafts.

Every ``*.yaml`` below the directory is looked at; one with a ``namespace`` defines entries,
one without is somebody else's and skipped. A file that is no YAML is a problem when the word
stands in it, else a warning. Hidden directories and ``node_modules`` are not entered, nor are
links to directories; a link that leads out of the project is not read.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from cluster.documents import MAX_FILE, Document, Node, parse_bytes
from cluster.errors import Problem
from cluster.registry.entry import id_flaw
from node.project.draft import Draft
from node.project.inline import inline_files, shown_path
from node.spelling import did_you_mean

_SUFFIXES = (".yaml", ".yml")
_VERSIONS = ("1.0", "1", "None")
_FILE_KEYS = frozenset({"version", "namespace", "entries", "meta"})
_ENTRY_KEYS = frozenset({"name", "kind", "meta"})
_NAMESPACE_LINE = re.compile(rb"^namespace:\s*[\"']?([A-Za-z0-9_.-]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Tree:
    """A directory of definitions."""

    directory: Path
    base: Path
    """What ``file://`` must not leave."""
    module: str = ""
    """The component it belongs to; empty for the project's own."""
    exclude: Sequence[str] = ()
    """Patterns of files, relative to ``base``, that are not read."""


@dataclass(slots=True)
class Definitions:
    """What was read so far, over any number of trees."""

    shown: Path
    """What file names in messages are relative to."""
    drafts: dict[str, Draft] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    unread_namespaces: set[str] = field(default_factory=set)
    """Namespaces of files that could not be read: references into them can't be judged."""
    unread_ids: set[str] = field(default_factory=set)
    """Entries that are declared and could not be read."""
    missing_modules: set[str] = field(default_factory=set)
    """Components in use that are not on this machine; their namespaces are not known."""

    def read_tree(self, tree: Tree) -> None:
        """Read all definition files of ``tree``."""

        def refused(path: Path, why: str) -> None:
            self.problems.append(Problem(why, file=shown_path(path, self.shown)))

        def passed(path: Path, why: str) -> None:
            self.warnings.append(Problem(why, file=shown_path(path, self.shown)))

        for file in definition_files(tree.directory, refused, passed):
            relative = shown_path(file, tree.base)
            if not any(fnmatch(relative, pattern) for pattern in tree.exclude):
                self._read_file(file, tree)

    def _read_file(self, file: Path, tree: Tree) -> None:
        name = shown_path(file, self.shown)
        try:
            content = self._content(file, name, tree)
        except OSError as error:
            self.problems.append(Problem(f"can't be read: {error.strerror}", file=name))
            return
        if content is None:
            return
        document = parse_bytes(content, name)
        if document.broken:
            self._take_broken(document, content)
        elif document.root is not None and document.root.get("namespace") is not None:
            _FileReader(self, file, name, tree).read(document, document.root)

    def _content(self, file: Path, name: str, tree: Tree) -> bytes | None:
        """The bytes of the file; None, and a word, when it is not to be read."""
        about = file.stat()
        if not file.resolve(strict=True).is_relative_to(tree.base.resolve()):
            self.warnings.append(
                Problem(f"is a link that leads outside of {tree.base.name} and is not read", file=name)
            )
        elif not stat.S_ISREG(about.st_mode):
            self.warnings.append(Problem("is no regular file and is not read", file=name))
        elif about.st_size > MAX_FILE:
            message = f"file of {about.st_size} bytes is over the limit of {MAX_FILE} bytes; split it"
            self.problems.append(Problem(message, file=name))
        else:
            return file.read_bytes()
        return None

    def _take_broken(self, document: Document, content: bytes) -> None:
        if b"namespace" in content.replace(b"\0", b""):  # UTF-16, which is refused, puts zeros between
            self.problems += document.problems
        else:
            self.warnings += [replace(problem, message=f"{problem.message}; not read") for problem in document.problems]
        self.unread_namespaces.update(each.decode() for each in _NAMESPACE_LINE.findall(content))

    def add(self, draft: Draft) -> None:
        """Take a draft, or say where its id was taken."""
        first = self.drafts.setdefault(draft.id, draft)
        if first is not draft:
            self.problems.append(draft.problem(f"is defined twice, first at {first.file}:{first.node.line}"))


class _FileReader:
    """Reads one definition file."""

    def __init__(self, into: Definitions, file: Path, name: str, tree: Tree) -> None:
        self._into = into
        self._file = file
        self._name = name
        self._tree = tree

    def read(self, document: Document, root: Node) -> None:
        self._into.problems += document.problems
        if document.more:
            self._complain("only the first YAML document of a file is read; split the file", root.line)
        namespace = root.value["namespace"]
        if not isinstance(namespace.value, str) or (wrong := id_flaw(f"{namespace.value}:x")):
            detail = wrong if isinstance(namespace.value, str) else f"expected a text, got {namespace.value!r}"
            self._complain(detail, namespace.line, field="namespace")
            return
        for node in self._entries(root):
            self._read_entry(node, namespace.value)

    def _entries(self, root: Node) -> Iterator[Node]:
        entries = root.get("entries")
        if entries is None:
            yield from self._single(root)
            return
        if not _is_known_version(root):
            text = f"version {root.value['version'].plain()} of the file format is not known here; it is read as 1.0"
            self._into.warnings.append(Problem(text, file=self._name, line=root.line_of("version")))
        for key in root.value.keys() - _FILE_KEYS:
            near = did_you_mean(key, _FILE_KEYS)
            text = f"{key!r} beside entries is not read{near}"
            self._into.warnings.append(Problem(text, file=self._name, line=root.keys.get(key, root.line)))
        if entries.value is None:
            return
        if not isinstance(entries.value, list):
            self._complain("expected a list of entries", root.keys.get("entries", entries.line), field="entries")
            return
        yield from entries.value

    def _single(self, root: Node) -> Iterator[Node]:
        if root.get("name") is not None or root.get("kind") is not None:
            # a version that is none of the format is the entry's own, such as that of an ns.dependency
            outer = ("namespace", "version") if _is_known_version(root) else ("namespace",)
            own = {key: node for key, node in root.value.items() if key not in outer}
            yield Node(own, root.keys.get("name", root.line), root.size, keys=root.keys)
            return
        unknown = sorted(root.value.keys() - _FILE_KEYS)
        near = next((text for key in unknown if (text := did_you_mean(key, ["entries"]))), "")
        self._complain(f"a namespace without entries: expected entries:, or name: and kind:{near}", root.line)

    def _read_entry(self, node: Node, namespace: str) -> None:
        if not isinstance(node.value, dict):
            self._complain(f"expected an entry with name and kind, got {node.value!r}", node.line, field="entries")
            return
        name = self._text(node, "name", f"{namespace}:?")
        if name is None:
            return
        id = f"{namespace}:{name}"
        if wrong := id_flaw(id):
            self._complain(wrong, node.line_of("name"), entry=id, field="name")
            return
        kind = self._text(node, "kind", id)
        meta = self._meta(node, id)
        if kind is None or meta is None:
            self._into.unread_ids.add(id)
            return
        place = (self._tree.module, self._file.parent, self._tree.base)
        self._add(Draft(id, kind, meta, _data(node), self._name, node, *place))

    def _add(self, draft: Draft) -> None:
        failed = inline_files(draft, self._into.shown)
        self._into.problems += [draft.problem(reason, path) for path, reason in failed]
        self._into.add(draft)

    def _text(self, node: Node, key: str, entry: str) -> str | None:
        found = node.get(key)
        if found is not None and isinstance(found.value, str) and found.value:
            return found.value
        near = did_you_mean(key, node.value.keys() - _ENTRY_KEYS) if found is None else ""
        got = "is required and missing" if found is None else f"expected a text, got {found.plain()!r}"
        self._complain(got + near, node.line_of(key), entry=entry, field=key)
        return None

    def _meta(self, node: Node, entry: str) -> dict[str, Any] | None:
        meta = node.get("meta")
        if meta is None or meta.value is None:
            return {}
        if isinstance(meta.value, dict):
            plain: dict[str, Any] = meta.plain()
            return plain
        self._complain(f"expected a map, got {meta.plain()!r}", node.line_of("meta"), entry=entry, field="meta")
        return None

    def _complain(self, message: str, line: int, *, entry: str = "", field: str = "") -> None:
        self._into.problems.append(Problem(message, entry=entry, field=field, file=self._name, line=line))


def _is_known_version(root: Node) -> bool:
    version = root.get("version")
    return version is None or str(version.value) in _VERSIONS


def _data(node: Node) -> dict[str, Any]:
    return {key: value.plain() for key, value in node.value.items() if key not in _ENTRY_KEYS}


Told = Callable[[Path, str], None]


def definition_files(directory: Path, refused: Told, passed: Told) -> Iterator[Path]:
    """Every YAML file below ``directory``, in a stable order. Told of directories that can't be read, and of
    links that are passed over."""

    def unreadable(error: OSError) -> None:
        refused(Path(error.filename), f"can't be read: {error.strerror}")

    for parent, directories, files in os.walk(directory, onerror=unreadable):
        directories[:] = sorted(name for name in directories if not name.startswith(".") and name != "node_modules")
        for name in [name for name in directories if Path(parent, name).is_symlink()]:
            passed(Path(parent, name), "is a link to a directory and is not entered")
        yield from (
            Path(parent, name) for name in sorted(files) if name.endswith(_SUFFIXES) and not name.startswith(".")
        )


def defines_entries(directory: Path) -> bool:
    """Whether a YAML file directly in ``directory`` has a namespace."""
    files = (file for file in sorted(directory.iterdir()) if file.suffix in _SUFFIXES and file.is_file())
    return any(_NAMESPACE_LINE.search(file.read_bytes()) for file in files)
