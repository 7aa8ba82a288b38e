"""Input that is no terminal: texts run one by one, values on stdout, everything else on stderr."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from cluster.tasks import Tasks
from node.cli.console import note, say
from node.cli.failures import Failed, tell
from node.console.lines import Incomplete, LineTooLong, prepare
from node.lua.dialect import LuaSyntaxError

if TYPE_CHECKING:
    from node.cli.prompt.attached import Attached


class Printer:
    """Shows as programs want it."""

    def show(self, kind: str, text: str) -> None:
        match kind:
            case "value" | "out" | "text":
                say(text)
                sys.stdout.flush()
            case "error":
                tell(text)
            case "message" | "event":
                note(f"{kind}: {text}")
            case _:
                note(text)


async def run_texts(session: Attached, texts: AsyncIterator[str]) -> bool:
    """Run each text; whether all went well. Lines that begin something go on in the next one."""
    went_well = True
    begun = ""
    async for text in _while_it_lasts(session, texts):
        begun = f"{begun}\n{text}" if begun else text
        if not begun.strip():
            begun = ""
            continue
        try:
            prepare(begun)
        except Incomplete:
            continue
        except (LuaSyntaxError, LineTooLong) as error:
            tell(str(error))
            went_well = False
        else:
            went_well = await session.run(begun) and went_well
        begun = ""
    session.check()
    if session.over.done() and session.over.result():
        raise Failed(session.over.result())
    if begun:
        tell(f"the input ends within this: {begun.splitlines()[0][:80]}")
        return False
    return went_well


async def _while_it_lasts(session: Attached, texts: AsyncIterator[str]) -> AsyncIterator[str]:
    """``texts``, until there are no more or the console is over."""
    while not session.over.done():
        async with Tasks("reading") as tasks:
            following = tasks.start(_next(texts), "text")
            waited: set[asyncio.Future[Any]] = {following, session.over}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                return
            text = following.result()
        if text is None:
            return
        yield text


async def _next(texts: AsyncIterator[str]) -> str | None:
    return await anext(texts, None)


async def typed() -> AsyncIterator[str]:
    """The lines of standard input as they come. Read in a thread that nobody waits for: a read can't be called off."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue(maxsize=1000)

    def put(line: str | None) -> None:
        asyncio.run_coroutine_threadsafe(lines.put(line), loop).result()

    def read() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody reads any more
            for line in sys.stdin:
                put(line.rstrip("\r\n"))
            put(None)

    threading.Thread(target=read, name="stdin", daemon=True).start()
    while (line := await lines.get()) is not None:
        yield line
