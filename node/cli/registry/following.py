"""``wippy registry watch``: new versions as they come, one line each, until Ctrl-C.

While etcd is away it says so and waits; what came meanwhile is shown afterwards, in order.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.console import Format, note, paint, printable
from node.cli.gateway import AsJson, Listing, listing
from node.cli.registry.changes import EntryChange, between, ids_by_sort, summary
from node.cli.registry.drawing import show_changes
from node.cli.registry.opening import opened

if TYPE_CHECKING:
    from cluster.client import Client
    from cluster.registry.history import Step
    from cluster.registry.record import VersionInfo

_ASK_SECONDS = 2.0


async def watch(
    client: Client,
    diff: Annotated[bool, typer.Option("--diff", help="Show also how the entries changed")] = False,
    format: Listing = Format.TEXT,
    as_json: AsJson = False,
) -> None:
    """New versions as they come, one line each (with --json one JSON value per line), until Ctrl-C."""
    wanted = listing(format, as_json)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with opened(client, empty=True) as registry:
        with registry.follow() as steps:
            version = registry.state.version
            now = f"v{version} holds now" if version >= 0 else "nothing is published yet"
            note(f"{now}; waiting for the next version (Ctrl-C ends)")
            await _until(stop, client, steps, wanted, diff)


async def _until(stop: asyncio.Event, client: Client, steps: AsyncIterator[Step], format: Format, diff: bool) -> None:
    from cluster.tasks import Tasks

    async with Tasks("watch") as tasks:
        shown = tasks.start(_show(steps, format, diff), "versions")
        asked = tasks.start(_tell_outages(client), "etcd")
        stopped = tasks.start(stop.wait(), "stop")
        done, _ = await asyncio.wait((shown, asked, stopped), return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopped}:
            task.result()


async def _show(steps: AsyncIterator[Step], format: Format, diff: bool) -> None:
    async for step in steps:
        changes = between(step.before, step.after)
        before, version = step.before.version, step.after.version
        if format is Format.JSON:
            print(json.dumps(_value(before, version, step.info, changes), ensure_ascii=False), flush=True)
            continue
        if version > before + 1 and before >= 0:
            note(f"the next line has the changes of v{before + 1} to v{version}: the history holds them no more")
        paint([(line(version, step.info, changes), "bold")])
        if diff:
            show_changes(changes, f"v{before}", f"v{version}")
        sys.stdout.flush()


def line(version: int, info: VersionInfo | None, changes: list[EntryChange]) -> str:
    """One version in one line."""
    if info is None:
        return f"v{version}  {summary(changes)}"
    said = f'  "{info.message}"' if info.message else ""
    time = info.time.astimezone().strftime("%H:%M:%S")
    return (
        f"v{version}  {time}  {printable(info.author)} ({printable(info.where)})  {summary(changes)}{printable(said)}"
    )


def _value(before: int, version: int, info: VersionInfo | None, changes: list[EntryChange]) -> dict[str, Any]:
    return {
        "version": version,
        "before": before,
        "time": info.time.isoformat() if info else None,
        "author": info.author if info else None,
        "where": info.where if info else None,
        "message": info.message if info else None,
        "overlay": info.overlay if info else None,
        **ids_by_sort(changes),
    }


async def _tell_outages(client: Client) -> None:
    """Say when etcd stops answering and when it is back; the versions come by themselves."""
    from cluster.errors import ClusterError
    from cluster.etcd import EtcdRefused

    is_away = False
    while True:
        await asyncio.sleep(_ASK_SECONDS)
        try:
            await client.etcd.get(client.keys.head)
        except EtcdRefused:
            continue  # it answers
        except ClusterError as error:
            if not is_away:
                note(f"etcd does not answer; waiting for it ({error})")
            is_away = True
        else:
            if is_away:
                note("etcd answers again")
            is_away = False
