"""The verb ``wippy console``."""

from __future__ import annotations

import asyncio
import signal
import sys
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

    _end_in_order()
    if execute or not (sys.stdin.isatty() and sys.stdout.isatty()):
        async with attached(client, on, Printer()) as session:
            texts = typed() if not execute else _each(execute)
            if not await run_texts(session, texts):
                raise Failed("", code=1)
        return
    from node.cli.prompt.editor import edit

    await edit(client, on)


def _end_in_order() -> None:
    """A client that is ended from outside closes its console first."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    for number in ENDING:
        loop.add_signal_handler(number, task.cancel)


async def _each(texts: list[str]):  # type: ignore[no-untyped-def]
    for text in texts:
        yield text
