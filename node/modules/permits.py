"""Which namespaces of the registry the programs of a host may change, and on which hosts they may move processes.

A rule stands on the host's entry (``registry.write``, ``processes.move``); hosts without one, and the node's own,
have the node's default, the setting of that name. A function called by a process runs where its caller runs, under
the same rule. An attempt beyond the rule is refused with the reason and logged.

It keeps programs from changing what is not theirs; it is no wall against a program that may
start others on a host with a wider rule, or may change the namespace its own host is in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Rule:
    """One of the rules. ``name`` is what it is called on an entry and in the settings, ``deed`` what it permits."""

    name: str
    deed: str
    of: Callable[[ProcessHost | TerminalHost], Sequence[str] | None]

    def why(self, host: str, written: Sequence[str] | None, allowed: Sequence[str]) -> str:
        """Where it stands, and what to do."""
        if written is not None:
            said = ", ".join(written) or "nothing"
            return f"{self.name} of the entry {host} allows {said}; add the namespace there"
        said = f"allows {', '.join(allowed)}" if allowed else "allows nothing, as is the default with external servers"
        no_rule = f"the entry {host} has no {self.name}, and the setting {self.name} {said}"
        return f"{no_rule}; name the namespace in either"


WRITE = Rule("registry.write", "change", lambda host: host.registry.write)
MOVE = Rule("processes.move", "move processes on hosts of", lambda host: host.processes.move)


class Permits:
    """``entry`` gives a host's entry, None for the node's own host; ``default`` are patterns of namespaces."""

    def __init__(
        self,
        entry: Callable[[str], Entry | None],
        env: Callable[[str], str | None],
        default: Sequence[str],
        rule: Rule = WRITE,
    ) -> None:
        self._entry = entry
        self._env = env
        self._default = tuple(default)
        self._rule = rule

    def check(self, caller: Caller, ids: Iterable[str]) -> None:
        """Raises LuaError (PermissionDenied) unless the caller may do that to all of these entries."""
        host = caller.vm.host_id
        written, problem = self._written(host)
        allowed = self._default if written is None else tuple(written)
        patterns = [Pattern(text) for text in allowed]
        refused = sorted(id for id in ids if not any(pattern.matches(id.partition(":")[0]) for pattern in patterns))
        if not refused:
            return
        namespaces = sorted({id.partition(":")[0] for id in refused})
        log.warning(
            "what a program may not do is refused",
            rule=self._rule.name,
            pid=caller.pid_text,
            entry=caller.entry,
            host=host,
            namespaces=namespaces,
            entries=refused[:SHOWN],
            allowed=list(allowed),
        )
        details = {"host": host, "namespaces": namespaces, "allowed": list(allowed)}
        why = problem or self._rule.why(host, written, allowed)
        message = f"programs on {host} may not {self._rule.deed} {', '.join(namespaces)}: {why}"
        raise LuaError("PermissionDenied", message, retryable=False, details=details)

    def _written(self, host: str) -> tuple[Sequence[str] | None, str]:
        """What the host's entry says, None when it says nothing; and why it can't be read."""
        entry = self._entry(host)
        if entry is None:
            return None, ""
        try:
            model = decode(entry, self._env)
        except Invalid as error:
            return [], f"the entry {host} can't be used: {error}"
        return (self._rule.of(model) if isinstance(model, ProcessHost | TerminalHost) else None), ""
