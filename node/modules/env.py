"""Module ``env``: the declared environment variables, by public name or entry id.

Reads and writes the node's env registry (``node.env``). A value set here stays on this node,
in the storage the variable names; nothing reaches the environment of the operating system.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from node.env import EnvError, EnvRegistry
from node.modules.contract import Answer, Caller, LuaError, Values, argument, invalid, lua_type, text


class EnvModule:
    """Python half of ``env``."""

    name = "env"
    deadlines: Mapping[str, timedelta | None] = {}

    def __init__(self, registry: EnvRegistry) -> None:
        self._registry = registry

    def call(self, caller: Caller, fn: str, args: Values) -> Answer:
        try:
            match fn:
                case "get":
                    return [self._registry.get(text(argument(args, 0), "name"))]
                case "set":
                    return self._set(args)
                case "get_all":
                    return [self._registry.get_all()]
                case _:
                    raise invalid(f"env has no function {fn!r}")
        except EnvError as error:
            raise LuaError(error.kind, str(error), retryable=error.kind == "Unavailable") from None

    def cast(self, caller: Caller, fn: str, args: Values) -> None:
        raise invalid(f"env.{fn} wants an answer")

    def _set(self, args: Values) -> Values:
        name, value = text(argument(args, 0), "name"), argument(args, 1)
        if not isinstance(value, bytes):
            raise invalid(f"value of {name}: expected a string, got {lua_type(value)}")
        self._registry.set(name, value.decode("utf-8", "surrogateescape"))
        return [True]
