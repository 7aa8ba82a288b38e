"""The verb ``wippy console``."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.failures import Failed

if TYPE_CHECKING:
    from cluster.client import Client

ENDING = (signal.SIGTERM, signal.SIGHUP)


async def console(
    client: Client,
    on: Annotated[str | None, typer.Argument(metavar="[NODE]", help="The node to run it on; any ready one")] = None,
    execute: Annotated[
        list[str] | None,
        typer.Option("-e", "--execute", metavar="LUA", help="Run this and end; repeatable", show_default=False),
    ] = None,
) -> None:
    """A live Lua prompt that is a process of the cluster. Without a terminal: the lines of standard input, one by one.

    Exit code 1 when a line failed.
    """
    from node.cli.prompt.attached import attached
    from node.cli.prompt.reading import Printer, run_texts, typed

    async with _ending_in_order():
        if execute or not (sys.stdin.isatty() and sys.stdout.isatty()):
            async with attached(client, on, Printer()) as session:
                went_well = await run_texts(session, _each(execute) if execute else typed())
            if not went_well:
                raise Failed("", code=1)
            return
        from node.cli.prompt.editor import edit

        await edit(client, on)


@asynccontextmanager
async def _ending_in_order() -> AsyncIterator[None]:
    """A client that is ended from outside closes its console first."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    ended_by: list[int] = []

    def end(number: int) -> None:
        ended_by.append(number)
        task.cancel()

    for number in ENDING:
        loop.add_signal_handler(number, end, number)
    try:
        yield
    except asyncio.CancelledError:
        if not ended_by:
            raise
        task.uncancel()
        raise Failed("", code=128 + ended_by[0]) from None


async def _each(texts: list[str]) -> AsyncIterator[str]:
    for text in texts:
        yield text
