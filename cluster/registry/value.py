"""JSON-like values, the only content an entry may have.

``None``, ``bool``, ``int`` (64 bit), finite ``float``, ``str``, ``list`` and ``dict`` with text
keys: what Lua, YAML, JSON and etcd all carry without loss. ``flaw`` names the first place that
is something else; ``canonical`` gives the one byte form that is hashed and stored. Values are
shared between versions of the registry, so nobody may change one after it went into an entry.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

MAX_DEPTH = 64
MAX_NODES = 1_000_000
_DECODER = json.JSONDecoder()
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1


class _Flaw(Exception):
    pass


def flaw(value: Any) -> str:
    """What is wrong with ``value`` as a JSON-like value, with the path to it; empty when nothing is."""
    try:
        _visit(value, "", 0, [MAX_NODES])
    except _Flaw as found:
        return str(found)
    return ""


def _visit(value: Any, path: str, depth: int, budget: list[int]) -> None:
    budget[0] -= 1
    if budget[0] < 0:
        raise _Flaw(f"more than {MAX_NODES} values in one entry")
    if depth > MAX_DEPTH:
        raise _Flaw(f"{path[:80]}: nested deeper than {MAX_DEPTH} levels")
    match value:
        case None | bool():
            pass
        case int():
            if not _SMALLEST <= value <= _LARGEST:
                raise _Flaw(f"{path or 'value'}: integer outside 64 bits")
        case float():
            if not math.isfinite(value):
                raise _Flaw(f"{path or 'value'}: {value} is not a finite number")
        case str():
            if not _is_utf8(value):
                raise _Flaw(f"{path or 'value'}: text that is not valid UTF-8")
        case list():
            for position, item in enumerate(value):
                _visit(item, f"{path}[{position}]", depth + 1, budget)
        case dict():
            for key, item in value.items():
                if not isinstance(key, str) or not _is_utf8(key):
                    raise _Flaw(f"{path or 'value'}: expected text keys, got {key!r}")
                _visit(item, f"{path}.{key}" if path else key, depth + 1, budget)
        case _:
            raise _Flaw(f"{path or 'value'}: {type(value).__name__} is not a JSON value")


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def same(left: Any, right: Any) -> bool:
    """Equality that tells ``1``, ``1.0`` and ``True`` apart, as JSON does and Python does not."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(item, right[key]) for key, item in left.items())
    if isinstance(left, list):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    return bool(left == right)


def outweighs(values: Iterable[Any], limit: int) -> bool:
    """Whether the JSON text of ``values`` is longer than about ``limit`` bytes; looks no further than it must."""
    waiting = list(values)
    while waiting and limit >= 0:
        limit -= 8
        match waiting.pop():
            case str() as text:
                limit -= len(text)
            case list() as items:
                waiting += items
            case dict() as mapping:
                waiting += mapping.values()
    return limit < 0


def canonical(value: Any) -> bytes:
    """The one JSON text of ``value``: keys sorted, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def canonical_list(name: str, items: Iterable[Any], others: Mapping[str, Any] = MappingProxyType({})) -> bytes:
    """``canonical`` of a map whose first key is ``name``, a list; made item by item, so that other threads run
    in between. The keys of ``others`` sort after ``name``."""
    listed = b",".join([canonical(item) for item in items])
    rest = b"".join([b"," + canonical({key: others[key]})[1:-1] for key in sorted(others)])
    return b"{" + canonical(name) + b":[" + listed + b"]" + rest + b"}"


def parse_list(raw: bytes, name: str) -> Any:
    """``parse`` of what ``canonical_list`` makes, item by item; another form in one go. Raises ValueError."""
    try:
        return _parse_items(raw.decode(), f'{{"{name}":[', name)
    except (ValueError, RecursionError):
        return parse(raw)


def _parse_items(text: str, opening: str, name: str) -> Any:
    if not text.startswith(opening):
        raise ValueError("another form")
    items, at = [], len(opening) - 1
    while text.startswith((",", "["), at):
        item, at = _DECODER.raw_decode(text, at + 1)
        items.append(item)
    if not text.startswith("]", at):
        raise ValueError(f"expected ',' or ']' at character {at}")
    rest = text[at + 1 :].removeprefix(",")
    return {name: items} | parse(f"{{{rest}".encode())


def parse(raw: bytes) -> Any:
    """The value in a JSON text. Raises ValueError on anything that is none, however it is broken."""
    try:
        return json.loads(raw)
    except RecursionError:
        raise ValueError("nested too deeply") from None
