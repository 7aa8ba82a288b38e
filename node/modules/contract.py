"""What a Lua module's Python half is, and what it may see of its caller.

A module is an object with a ``name`` and a ``call``; ``cast`` takes what wants no answer.
A handler that can answer at once returns a list of values, one that has to wait returns
an awaitable of it: the dispatcher runs that as a task with a deadline. Expected failures
are raised as ``LuaError``, which the Lua caller gets as ``nil, err``.

A stream is a channel in a process that Python pushes values into. It ends when either
side closes it, and with the process that opened it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeAlias, runtime_checkable

from cluster.envelope import error_map, to_raw

PUSH, END = 41, 42

Values: TypeAlias = list[Any]
Answer: TypeAlias = "Values | Awaitable[Values]"


class LuaError(Exception):
    """An expected failure, as the Lua caller sees it.

    ``kind`` is one of the CamelCase kinds of ``errors`` ("NotFound", "Invalid", ...); ``details`` plain data.
    """

    def __init__(self, kind: str, message: str, *, retryable: bool | None = None, details: Any = None) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message
        self.retryable = retryable
        self.details = details

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"

    def as_map(self) -> dict[bytes, Any]:
        """The error map of the VM boundary."""
        return error_map(self.kind, self.message, retryable=self.retryable, details=to_raw(self.details))


def invalid(message: str, details: Any = None) -> LuaError:
    """Bad input of the caller: repeating it can't help."""
    return LuaError("Invalid", message, retryable=False, details=details)


def not_found(message: str) -> LuaError:
    return LuaError("NotFound", message, retryable=False)


def unavailable(message: str, *, retryable: bool = True) -> LuaError:
    return LuaError("Unavailable", message, retryable=retryable)


class Vm(Protocol):
    """What modules need of a Lua VM."""

    @property
    def slot(self) -> int:
        """Its number in the node; part of every PID it hands out."""

    @property
    def host_id(self) -> str:
        """The entry of the host it runs."""

    def post(self, item: list[Any]) -> None:
        """Hand an item to the kernel; loop thread only, never blocks."""


class Stream:
    """The Python end of a channel in a process. ``push`` and ``end`` never block."""

    __slots__ = ("_on_end", "_vm", "id", "open")

    def __init__(self, vm: Vm, number: int) -> None:
        self._vm = vm
        self._on_end: list[Callable[[], None]] = []
        self.id = number
        self.open = True

    def push(self, value: Any) -> None:
        """Send one value (texts as bytes) to the process; nothing happens once the stream ended."""
        if self.open:
            self._vm.post([PUSH, self.id, value])

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call back once when the stream ends, by whichever side; at once when it ended already."""
        if self.open:
            self._on_end.append(callback)
        else:
            callback()

    def end(self) -> None:
        """Close the channel in the process."""
        if self.open:
            self._vm.post([END, self.id])
            self.closed()

    def closed(self) -> None:
        """The process closed it or ended: only tell our side."""
        if not self.open:
            return
        self.open = False
        callbacks, self._on_end = self._on_end, []
        for callback in callbacks:
            callback()


class Streams(Protocol):
    """Where a caller's streams are kept until its process ends."""

    def opened(self, caller: Caller, number: int) -> Stream:
        """Keep the stream the kernel opened under ``number``."""

    def find(self, caller: Caller, number: int) -> Stream | None:
        """The open stream of that number, if this process owns it."""

    def run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run what a stream's end leaves to do; the dispatcher owns it."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a process (or function frame) in a VM of this node."""

    pid: bytes
    entry: str
    vm: Vm
    streams: Streams

    @property
    def pid_text(self) -> str:
        return self.pid.decode("utf-8", "surrogateescape")


@runtime_checkable
class Module(Protocol):
    """The Python half of one Lua module."""

    @property
    def name(self) -> str:
        """The name in ``require`` and at the VM boundary."""

    @property
    def deadlines(self) -> Mapping[str, timedelta | None]:
        """Functions that don't have the default deadline; None waits as long as the caller lives."""

    def call(self, caller: Caller, fn: str, args: Values) -> Answer:
        """Do ``fn`` and give its values. Raises LuaError."""

    def cast(self, caller: Caller, fn: str, args: Values) -> None:
        """Do ``fn``; nobody waits for it."""


def text(value: Any, what: str) -> str:
    """A Lua string argument as str (binary survives). Raises LuaError Invalid when it is no string or empty."""
    if not isinstance(value, bytes):
        raise invalid(f"{what}: expected a string, got {lua_type(value)}")
    if not value:
        raise invalid(f"{what}: expected a string of at least one character, got an empty one")
    return value.decode("utf-8", "surrogateescape")


def lua_type(value: Any) -> str:
    """How Lua would call the type of ``value``."""
    match value:
        case None:
            return "nil"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case bytes() | str():
            return "string"
        case _:
            return "table"


def argument(args: Values, position: int) -> Any:
    """The argument at ``position``, None where the caller gave fewer."""
    return args[position] if position < len(args) else None
