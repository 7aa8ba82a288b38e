"""A console on a terminal: lines are edited, remembered and completed; what arrives is shown above the line.

Enter runs what is typed when it is complete, else it begins another line. Ctrl-C stops a line that runs, and empties
one that is being typed; Ctrl-D on an empty line ends the console.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.patch_stdout import patch_stdout

from cluster.errors import ClusterError
from cluster.tasks import Tasks
from node.cli.console import harmless, note, paint
from node.cli.failures import Failed, tell
from node.cli.prompt.attached import Attached, attached
from node.cli.prompt.words import word_before
from node.console.lines import Incomplete, LineTooLong, prepare
from node.lua.dialect import LuaSyntaxError
from node.settings.userdirs import state_directory

if TYPE_CHECKING:
    from cluster.client import Client

STYLES = {"error": "red", "message": "cyan", "event": "cyan", "note": "dim"}
MARKS = {"message": "<- ", "event": "-- "}
PIDS_SECONDS = 3.0
"""How long a list of all PIDs is good for completion."""
MOST_PROPOSED = 300


async def edit(client: Client, node: str | None) -> None:
    """A console on a terminal, until its user ends it. Raises Failed when it ended by itself."""
    with patch_stdout(raw=True):
        async with attached(client, node, Terminal()) as session:
            note(f"{session.pid} on {session.node}; help() says what there is, Ctrl-D ends it")
            typing = typing_on(session)
            async with Tasks("editor") as tasks:
                work = tasks.start(_lines(session, typing), "lines")
                waited: set[asyncio.Future[Any]] = {work, session.over}
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    await work
            if session.over.done() and session.over.result():
                raise Failed(session.over.result())


async def _lines(session: Attached, typing: PromptSession[str]) -> None:
    while not session.over.done():
        try:
            text = await typing.prompt_async(f"{session.node}> ")
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if not text.strip():
            continue
        try:
            prepare(text)
        except (LuaSyntaxError, LineTooLong) as error:
            Terminal().show("error", f"Syntax: {error}" if isinstance(error, LuaSyntaxError) else str(error))
            continue
        async with _stopping(session):
            await session.run(text)


@contextlib.asynccontextmanager
async def _stopping(session: Attached) -> AsyncIterator[None]:
    """While a line runs, Ctrl-C stops it."""
    loop = asyncio.get_running_loop()
    async with Tasks("stop") as tasks:
        loop.add_signal_handler(signal.SIGINT, lambda: tasks.start(session.stop(), "stop"))
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)


class Terminal:
    """Shows as people want it, above the line they type."""

    def show(self, kind: str, text: str) -> None:
        paint([(MARKS.get(kind, "") + harmless(text), STYLES.get(kind, ""))])


def typing_on(session: Attached) -> PromptSession[str]:
    """The line editor."""
    keys = KeyBindings()

    @keys.add("enter")
    def _enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        try:
            prepare(buffer.text)
        except Incomplete:
            buffer.insert_text("\n")
        except (LuaSyntaxError, LineTooLong):
            buffer.validate_and_handle()
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return PromptSession(
        history=history_in(state_directory()),
        completer=Proposals(session),
        complete_while_typing=False,
        multiline=True,
        prompt_continuation=lambda width, line, wrapped: ".." + " " * (width - 2),
        key_bindings=keys,
        enable_open_in_editor=False,
    )


def history_in(directory: Path) -> History:
    """What was typed before, in a file only its user may read; of this run alone where none can be written."""
    file = directory / "console_history"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
    except OSError as error:
        tell(f"{file}: {error.strerror}; lines are remembered until the end of this console")
        return InMemoryHistory()
    return FileHistory(str(file))


class Proposals(Completer):
    """What TAB offers: between quotes PIDs, names and ids of entries, else what the process has."""

    def __init__(self, session: Attached) -> None:
        self._session = session
        self._pids: list[str] = []
        self._known_until = 0.0

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> list[Completion]:
        return []

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        word = word_before(document.text_before_cursor)
        if word is None:
            return
        found = await self._session.complete(word.text)
        if not word.quoted:
            proposed = sorted(found.get("lua", ()))
        else:
            pids = [pid for pid in await self._all_pids() if pid.startswith(word.text)]
            proposed = [*sorted(found.get("names", ())), *sorted(found.get("entries", ())), *pids]
        for text in proposed[:MOST_PROPOSED]:
            yield Completion(text, start_position=-len(word.text))

    async def _all_pids(self) -> list[str]:
        if time.monotonic() >= self._known_until:
            with contextlib.suppress(ClusterError):
                answers = await self._session.client.ps(limit=1000)
                self._pids = sorted(str(one["pid"]) for some in answers.by_node.values() for one in some)
                self._known_until = time.monotonic() + PIDS_SECONDS
        return self._pids
