"""What an operator asks of this node: to take nothing new, to take work again, other labels, a service released.

Each changes what the cluster knows of the node, or of a service, in etcd; nothing that runs is touched here. The
answer comes when etcd has it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.members import NodeState
from node.query import BadQuery, NotFound, Query, text_of

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")
_LONGEST_VALUE = 255


@dataclass(frozen=True)
class Operated:
    """The node, as far as an operator may change it."""

    state: Callable[[], NodeState]
    cordon: Callable[[], Awaitable[None]]
    uncordon: Callable[[], Awaitable[None]]
    label: Callable[[Mapping[str, str | None]], Awaitable[Mapping[str, str]]]
    """Set labels, or with None take them away; those it has then."""
    knows: Callable[[str], bool]
    """Whether a service of that id is known here."""
    release: Callable[[str], Awaitable[bool]]


class Operating:
    """The operator's queries."""

    def __init__(self, node: str, operated: Operated) -> None:
        self._node = node
        self._operated = operated

    async def cordon(self, query: Query) -> Any:
        state = self._operated.state()
        if state not in (NodeState.READY, NodeState.CORDONED):
            raise BadQuery(f"node {self._node} is {state.value}: only a node that is ready can be cordoned")
        await self._operated.cordon()
        return self._told()

    async def uncordon(self, query: Query) -> Any:
        state = self._operated.state()
        if state not in (NodeState.READY, NodeState.CORDONED):
            raise BadQuery(f"node {self._node} is {state.value}: only a node that is cordoned can take work again")
        await self._operated.uncordon()
        return self._told()

    async def label(self, query: Query) -> Any:
        changes = query.get("labels")
        if not isinstance(changes, dict) or not changes:
            raise BadQuery(f"op 'label' expects a map 'labels' with at least one label, got {changes!r}")
        for name, value in changes.items():
            _check_label(name, value)
        return {"node": self._node, "labels": dict(await self._operated.label(changes))}

    async def release(self, query: Query) -> Any:
        service = text_of(query, "service")
        released = await self._operated.release(service)
        if not released and not self._operated.knows(service):
            raise NotFound(f"no service {service!r} is known to node {self._node}, and nothing is held against one")
        return {"service": service, "released": released}

    def _told(self) -> dict[str, str]:
        return {"node": self._node, "state": self._operated.state().value}


def _check_label(name: object, value: object) -> None:
    if not isinstance(name, str) or not _LABEL.fullmatch(name):
        form = "1 to 63 letters, digits and ._/- that begin with a letter or digit"
        raise BadQuery(f"expected the name of a label, {form}, got {name!r}")
    if value is not None and not (isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST_VALUE):
        form = f"a printable text of at most {_LONGEST_VALUE} characters"
        raise BadQuery(f"expected {form} as the value of label {name}, got {value!r}")
