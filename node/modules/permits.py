"""Which namespaces of the registry the programs of a host may change.

The rule stands on the host's entry (``registry.write``); hosts without one, and the node's own,
have the node's default. A function called by a process runs where its caller runs, under the
same rule. An attempt beyond the rule is refused with the reason and logged.

It keeps programs from changing what is not theirs; it is no wall against a program that may
start others on a host with a wider rule, or may change the namespace its own host is in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import structlog

from cluster.errors import Invalid
from cluster.patterns import Pattern
from cluster.registry import Entry
from node.kinds import decode
from node.kinds.hosts import ProcessHost, TerminalHost
from node.modules.contract import Caller, LuaError

log = structlog.get_logger("wippy.lua")

EVERY_NAMESPACE = ("**",)
SHOWN = 10


class Permits:
    """``entry`` gives a host's entry, None for the node's own host; ``default`` are patterns of namespaces."""

    def __init__(
        self, entry: Callable[[str], Entry | None], env: Callable[[str], str | None], default: Sequence[str]
    ) -> None:
        self._entry = entry
        self._env = env
        self._default = tuple(default)

    def check(self, caller: Caller, ids: Iterable[str]) -> None:
        """Raises LuaError (PermissionDenied) unless the caller may change all of these entries."""
        host = caller.vm.host_id
        written, problem = self._rule(host)
        allowed = self._default if written is None else tuple(written)
        patterns = [Pattern(text) for text in allowed]
        refused = sorted(id for id in ids if not any(pattern.matches(id.partition(":")[0]) for pattern in patterns))
        if not refused:
            return
        namespaces = sorted({id.partition(":")[0] for id in refused})
        log.warning(
            "a change of the registry is refused",
            pid=caller.pid_text,
            entry=caller.entry,
            host=host,
            namespaces=namespaces,
            entries=refused[:SHOWN],
            allowed=list(allowed),
        )
        details = {"host": host, "namespaces": namespaces, "allowed": list(allowed)}
        message = (
            f"programs on {host} may not change {', '.join(namespaces)}: {problem or _why(host, written, allowed)}"
        )
        raise LuaError("PermissionDenied", message, retryable=False, details=details)

    def _rule(self, host: str) -> tuple[list[str] | None, str]:
        """What the host's entry says, None when it says nothing; and why it can't be read."""
        entry = self._entry(host)
        if entry is None:
            return None, ""
        try:
            model = decode(entry, self._env)
        except Invalid as error:
            return [], f"the entry {host} can't be used: {error}"
        return (model.registry.write if isinstance(model, ProcessHost | TerminalHost) else None), ""


def _why(host: str, written: Sequence[str] | None, allowed: Sequence[str]) -> str:
    """Where the rule stands, and what to do."""
    if written is not None:
        said = ", ".join(written) or "nothing"
        return f"registry.write of the entry {host} allows {said}; add the namespace there"
    said = f"allows {', '.join(allowed)}" if allowed else "allows nothing, as is the default with external servers"
    return (
        f"the entry {host} has no registry.write, and the setting registry.write {said}; name the namespace in either"
    )
