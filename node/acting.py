"""Clients' queries that act on processes: send, call, spawn, cancel, terminate.

They are turned into envelopes, so they take the same path and order as everybody's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from cluster.envelope import Kind, Status, to_raw
from cluster.errors import CallTimeout
from cluster.names import Names
from cluster.pid import Pid, host_address, is_pid
from cluster.tasks import Tasks
from node.ports import Exit, Port, Ports, Refused
from node.query import NotFound, Query, args_of, text_of, timeout_of, topic_of

log = structlog.get_logger("wippy.admin")

NAME_MOVES = 2.0
"""Seconds a query waits until the names here are as new as those of a node that says a name is another's."""
SYSTEM_HOST = "node:system"


class Acting:
    """Each operation opens a port, which is who the processes see."""

    def __init__(
        self, node: str, ports: Ports, names: Names, tasks: Tasks, applied: Callable[[int, float], Awaitable[None]]
    ) -> None:
        self._node = node
        self._ports = ports
        self._names = names
        self._tasks = tasks
        self._applied = applied

    async def send(self, query: Query) -> Any:
        port = self._ports.open("node:client")
        try:
            return {"pid": (await self._deliver(port, query, timeout_of(query))).decode()}
        finally:
            port.close()

    async def call(self, query: Query) -> Any:
        timeout = timeout_of(query)
        port = self._ports.open("node:client")
        failed: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        port.on_exit = lambda ended: _note_failure(failed, ended)
        pid, watching = b"", None
        try:
            try:
                async with asyncio.timeout(timeout):
                    pid = await self._deliver(port, query, timeout)
                    watching = self._tasks.start(_watch(port, pid, timeout), "watch callee")
                    sender, topic, reply = await _first_reply(port, failed)
            except TimeoutError:
                raise CallTimeout(f"call to {query['to']}", timeout) from None
            return {"pid": pid, "from": sender, "topic": topic, "payloads": reply}
        finally:
            if watching is not None:  # else each call would leave a watcher with the callee, which it takes along
                watching.cancel()
                port.cast([int(Kind.UNMONITOR), pid, port.pid, 0])
            port.close()

    async def _deliver(self, port: Port, query: Query, timeout: float) -> bytes:
        """Send the query's message; the PID that accepted it. A name that changes hands is resolved once more."""
        to, topic = text_of(query, "to"), topic_of(query)
        payloads = [to_raw(query["payload"])] if "payload" in query else []
        pid, name, revision = self._resolve(to)
        try:
            await port.send(pid, topic, payloads, timeout=timeout, name=name, revision=revision)
        except Refused as error:
            if error.status is not Status.STALE_NAME:
                raise
            await self._applied(_revision_in(error), min(NAME_MOVES, timeout))
            pid, name, revision = self._resolve(to)
            await port.send(pid, topic, payloads, timeout=timeout, name=name, revision=revision)
        return pid

    async def call_function(self, query: Query) -> Any:
        args, timeout = args_of(query), timeout_of(query)
        host = host_address(str(query.get("node") or self._node), SYSTEM_HOST).encode()
        port = self._ports.open("node:client")
        try:
            function = text_of(query, "id").encode()
            options = {b"timeout": int(timeout * 1000)}
            return await port.request(Kind.CALL, host, function, args, options, timeout=timeout)
        finally:
            port.close()

    async def spawn(self, query: Query) -> Any:
        host = text_of(query, "host")
        node, _, name = host.rpartition("@")
        address = host_address(node or self._node, name).encode()
        port = self._ports.open("node:client")
        try:
            return await port.spawn(address, text_of(query, "id"), args_of(query), {}, timeout=timeout_of(query))
        finally:
            port.close()

    async def cancel(self, query: Query) -> Any:
        reason = str(query.get("reason") or "cancelled by operator")
        return await self._signal(query, Kind.CANCEL, reason.encode())

    async def terminate(self, query: Query) -> Any:
        return await self._signal(query, Kind.TERMINATE)

    async def _signal(self, query: Query, kind: Kind, *rest: Any) -> Any:
        port: Port = self._ports.open("node:client")
        try:
            pid, _, _ = self._resolve(text_of(query, "to"))
            await port.request(kind, pid, *rest, timeout=timeout_of(query))
            return {"pid": pid.decode()}
        finally:
            port.close()

    def _resolve(self, target: str) -> tuple[bytes, str, int]:
        """(PID, name, revision) of a PID text or a registered name; name "" when it was a PID."""
        if is_pid(target):
            return str(Pid.parse(target)).encode(), "", 0
        held = self._names.lookup(target)
        if held is None:
            where = "`wippy names` shows the names, `wippy services` the PIDs of services"
            raise NotFound(f"noproc: no process is registered as {target!r}; {where}")
        return held.pid.encode(), target, held.revision


def _revision_in(stale: Refused) -> int:
    """Up to which revision the node that refused a message by name knows who holds the name."""
    details = stale.error.get("details")
    revision = details.get("applied") if isinstance(details, dict) else None
    return revision if isinstance(revision, int) else 0


async def _watch(port: Port, pid: bytes, timeout: float) -> None:
    """Monitor the callee, so that a caller need not wait for one that failed. Its end may be told already."""
    try:
        await port.request(Kind.MONITOR, pid, timeout=timeout)
    except (Refused, CallTimeout) as error:
        log.debug("callee is not watched", pid=pid.decode(), reason=str(error))


def _note_failure(failed: asyncio.Future[Exit], ended: Exit) -> None:
    """A callee that returned may have left the answer to another process; one that failed has not answered."""
    if ended.error is not None and not failed.done():
        failed.set_result(ended)


async def _first_reply(port: Port, failed: asyncio.Future[Exit]) -> tuple[bytes, bytes, list[Any]]:
    """The first message to the port. Raises Refused when the callee fails before there is one."""
    async with Tasks("call") as tasks:
        reply = tasks.start(port.messages.get(), "reply")
        waited: set[asyncio.Future[Any]] = {reply, failed}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if reply.done():
            return reply.result()
        if not port.messages.empty():
            return port.messages.get_nowait()
        ended = failed.result()
    error = ended.error or {}
    message = f"process {ended.pid.decode()} failed before it answered: {error.get('message', 'no reason given')}"
    raise Refused(Status.ERROR, {**error, "message": message})
