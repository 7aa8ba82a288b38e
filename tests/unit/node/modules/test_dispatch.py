"""The dispatcher answers every operation exactly once, whatever the handler does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
import structlog

from cluster.errors import CallTimeout, MessageTooBig, OutcomeUnknown, Unavailable
from node.modules import dispatch
from node.modules.contract import Answer, Caller, LuaError, Stream, Values

PID = b"{node-1@app:processes|1-1}"


class Probe:
    """A module whose functions do one thing each."""

    name = "probe"
    deadlines: Mapping[str, timedelta | None] = {"quick": timedelta(milliseconds=20), "patient": None}

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.streams: list[Stream] = []
        self.casts: list[Values] = []
        self.raising: Exception = LuaError("Invalid", "no")

    def call(self, caller: Caller, fn: str, args: Values) -> Answer:
        match fn:
            case "echo":
                return ["text", {"a": 1}, *args]
            case "raise":
                raise self.raising
            case "raise_later":
                return self._raise_later()
            case "open":
                self.streams.append(caller.streams.opened(caller, args[0]))
                return [args[0]]
            case _:
                return self._wait()

    def cast(self, caller: Caller, fn: str, args: Values) -> None:
        if fn == "raise":
            raise self.raising
        self.casts.append(args)

    async def _wait(self) -> Values:
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return ["done"]

    async def _raise_later(self) -> Values:
        await asyncio.sleep(0)
        raise self.raising


class TestCall:
    async def test_a_handler_that_knows_the_answer_is_answered_without_a_task(self, asking: Any, vm: Any) -> None:
        asker = await asking(Probe())
        asker.start("probe", "echo", b"x")
        assert vm.posted == [[40, 1, None, [b"text", {b"a": 1}, b"x"]]]

    async def test_a_handler_that_waits_is_answered_when_it_is_done(self, asking: Any, vm: Any) -> None:
        probe = Probe()
        asker = await asking(probe)
        opid = asker.start("probe", "wait")
        await asyncio.sleep(0)
        assert vm.posted == []
        probe.released.set()
        assert await vm.answer(opid) == (None, [b"done"])

    async def test_an_error_of_the_module_reaches_the_caller_with_all_it_carries(self, asking: Any) -> None:
        probe = Probe()
        probe.raising = LuaError("Conflict", "moved on", retryable=True, details={"head": 3, "changed": ["a:b"]})
        asker = await asking(probe)
        for fn in ("raise", "raise_later"):
            assert await asker.error("probe", fn) == {
                b"kind": b"Conflict",
                b"message": b"moved on",
                b"retryable": True,
                b"details": {b"head": 3, b"changed": [b"a:b"]},
            }

    async def test_errors_of_the_cluster_become_their_lua_kinds(self, asking: Any) -> None:
        probe = Probe()
        asker = await asking(probe)
        for raised, kind in (
            (Unavailable("etcd is away"), b"Unavailable"),
            (OutcomeUnknown("lost"), b"Timeout"),
            (CallTimeout("node-2", 5), b"Timeout"),
            (MessageTooBig(2, 1), b"Invalid"),
        ):
            probe.raising = raised
            assert (await asker.error("probe", "raise_later"))[b"kind"] == kind

    async def test_a_broken_handler_is_answered_internal_and_logged_with_its_trace(self, asking: Any) -> None:
        probe = Probe()
        probe.raising = ZeroDivisionError("oops")
        asker = await asking(probe)
        with structlog.testing.capture_logs() as logs:
            for fn in ("raise", "raise_later"):
                error = await asker.error("probe", fn)
                assert error[b"kind"] == b"Internal"
                assert b"ZeroDivisionError: oops" in error[b"message"]
        assert [(line["where"], line["exc_info"]) for line in logs] == [
            ("probe.raise", probe.raising),
            ("probe.raise_later", probe.raising),
        ]

    async def test_an_unknown_module_is_unavailable(self, asking: Any) -> None:
        asker = await asking(Probe())
        assert (await asker.error("sql", "get"))[b"kind"] == b"Unavailable"

    async def test_a_handler_over_its_deadline_is_a_timeout_that_names_it(self, asking: Any) -> None:
        probe = Probe()
        asker = await asking(probe)
        error = await asker.error("probe", "quick")
        assert error[b"kind"] == b"Timeout"
        assert b"probe.quick" in error[b"message"]
        assert probe.cancelled.is_set()

    async def test_the_default_deadline_holds_where_the_module_names_none(self, asking: Any) -> None:
        asker = await asking(Probe(), deadline=timedelta(milliseconds=20))
        assert (await asker.error("probe", "wait"))[b"kind"] == b"Timeout"

    async def test_a_function_without_deadline_waits(self, asking: Any, vm: Any) -> None:
        probe = Probe()
        asker = await asking(probe, deadline=timedelta(milliseconds=5))
        opid = asker.start("probe", "patient")
        assert (await asker.error("probe", "wait"))[b"kind"] == b"Timeout"
        probe.released.set()
        assert await vm.answer(opid) == (None, [b"done"])

    async def test_operations_that_wait_are_bounded(
        self, asking: Any, vm: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dispatch, "MAX_WAITING", 2)
        probe = Probe()
        asker = await asking(probe)
        first = [asker.start("probe", "wait") for _ in range(2)]
        error = await asker.error("probe", "wait")
        assert (error[b"kind"], error[b"retryable"]) == (b"RateLimited", True)
        probe.released.set()
        for opid in first:
            assert await vm.answer(opid) == (None, [b"done"])
        assert await asker.value("probe", "wait") == b"done"


class TestCancel:
    async def test_a_cancelled_operation_is_stopped_and_never_answered(self, asking: Any, vm: Any) -> None:
        probe = Probe()
        asker = await asking(probe)
        opid = asker.start("probe", "wait")
        await asyncio.sleep(0)
        asker.dispatcher.take(vm, [56, opid])
        async with asyncio.timeout(5):
            await probe.cancelled.wait()
        await asyncio.sleep(0)
        assert vm.posted == []
        assert asker.dispatcher.stats().waiting == 0

    async def test_cancelling_before_the_first_step_leaves_nothing_behind(self, asking: Any, vm: Any) -> None:
        asker = await asking(Probe())
        opid = asker.start("probe", "wait")
        asker.dispatcher.take(vm, [56, opid])
        await asyncio.sleep(0)
        assert vm.posted == []

    async def test_cancelling_what_is_not_there_is_no_matter(self, asking: Any, vm: Any) -> None:
        asker = await asking(Probe())
        asker.dispatcher.take(vm, [56, 99])
        assert vm.posted == []

    async def test_a_vm_that_ends_takes_its_operations_with_it(self, asking: Any, vm: Any) -> None:
        probe = Probe()
        asker = await asking(probe)
        asker.start("probe", "wait")
        await asyncio.sleep(0)
        asker.dispatcher.vm_ended(vm)
        async with asyncio.timeout(5):
            await probe.cancelled.wait()
        assert vm.posted == []


class TestCast:
    async def test_a_cast_reaches_the_module_and_is_not_answered(self, asking: Any, vm: Any) -> None:
        probe = Probe()
        asker = await asking(probe)
        asker.dispatcher.take(vm, [51, PID, b"app:main", b"probe", b"note", [b"x"]])
        assert probe.casts == [[b"x"]]
        assert vm.posted == []

    async def test_a_failing_cast_is_logged(self, asking: Any, vm: Any) -> None:
        probe = Probe()
        asker = await asking(probe)
        with structlog.testing.capture_logs() as logs:
            asker.dispatcher.take(vm, [51, PID, b"app:main", b"probe", b"raise", []])
            probe.raising = RuntimeError("broken")
            asker.dispatcher.take(vm, [51, PID, b"app:main", b"probe", b"raise", []])
            asker.dispatcher.take(vm, [51, PID, b"app:main", b"nothing", b"raise", []])
        assert [line["event"] for line in logs] == ["cast refused", "cast failed", "cast failed"]


class TestStreams:
    async def test_values_and_the_end_are_posted(self, asking: Any, vm: Any) -> None:
        probe = Probe()
        asker = await asking(probe)
        await asker.value("probe", "open", 7)
        stream = probe.streams[0]
        stream.push(b"one")
        stream.end()
        stream.push(b"late")
        assert vm.posted[1:] == [[41, 7, b"one"], [42, 7]]

    async def test_the_end_of_the_owner_ends_its_streams_only(self, asking: Any, vm: Any) -> None:
        probe = Probe()
        asker = await asking(probe)
        other = b"{node-1@app:processes|1-2}"
        await asker.value("probe", "open", 1)
        await asker.value("probe", "open", 2, pid=other)
        ended: list[int] = []
        for stream in probe.streams:
            stream.on_end(lambda stream=stream: ended.append(stream.id))
        asker.dispatcher.take(vm, [53, PID, b"app:main", None])
        assert ended == [1]
        probe.streams[0].push(b"late")
        assert [41, 1, b"late"] not in vm.posted
        assert asker.dispatcher.stats().streams == 1

    async def test_streams_of_a_process_are_bounded(self, asking: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dispatch, "MAX_STREAMS", 1)
        asker = await asking(Probe())
        await asker.value("probe", "open", 1)
        assert (await asker.error("probe", "open", 2))[b"kind"] == b"RateLimited"
        assert await asker.value("probe", "open", 3, pid=b"{node-1@app:processes|1-2}") == 3

    async def test_only_the_owner_finds_a_stream(self, asking: Any, vm: Any, caller: Caller) -> None:
        probe = Probe()
        asker = await asking(probe)
        await asker.value("probe", "open", 1)
        stranger = Caller(b"{node-1@app:processes|1-2}", "app:main", vm, asker.dispatcher)
        assert asker.dispatcher.find(caller, 1) is probe.streams[0]
        assert asker.dispatcher.find(stranger, 1) is None
