"""YAML read with line numbers, safely.

``parse_document`` turns a text into a tree of ``Node``s, each knowing its line, so that every
complaint about a value can name the place it was written. Only plain data is built: no tags
beyond the core ones, no objects. Repeated keys, unknown tags, numbers that fit no 64 bits and
keys that are no scalars are problems; nesting, size and the expansion of aliases are bounded,
so that no file can exhaust memory. Scalars follow YAML 1.2: ``yes`` is a text, ``0o600`` and
``0600`` are octal numbers, ``12:30`` and ``2024-01-01`` are texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
import yaml.reader
from yaml import events

from cluster.errors import Problem

MAX_FILE = 8 * 1024 * 1024
"""Bytes of one file."""
MAX_DEPTH = 64
MAX_NODES = 500_000
"""Values of one file, aliases expanded."""

_READER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_MERGE = "<<"

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_OCTAL = re.compile(r"0o?([0-7]+)")
_HEX = re.compile(r"0x([0-9a-fA-F]+)")
_FLOAT = re.compile(r"[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)")
_WORDS: dict[str, Any] = {"": None, "~": None}
_WORDS.update(dict.fromkeys(("null", "Null", "NULL")))
_WORDS.update(dict.fromkeys(("true", "True", "TRUE"), True))
_WORDS.update(dict.fromkeys(("false", "False", "FALSE"), False))


@dataclass(slots=True)
class Node:
    """One value: a scalar, a ``dict[str, Node]`` or a ``list[Node]``, and the line it starts on (from 1).

    ``keys`` are the lines of a mapping's keys, ``size`` counts the values inside, itself included.
    ``block`` marks a literal text whose first line is the one after ``line``.
    """

    value: Any
    line: int
    size: int = 1
    block: bool = False
    keys: dict[str, int] = field(default_factory=dict)

    def plain(self) -> Any:
        """The value as ordinary Python data, newly built."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def get(self, key: str) -> Node | None:
        """The value under ``key``, when this is a mapping that has it."""
        return self.value.get(key) if isinstance(self.value, dict) else None

    def line_of(self, path: str) -> int:
        """The line of the value at a dotted path, or of the nearest thing around it."""
        node, line = self, self.line
        for part in path.split("."):
            if isinstance(node.value, dict) and part in node.value:
                line = node.keys.get(part, node.value[part].line)
                node = node.value[part]
            elif isinstance(node.value, list) and part.isdecimal() and int(part) < len(node.value):
                node = node.value[int(part)]
                line = node.line
            else:
                break
        return line


@dataclass(frozen=True, slots=True)
class Document:
    """What a file holds: ``root`` is None when it is empty or broken.

    ``broken`` says that ``problems`` is one error of syntax; else they are about single values.
    ``more`` says that further documents follow in the file; they were not read.
    """

    root: Node | None
    problems: list[Problem]
    broken: bool = False
    more: bool = False


class _Refused(Exception):
    """The file can't be read any further."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message, line)
        self.message = message
        self.line = line


def parse_document(text: str, file: str) -> Document:
    """Read the first document of ``text``; ``file`` stands in the problems. Never raises for what is in the text."""
    builder = _Builder(file)
    try:
        root = builder.read(yaml.parse(text, Loader=_READER))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        column = f" (column {mark.column + 1})" if mark else ""
        return _broken(file, f"not valid YAML: {what}{column}", mark.line + 1 if mark else 0)
    except yaml.reader.ReaderError as error:
        line = text.encode()[: error.position].count(b"\n") + 1
        return _broken(file, f"not valid YAML: {error.reason} (character 0x{_code(error.character):02x})", line)
    except _Refused as refused:
        return _broken(file, refused.message, refused.line)
    return Document(root, builder.problems, more=builder.more)


def parse_bytes(content: bytes, file: str) -> Document:
    """``parse_document`` for the content of a file: UTF-8, within the limit of size."""
    if len(content) > MAX_FILE:
        return _broken(file, f"file of {len(content)} bytes is over the limit of {MAX_FILE} bytes; split it", 0)
    try:
        return parse_document(content.decode("utf-8-sig"), file)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return _broken(file, f"expected UTF-8 text, got byte 0x{content[error.start]:02x}", line)


def _broken(file: str, message: str, line: int) -> Document:
    return Document(None, [Problem(message, file=file, line=line)], broken=True)


class _Builder:
    """Builds nodes from parser events; holds anchors and the problems met on the way."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._anchors: dict[str, Node] = {}
        self._events: Iterator[Any] = iter(())
        self.problems: list[Problem] = []
        self.more = False

    def read(self, stream: Iterator[Any]) -> Node | None:
        self._events = stream
        root: Node | None = None
        for event in stream:
            if isinstance(event, events.DocumentStartEvent):
                if root is not None:
                    self.more = True
                    break
                root = self._node(next(stream), 0)
        return root

    def _node(self, event: Any, depth: int) -> Node:
        line = event.start_mark.line + 1
        if isinstance(event, events.AliasEvent):
            known: Node | None = self._anchors.get(str(event.anchor))
            if known is None:
                raise _Refused(f"alias *{event.anchor} names no anchor that was complete before it", line)
            return known
        if depth > MAX_DEPTH:
            raise _Refused(f"nested deeper than {MAX_DEPTH} levels", line)
        if isinstance(event, events.MappingStartEvent):
            node = self._mapping(line, depth)
        elif isinstance(event, events.SequenceStartEvent):
            node = self._sequence(line, depth)
        else:
            node = self._scalar(event, line)
        if node.size > MAX_NODES:
            raise _Refused(f"more than {MAX_NODES} values once aliases are expanded", line)
        if not isinstance(event, events.ScalarEvent):
            self._check_tag(event, line, "map" if isinstance(event, events.MappingStartEvent) else "seq")
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _sequence(self, line: int, depth: int) -> Node:
        items: list[Node] = []
        node = Node(items, line)
        while not isinstance(event := next(self._events), events.SequenceEndEvent):
            items.append(self._grow(node, self._node(event, depth + 1)))
        return node

    def _mapping(self, line: int, depth: int) -> Node:
        node = Node({}, line)
        merged: list[Node] = []
        while not isinstance(event := next(self._events), events.MappingEndEvent):
            key_line = event.start_mark.line + 1
            name = self._key(event, depth)
            value = self._grow(node, self._node(next(self._events), depth + 1))
            if name is None:
                continue
            if name == _MERGE and _is_plain(event):
                merged.append(value)
            elif name in node.value:
                self._complain(f"key {name!r} is given twice, first on line {node.keys[name]}", key_line)
            else:
                node.value[name] = value
                node.keys[name] = key_line
        for value in merged:
            self._merge(node, value)
        return node

    def _grow(self, node: Node, child: Node) -> Node:
        node.size += child.size
        if node.size > MAX_NODES:
            raise _Refused(f"more than {MAX_NODES} values once aliases are expanded", node.line)
        return child

    def _key(self, event: Any, depth: int) -> str | None:
        if isinstance(event, events.ScalarEvent):
            return str(event.value)
        node = self._node(event, depth + 1)
        if isinstance(event, events.AliasEvent) and isinstance(node.value, str):
            return node.value
        self._complain("expected a text as key, got a list or mapping", node.line)
        return None

    def _merge(self, node: Node, source: Node) -> None:
        parts = source.value if isinstance(source.value, list) else [source]
        for part in parts:
            if not isinstance(part.value, dict):
                self._complain("expected a mapping after <<", source.line)
                return
            for name, value in part.value.items():
                if name not in node.value:
                    node.value[name] = value
                    node.keys[name] = part.keys.get(name, value.line)

    def _scalar(self, event: Any, line: int) -> Node:
        text: str = event.value
        tag: str | None = event.tag
        if tag is None and _is_plain(event):
            return Node(self._plain(text, line), line)
        if tag in (None, "!", f"{_TAG}str"):
            return Node(text, line, block=event.style == "|")
        if tag in (f"{_TAG}int", f"{_TAG}float", f"{_TAG}bool", f"{_TAG}null"):
            return Node(self._plain(text, line), line)
        self._check_tag(event, line, "")
        return Node(text, line)

    def _check_tag(self, event: Any, line: int, allowed: str) -> None:
        if event.tag not in (None, "!", _TAG + allowed):
            self._complain(f"tag {event.tag} is not supported; plain values only", line)

    def _plain(self, text: str, line: int) -> Any:
        if text in _WORDS:
            return _WORDS[text]
        if text[0] not in "+-.0123456789":
            return text
        number = _number(text)
        if isinstance(number, int) and not -(2**63) <= number < 2**63:
            self._complain(f"number {text} does not fit 64 bits; quote it to keep it as text", line)
        if isinstance(number, float) and number in (float("inf"), float("-inf")):
            self._complain(f"number {text} is out of range; quote it to keep it as text", line)
        return text if number is None else number

    def _complain(self, message: str, line: int) -> None:
        self.problems.append(Problem(message, file=self._file, line=line))


def _is_plain(event: Any) -> bool:
    """Whether a scalar stands without quotes; the two parsers of the library say it differently."""
    return not event.style


def _code(character: Any) -> int:
    return character if isinstance(character, int) else ord(character)


def _number(text: str) -> int | float | None:
    if octal := _OCTAL.fullmatch(text):
        return int(octal[1], 8)
    if _INT.fullmatch(text):
        # a text of thousands of digits would be refused by int(); it is out of range anyway
        return int(text) if len(text) < 40 else 2**64
    if hexadecimal := _HEX.fullmatch(text):
        return int(hexadecimal[1], 16)
    return float(text) if _FLOAT.fullmatch(text) else None
