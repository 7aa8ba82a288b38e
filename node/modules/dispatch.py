"""The dispatcher: runs what processes ask of modules and posts the answers back.

It takes the operation items of the VM boundary ([50], [51], [53], [56], [58]) on the loop thread.
A handler that answers at once costs no task; one that waits runs as an owned task with a
deadline (30 s unless the module says otherwise) and is cancelled when its caller dies.

Values may hold texts as str: the boundary encodes them, in the VM's thread.

Every operation is answered exactly once: with values, an error of the module, a Timeout,
or Internal when the handler broke (which is logged with its trace) - or not at all, when
the VM took the question back.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Awaitable, Coroutine, Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from types import TracebackType
from typing import Any, Self

import structlog

from cluster.errors import CallTimeout, MessageTooBig, NotConnected, OutcomeUnknown, Unavailable
from cluster.tasks import Tasks
from node.modules.contract import Answer, Caller, LuaError, Module, Stream, Values, Vm

log = structlog.get_logger("wippy.modules")


class Item(IntEnum):
    """The items of the VM boundary that concern modules."""

    RESULT = 40
    CALL = 50
    CAST = 51
    ENDED = 53
    UPGRADED = 58
    CANCEL = 56


DEADLINE = timedelta(seconds=30)
MAX_WAITING = 10_000
"""Operations of one VM that may wait at a time."""
MAX_STREAMS = 1_000
"""Open streams of one process."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the start; ``waiting`` and ``streams`` are of now."""

    calls: int
    casts: int
    failed: int
    broken: int
    waiting: int
    streams: int


class Dispatcher:
    """Runs the modules of one node for all its VMs. ``async with`` ends what still runs."""

    def __init__(self, modules: Iterable[Module], *, deadline: timedelta = DEADLINE) -> None:
        self._modules = {module.name.encode(): module for module in modules}
        self._deadline = deadline
        self._tasks = Tasks("modules")
        self._waiting: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._streams: dict[tuple[int, bytes], dict[int, Stream]] = {}
        self._asked: Counter[int] = Counter()
        self._counts: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for owner in list(self._streams):
            self._end_streams(owner)
        await self._tasks.close()

    def take(self, vm: Vm, item: list[Any]) -> None:
        """Handle one item of the boundary that is for modules."""
        match item[0]:
            case Item.CALL:
                _, opid, pid, entry, module, fn, args = item
                self._call(vm, opid, pid, entry, module, fn, args)
            case Item.CAST:
                _, pid, entry, module, fn, args = item
                self._cast(vm, pid, entry, module, fn, args)
            case Item.ENDED | Item.UPGRADED:
                self.process_ended(vm, item[1])
            case Item.CANCEL:
                self._cancel(vm, item[1])
            case _:
                log.error("item is not for modules", item=item[0], slot=vm.slot)

    def process_ended(self, vm: Vm, pid: bytes) -> None:
        """The process is gone: its streams end."""
        self._end_streams((vm.slot, pid))

    def vm_ended(self, vm: Vm) -> None:
        """The VM is gone: everything it asked and every stream into it ends."""
        for owner in [owner for owner in self._streams if owner[0] == vm.slot]:
            self._end_streams(owner)
        for _, opid in [key for key in self._waiting if key[0] == vm.slot]:
            self._cancel(vm, opid)

    def opened(self, caller: Caller, number: int) -> Stream:
        """Keep the stream the kernel opened under ``number`` (see ``contract.Streams``)."""
        owner = (caller.vm.slot, caller.pid)
        streams = self._streams.setdefault(owner, {})
        if len(streams) >= MAX_STREAMS:
            raise LuaError(
                "RateLimited", f"{caller.pid_text} has {MAX_STREAMS} open streams; close some", retryable=True
            )
        stream = streams[number] = Stream(caller.vm, number)
        stream.on_end(lambda: self._forget(owner, number))
        return stream

    def find(self, caller: Caller, number: int) -> Stream | None:
        return self._streams.get((caller.vm.slot, caller.pid), {}).get(number)

    def run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.start(work, name)

    def stats(self) -> Stats:
        counts = self._counts
        streams = sum(len(of_vm) for of_vm in self._streams.values())
        return Stats(counts["calls"], counts["casts"], counts["failed"], counts["broken"], len(self._waiting), streams)

    def _call(self, vm: Vm, opid: int, pid: bytes, entry: bytes, name: bytes, fn: bytes, args: Values) -> None:
        self._counts["calls"] += 1
        module = self._modules.get(name)
        if module is None:
            self._refuse(vm, opid, _unknown(name))
            return
        caller = Caller(pid, entry.decode("utf-8", "surrogateescape"), vm, self)
        function = fn.decode("utf-8", "surrogateescape")
        try:
            answer = module.call(caller, function, args)
        except Exception as error:  # noqa: BLE001 - whatever broke, the caller is answered and the log has the trace
            self._refuse(vm, opid, self._failure(error, module, function, caller))
            return
        if isinstance(answer, list):
            self._post(vm, opid, answer)
            return
        key = (vm.slot, opid)
        if self._asked[vm.slot] >= MAX_WAITING:
            _close(answer)
            message = f"{MAX_WAITING} operations of this host are waiting already; let some finish first"
            self._refuse(vm, opid, LuaError("RateLimited", message, retryable=True))
            return
        task = self._tasks.start(self._finish(key, answer, module, function, caller), f"{module.name}.{function}")
        task.add_done_callback(lambda _: _close(answer))  # a task cancelled before its first step never awaits it
        self._waiting[key] = task
        self._asked[vm.slot] += 1

    async def _finish(
        self, key: tuple[int, int], answer: Awaitable[Values], module: Module, fn: str, caller: Caller
    ) -> None:
        deadline = module.deadlines.get(fn, self._deadline)
        try:
            async with asyncio.timeout(deadline.total_seconds() if deadline is not None else None):
                values = await answer
        except Exception as error:  # noqa: BLE001 - as in _call
            self._settle(key, caller.vm, self._failure(error, module, fn, caller))
        else:
            self._settle(key, caller.vm, values)

    def _settle(self, key: tuple[int, int], vm: Vm, outcome: Values | LuaError) -> None:
        if self._taken(key) is None:
            return
        if isinstance(outcome, LuaError):
            self._refuse(vm, key[1], outcome)
        else:
            self._post(vm, key[1], outcome)

    def _cast(self, vm: Vm, pid: bytes, entry: bytes, name: bytes, fn: bytes, args: Values) -> None:
        self._counts["casts"] += 1
        module = self._modules.get(name)
        caller = Caller(pid, entry.decode("utf-8", "surrogateescape"), vm, self)
        function = fn.decode("utf-8", "surrogateescape")
        if module is None:
            log.error("cast failed", error=str(_unknown(name)), pid=caller.pid_text)
            return
        try:
            module.cast(caller, function, args)
        except LuaError as error:
            log.warning("cast refused", module=module.name, fn=function, pid=caller.pid_text, error=str(error))
        except Exception:
            self._counts["broken"] += 1
            log.exception("cast failed", module=module.name, fn=function, pid=caller.pid_text, entry=caller.entry)

    def _cancel(self, vm: Vm, opid: int) -> None:
        task = self._taken((vm.slot, opid))
        if task is not None:
            task.cancel()

    def _taken(self, key: tuple[int, int]) -> asyncio.Task[None] | None:
        """The task of an operation, which from now on counts as answered."""
        task = self._waiting.pop(key, None)
        if task is not None:
            self._asked[key[0]] -= 1
        return task

    def _failure(self, error: Exception, module: Module, fn: str, caller: Caller) -> LuaError:
        where = f"{module.name}.{fn}"
        match error:
            case LuaError():
                return error
            case CallTimeout():
                return LuaError("Timeout", f"{where}: {error}", retryable=True)
            case TimeoutError():
                waited = module.deadlines.get(fn) or self._deadline
                return LuaError("Timeout", f"{where}: no answer within {waited.total_seconds():g} s", retryable=True)
            case OutcomeUnknown():
                return LuaError("Timeout", f"{where}: {error}", retryable=False, details={"outcome": "unknown"})
            case Unavailable() | NotConnected():
                return LuaError("Unavailable", f"{where}: {error}", retryable=True)
            case MessageTooBig():
                return LuaError("Invalid", f"{where}: {error}", retryable=False)
            case _:
                self._counts["broken"] += 1
                log.error("module failed", where=where, pid=caller.pid_text, entry=caller.entry, exc_info=error)
                message = f"{where} failed: {type(error).__name__}: {error}; the node's log has the trace"
                return LuaError("Internal", message, retryable=False)

    def _refuse(self, vm: Vm, opid: int, error: LuaError) -> None:
        self._counts["failed"] += 1
        vm.post([int(Item.RESULT), opid, error.as_map(), []])

    def _post(self, vm: Vm, opid: int, values: Values) -> None:
        vm.post([int(Item.RESULT), opid, None, values])

    def _end_streams(self, owner: tuple[int, bytes]) -> None:
        for stream in list(self._streams.get(owner, {}).values()):
            stream.closed()

    def _forget(self, owner: tuple[int, bytes], number: int) -> None:
        streams = self._streams.get(owner, {})
        streams.pop(number, None)
        if not streams:
            self._streams.pop(owner, None)


def _close(answer: Answer) -> None:
    if inspect.iscoroutine(answer):
        answer.close()


def _unknown(name: bytes) -> LuaError:
    return LuaError("Unavailable", f"this node has no module {name.decode('utf-8', 'replace')!r}", retryable=False)
