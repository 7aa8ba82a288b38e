"""The writer thread keeps the order, never blocks its writers and loses nothing."""

from __future__ import annotations

import asyncio
import errno
import threading

import pytest

from node.output import STDERR, STDOUT, Output


class Recorder:
    """Stands in for ``os.write``; ``gate`` holds the thread back."""

    def __init__(self) -> None:
        self.writes: list[tuple[int, bytes]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.at_once = 1 << 30
        self.broken: int | None = None

    def __call__(self, descriptor: int, data: bytes) -> int:
        assert self.gate.wait(5)
        if descriptor == self.broken:
            raise BrokenPipeError(errno.EPIPE, "broken pipe")
        taken = data[: self.at_once]
        self.writes.append((descriptor, taken))
        return len(taken)

    def text(self, descriptor: int) -> bytes:
        return b"".join(data for target, data in self.writes if target == descriptor)


def test_writes_keep_their_order_over_both_descriptors() -> None:
    recorder = Recorder()
    with Output(write=recorder) as output:
        for line in range(100):
            output.put(STDERR if line % 7 == 0 else STDOUT, b"%d\n" % line)
    written = b"".join(data for _, data in recorder.writes)
    assert written == b"".join(b"%d\n" % line for line in range(100))


def test_a_blocked_terminal_does_not_block_the_writer_and_shows_as_pending() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    with Output(write=recorder) as output:
        for _ in range(1000):
            output.put(STDOUT, b"x" * 100)
        assert output.pending == 100_000
        assert not output.flush(0.01)
        recorder.gate.set()
        assert output.flush(5)
        assert output.pending == 0
    assert len(recorder.text(STDOUT)) == 100_000


def test_what_was_handed_over_many_times_is_written_in_few_calls() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    with Output(write=recorder) as output:
        for _ in range(10_000):
            output.put(STDOUT, b"line\n")
        recorder.gate.set()
        assert output.flush(5)
    assert len(recorder.writes) < 10


def test_short_writes_are_continued() -> None:
    recorder = Recorder()
    recorder.at_once = 3
    with Output(write=recorder) as output:
        output.put(STDOUT, b"0123456789")
    assert recorder.text(STDOUT) == b"0123456789"


def test_a_broken_descriptor_tells_why_and_leaves_the_other_alone() -> None:
    recorder = Recorder()
    recorder.broken = STDOUT
    with Output(write=recorder) as output:
        output.put(STDOUT, b"lost")
        output.put(STDERR, b"kept")
        assert output.flush(5)
        assert isinstance(output.failure(STDOUT), BrokenPipeError)
        assert output.failure(STDERR) is None
        assert output.pending == 0
    assert recorder.text(STDERR) == b"kept"


async def test_drained_waits_for_what_was_handed_over_before() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    with Output(write=recorder) as output:
        output.put(STDOUT, b"prompt> ")
        drained = asyncio.ensure_future(output.drained())
        await asyncio.sleep(0)
        assert not drained.done()
        recorder.gate.set()
        async with asyncio.timeout(5):
            await drained
        assert recorder.text(STDOUT) == b"prompt> "


async def test_a_writer_that_gave_up_waiting_harms_nobody() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    with Output(write=recorder) as output:
        output.put(STDOUT, b"x")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await output.drained()
        recorder.gate.set()
        assert output.flush(5)


def test_close_gives_up_on_a_reader_that_reads_no_more() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    output = Output(write=recorder)
    output.start()
    output.put(STDOUT, b"x")
    output.close(timeout=0.05)
    recorder.gate.set()


def test_before_the_start_and_after_the_end_nothing_waits() -> None:
    output = Output(write=Recorder())
    assert output.flush(5)
    output.close()
