"""Files pushed when they are saved: each save becomes a version, or an error that changes nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from node.cli.console import note
from node.cli.failures import tell

if TYPE_CHECKING:
    from cluster.client import Client

WATCHED = frozenset({".lua", ".yaml", ".yml", ".json", ".md", ".txt", ".html", ".lock"})


async def push_on_save(client: Client, app: Path, overrides: Iterable[str], stop: asyncio.Event) -> None:
    """Until ``stop``: watch ``app`` and push its files after each change."""
    from watchfiles import Change, awatch

    def matters(change: Change, path: str) -> bool:
        parts = Path(path).relative_to(app).parts
        return Path(path).suffix in WATCHED and not any(part.startswith(".") for part in parts[:-1])

    async for _ in awatch(app, watch_filter=matters, stop_event=stop, debounce=200, step=50, rust_timeout=500):
        await _push(client, app, overrides)


async def _push(client: Client, app: Path, overrides: Iterable[str]) -> None:
    from cluster.errors import ClusterError, Invalid
    from cluster.registry.publish import PushConflict
    from node.cli.registry import push_files, pushed, unified

    try:
        result = await push_files(client, app, overrides, message="saved")
    except Invalid as invalid:
        for problem in invalid.problems:
            tell(str(problem))
        note("nothing was pushed; save again when it is right")
    except PushConflict as conflict:
        print("\n".join(unified(each) for each in conflict.conflicts), file=sys.stderr)
        tell(f"{conflict}; nothing was pushed: `wippy registry push --take files` or `--take cluster` decides")
    except ClusterError as error:
        tell(str(error))
    else:
        if result.changed:
            note(pushed(result))
