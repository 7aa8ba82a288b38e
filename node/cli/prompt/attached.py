"""One console as its client sees it: lines go in, what comes out is shown; an outage is waited for, and said.

What the node says is numbered, and so are lines: whatever is asked again after an outage happens once.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from cluster.client import NoNodes, QueryFailed
from cluster.errors import CallTimeout, ClusterError, NotConnected, Unavailable
from cluster.tasks import Tasks
from node.cli.failures import Failed
from node.cli.prompt.answers import Answering

if TYPE_CHECKING:
    from cluster.client import Client

POLL_SECONDS = 4.0
ASK_SECONDS = 5.0
PATIENCE = 60.0
"""Seconds a node that is registered may stay silent."""
PAUSE = 0.5
CLOSE_SECONDS = 2.0
STOP_SECONDS = 3.0
_GONE = "`wippy nodes` shows what is there, `wippy console` opens another"


class Display(Protocol):
    """Where a console shows what it says."""

    def show(self, kind: str, text: str) -> None:
        """``kind`` is value, out, error, note, message, event or text."""


class Attached:
    """The session. Made by ``attached``."""

    def __init__(self, client: Client, opened: dict[str, Any], display: Display, tasks: Tasks) -> None:
        self.client = client
        self.node = str(opened["node"])
        self.pid = str(opened["pid"])
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Why there is no console any more."""
        self._session = str(opened["session"])
        self._display = display
        self._tasks = tasks
        self._answering = Answering(client, display, self.leave)
        self._line = 0
        self._seen = 0
        self._done: asyncio.Future[bool] | None = None
        self._silent_since: float | None = None
        self._broken: OSError | None = None

    async def run(self, text: str) -> bool:
        """Run one input to its end; whether it did what it should. Raises Failed when the console is over."""
        self._line += 1
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._done = done
        await self._ask("console_line", ASK_SECONDS, number=self._line, text=text)
        waited: set[asyncio.Future[Any]] = {done, self.over}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        self._done = None
        if done.done():
            return done.result()
        self.check()
        if self.over.result():
            raise Failed(self.over.result())
        return True  # it was the line that ended the console

    async def stop(self) -> None:
        """Stop the line that runs."""
        self._answering.stop()
        with contextlib.suppress(ClusterError):
            await self.client.ask(
                self.node, "console_stop", timeout=STOP_SECONDS, session=self._session, number=self._line
            )

    async def complete(self, text: str) -> dict[str, list[str]]:
        """What ``text`` may go on to: entries, names, lua. Empty when the node does not say."""
        try:
            found: dict[str, list[str]] = await self.client.ask(
                self.node, "console_complete", timeout=STOP_SECONDS, session=self._session, text=text
            )
        except ClusterError:
            return {}
        return found

    def leave(self, why: str = "") -> None:
        """There is nothing more to do here."""
        if not self.over.done():
            self.over.set_result(why)

    def check(self) -> None:
        """Raises OSError when what is shown reaches nobody any more."""
        if self._broken is not None:
            raise self._broken

    def _break(self, error: OSError) -> None:
        self._broken = error
        self.leave("nobody reads what is shown")

    async def follow(self) -> None:
        """Show what the console says until it is over."""
        try:
            await self._follow()
        except OSError as error:
            self._break(error)

    async def _follow(self) -> None:
        while not self.over.done():
            try:
                answer = await self._ask("console_poll", POLL_SECONDS + 1, after=self._seen, wait=POLL_SECONDS)
            except Failed as failed:
                self.leave(failed.message)
                return
            self.pid = str(answer["pid"])
            for event in answer["events"]:
                if event["n"] > self._seen:
                    self._seen = event["n"]
                    self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        match event["kind"]:
            case "done":
                if self._done is not None and not self._done.done() and event["number"] == self._line:
                    self._done.set_result(bool(event["ok"]))
            case "ask":
                self._tasks.start(self._answer(event), "answer")
            case "closed":
                self.leave(f"the console on {self.node} ended: {event['text']}")
            case "lost":
                self._display.show("note", f"{event['characters']} characters of output came too fast and are left out")
            case "restarted":
                self._display.show("error", event["text"])
            case kind:
                self._display.show(str(kind), str(event["text"]))

    async def _answer(self, event: dict[str, Any]) -> None:
        try:
            outcome = await self._answering.outcome(str(event["text"]), list(event.get("args") or []))
        except OSError as error:
            self._break(error)
            return
        with contextlib.suppress(Failed):
            await self._ask("console_answer", ASK_SECONDS, number=event["number"], **outcome)

    async def close(self) -> None:
        """End the console; when the node can't be told it does so by itself."""
        self._answering.stop()
        if self.over.done() and self.over.result():
            return
        with contextlib.suppress(ClusterError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.client.ask(self.node, "console_close", timeout=CLOSE_SECONDS, session=self._session)

    async def _ask(self, op: str, timeout: float, **fields: Any) -> Any:
        """Ask the node, again while it is silent. Raises Failed when it is gone, or knows no such console."""
        while True:
            try:
                answer = await self.client.ask(self.node, op, timeout=timeout, session=self._session, **fields)
            except NoNodes:
                raise Failed(f"node {self.node} is gone, and its consoles with it; {_GONE}") from None
            except QueryFailed as error:
                if error.code in ("stopping", "timeout", "busy"):
                    await self._wait(error)
                elif error.code == "noproc":
                    raise Failed(f"{error.message}; {_GONE}") from None
                else:
                    raise Failed(str(error)) from None
            except (Unavailable, CallTimeout, NotConnected) as error:
                await self._wait(error)
            else:
                if self._silent_since is not None:
                    self._silent_since = None
                    self._display.show("note", f"{self.node} answers again")
                return answer

    async def _wait(self, error: ClusterError) -> None:
        now = time.monotonic()
        if self._silent_since is None:
            self._silent_since = now
            self._display.show("note", f"no answer from {self.node} ({error}); waiting")
        elif now - self._silent_since > PATIENCE:
            raise Failed(f"node {self.node} has not answered for {PATIENCE:g} s; {_GONE}")
        await asyncio.sleep(PAUSE)


@asynccontextmanager
async def attached(client: Client, node: str | None, display: Display) -> AsyncIterator[Attached]:
    """A console on ``node``, or on any ready one; closed when this is left. Raises QueryFailed, NoNodes."""
    who = f"{getpass.getuser()}@{socket.gethostname()}"
    if node is None:
        opened = await client.through("console_open", 15.0, who=who)
    else:
        opened = await client.ask(node, "console_open", timeout=15.0, who=who)
    async with Tasks("console") as tasks:
        session = Attached(client, opened, display, tasks)
        tasks.start(session.follow(), "follow")
        try:
            yield session
        finally:
            await session.close()
