"""A query of a client: a map with ``op`` and fields, each checked where it is read."""

from __future__ import annotations

from typing import Any, TypeAlias

from cluster.envelope import to_raw
from cluster.errors import ClusterError

DEFAULT_TIMEOUT = 5.0
MAX_TIMEOUT = 300.0
Query: TypeAlias = dict[str, Any]


class BadQuery(ClusterError, ValueError):
    """A query that lacks something or asks for nothing known."""


class NotFound(ClusterError):
    """What the query names is not there."""


def text_of(query: Query, field: str) -> str:
    value = query.get(field)
    if not isinstance(value, str) or not value:
        raise BadQuery(f"op {query['op']!r} expects a text field {field!r}, got {value!r}")
    return value


def topic_of(query: Query) -> str:
    topic = text_of(query, "topic")
    if topic.startswith("@"):
        raise BadQuery(f"topic {topic!r} is reserved: topics of messages can't start with '@'")
    return topic


def args_of(query: Query) -> list[Any]:
    args = query.get("args", [])
    if not isinstance(args, list):
        raise BadQuery(f"op {query['op']!r} expects a list 'args', got {args!r}")
    raw: list[Any] = to_raw(args)
    return raw


def timeout_of(query: Query) -> float:
    timeout = query.get("timeout") or DEFAULT_TIMEOUT
    if not isinstance(timeout, int | float):
        raise BadQuery(f"expected a timeout in seconds, got {timeout!r}")
    if not 0 < timeout <= MAX_TIMEOUT:
        raise BadQuery(f"expected a timeout of 0 to {MAX_TIMEOUT:g} seconds, got {timeout:g}")
    return timeout
