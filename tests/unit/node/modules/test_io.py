"""The terminal: ordered output, input on demand, and nothing for processes elsewhere."""

from __future__ import annotations

import asyncio
import os
import pty
import termios
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from node.modules import io as io_module
from node.modules.io import IoModule, Keyboard, Raw
from node.output import Output

PID = b"{node-1@app:terminal|1-1}"


class Screen(Output):
    """Keeps what is put."""

    def __init__(self) -> None:
        super().__init__()
        self.puts: list[tuple[int, bytes]] = []
        self.error: OSError | None = None

    def put(self, descriptor: int, data: bytes) -> None:
        self.puts.append((descriptor, data))

    def failure(self, descriptor: int) -> OSError | None:
        return self.error


@pytest.fixture
def screen() -> Screen:
    return Screen()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue  # the test closed it


@pytest.fixture
async def asker(asking: Any, screen: Screen, pipe: tuple[int, int]) -> Any:
    module = IoModule(screen, keyboard=Keyboard(pipe[0]), raw=Raw(pipe[0]), args=["a", "b c"])
    module.terminals.add(1)
    return await asking(module)


class TestOutput:
    async def test_writes_keep_their_order_and_their_descriptor(self, asker: Any, screen: Screen, vm: Any) -> None:
        for fn, data in ((b"write", b"one\n"), (b"eprint", b"two\n"), (b"write", b"\xff\x00")):
            asker.dispatcher.take(vm, [51, PID, b"app:cli", b"io", fn, [data]])
        assert await asker.value("io", "flush") is True
        assert screen.puts == [(1, b"one\n"), (2, b"two\n"), (1, b"\xff\x00")]

    async def test_a_terminal_that_is_gone_is_told_at_flush(self, asker: Any, screen: Screen) -> None:
        screen.error = BrokenPipeError("broken pipe")
        assert (await asker.error("io", "flush"))[b"kind"] == b"Internal"

    async def test_outside_a_terminal_everything_is_unavailable(self, asker: Any, screen: Screen, vm: Any) -> None:
        vm.slot = 2
        for fn in ("open", "read", "readline", "flush", "args", "raw"):
            error = await asker.error("io", fn)
            assert (error[b"kind"], error[b"retryable"]) == (b"Unavailable", False)
        asker.dispatcher.take(vm, [51, PID, b"app:cli", b"io", b"write", [b"x"]])
        assert screen.puts == []


async def test_at_the_end_a_terminal_that_takes_nothing_is_given_up_on(
    screen: Screen, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(screen, "drained", never)
    monkeypatch.setattr(io_module, "DRAIN_DEADLINE", 0.01)
    with structlog.testing.capture_logs() as logs:
        async with IoModule(screen, keyboard=Keyboard(pipe[0]), raw=Raw(pipe[0])):
            pass
    assert [line["event"] for line in logs] == ["the terminal did not take all output"]


class TestInput:
    async def test_readline_gives_lines_without_their_newline_then_nil(self, asker: Any, pipe: tuple[int, int]) -> None:
        os.write(pipe[1], b"first\r\n\nlast")
        os.close(pipe[1])
        assert [await asker.value("io", "readline") for _ in range(5)] == [b"first", b"", b"last", None, None]

    async def test_a_line_may_arrive_in_pieces(self, asker: Any, vm: Any, pipe: tuple[int, int]) -> None:
        opid = asker.start("io", "readline")
        os.write(pipe[1], b"he")
        await asyncio.sleep(0.01)
        os.write(pipe[1], b"llo\nrest")
        assert await vm.answer(opid) == (None, [b"hello"])
        assert await asker.value("io", "read", 2) == b"re"

    @pytest.mark.parametrize("count", [None, 0, -5, b"x"])
    async def test_read_takes_up_to_1024_bytes_unless_told(self, asker: Any, pipe: tuple[int, int], count: Any) -> None:
        os.write(pipe[1], b"x" * 3000)
        assert len(await asker.value("io", "read", count)) == 1024

    async def test_what_a_cancelled_read_would_have_got_is_for_the_next(
        self, asker: Any, vm: Any, pipe: tuple[int, int]
    ) -> None:
        opid = asker.start("io", "readline")
        await asyncio.sleep(0)
        asker.dispatcher.take(vm, [56, opid])
        os.write(pipe[1], b"kept\n")
        assert await asker.value("io", "readline") == b"kept"

    async def test_args_are_the_command_line(self, asker: Any) -> None:
        assert await asker.value("io", "args") == [b"a", b"b c"]


class TestRaw:
    async def test_a_pipe_has_no_raw_mode(self, asker: Any) -> None:
        assert (await asker.error("io", "raw", True))[b"kind"] == b"Unavailable"

    async def test_raw_is_counted_and_undone(self, asking: Any, screen: Screen) -> None:
        master, slave = pty.openpty()
        try:
            before = termios.tcgetattr(slave)
            module = IoModule(screen, keyboard=Keyboard(slave), raw=Raw(slave))
            module.terminals.add(1)
            asker = await asking(module)
            async with module:
                await asker.value("io", "raw", True)
                await asker.value("io", "raw", True)
                await asker.value("io", "raw", False)
                assert not termios.tcgetattr(slave)[3] & termios.ECHO
            assert termios.tcgetattr(slave) == before
        finally:
            os.close(master)
            os.close(slave)
