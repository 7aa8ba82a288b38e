"""``wippy drain``: empty a node, and watch it.

The drain is the node's; this only begins it and looks on. On a terminal one line shows how far it is, elsewhere lines
say what has changed. Whoever stops looking on leaves the drain running.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.console import harmless, note, printable, show_json
from node.cli.failures import Failed
from node.cli.gateway import seconds

if TYPE_CHECKING:
    from cluster.client import Client

_LOOK = 0.25
_LEAST_BETWEEN = 1.0
"""Seconds between two lines where they are not written over each other."""
_SILENCE = 15.0
"""Seconds for which a node may not answer before nobody waits for it any more."""
_COUNTS = {
    "moved": "moved",
    "restarted_elsewhere": "restarted elsewhere",
    "handed_over": "handed over",
    "cancelled": "cancelled",
    "lost": "lost",
    "left": "left",
}


async def drain(
    client: Client,
    target: Annotated[str, typer.Argument(metavar="NODE", help="The node's name, as `wippy nodes` shows it")],
    deadline: Annotated[
        str, typer.Option("--deadline", metavar="DURATION", help="When what does not move and has not ended is killed")
    ] = "30s",
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Begin it and do not look on")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what became of it as JSON")] = False,
) -> None:
    """Give away all that runs on a node. Exit code 1 when something was left there."""
    await client.drain(target, seconds(deadline))
    if no_wait:
        print(f"{target} is draining")
        return
    try:
        told = await _watch(client, target, Line(quiet=as_json))
    except asyncio.CancelledError:
        again = f"`wippy drain {target}` shows it again, `wippy uncordon {target}` calls it off"
        note(f"the drain of {target} goes on; {again}")
        raise
    if as_json:
        show_json(told)
    else:
        _tell(told)
    if told["phase"] != "drained":
        raise Failed("" if as_json or told["left"] else f"the drain of {target} was called off")


class Line:
    """The progress on stderr: one line on a terminal, else a line when something has changed."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._shown, self._at = "", float("-inf")
        self._is_live = sys.stderr.isatty()

    def show(self, text: str) -> None:
        now = time.monotonic()
        if self._quiet or text == self._shown or (not self._is_live and now - self._at < _LEAST_BETWEEN):
            return
        self._shown, self._at = text, now
        print(
            f"\r\x1b[2K{harmless(text)}" if self._is_live else harmless(text),
            end="" if self._is_live else "\n",
            file=sys.stderr,
            flush=True,
        )

    def end(self) -> None:
        if self._is_live and self._shown:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


async def _watch(client: Client, node: str, line: Line) -> dict[str, Any]:
    """Look on until the drain is over. Raises Failed when the node is not there any more."""
    heard = time.monotonic()
    try:
        while True:
            told = await _look(client, node, heard)
            if told is not None:
                heard = time.monotonic()
                line.show(progress(told))
                if told["phase"] != "draining":
                    return told
            await asyncio.sleep(_LOOK)
    finally:
        line.end()


async def _look(client: Client, node: str, heard: float) -> dict[str, Any] | None:
    """How far it is; None when the node does not answer now. Raises Failed when it has not for long."""
    from cluster.errors import CallTimeout, Unavailable

    try:
        return await client.drained(node, timeout=2.0)
    except (Unavailable, CallTimeout) as error:
        if time.monotonic() - heard > _SILENCE:
            raise Failed(f"node {node} does not answer any more: {error}") from None
        return None


def progress(told: Mapping[str, Any]) -> str:
    """One line on a drain that is under way: what is done, and what is still here."""
    here = [f"{told[key]} {key}" for key in ("moving", "waiting", "ending") if told[key]]
    return f"{counted(told)}; {', '.join(here)}" if here else counted(told)


def counted(told: Mapping[str, Any]) -> str:
    """What became of the processes and services, as far as there is anything to say."""
    counts = [f"{told[key]} {words}" for key, words in _COUNTS.items() if told[key]]
    return ", ".join(counts) or "nothing yet"


def _tell(told: Mapping[str, Any]) -> None:
    node, took = told["node"], f"{told['seconds']:.1f} s"
    if told["phase"] == "drained":
        what = "there was nothing to give away" if counted(told) == "nothing yet" else counted(told)
        print(f"{node} is empty after {took}: {what}")
        if told["settled"] is False:
            note(f"messages are still forwarded through {node}: stop it when `wippy drain {node}` says nothing more")
    else:
        print(f"{node} is not empty after {took}: {counted(told)}")
    for one in told["still_here"]:
        print(f"  {printable(one['id'])}  {printable(one['entry'] or '-')}  {printable(one['reason'])}")
    more = told["left"] - len(told["still_here"])
    if more > 0:
        print(f"  and {more} more")
    for reason, number in told["reasons"].items():
        note(f"  {number} times: {reason}")
