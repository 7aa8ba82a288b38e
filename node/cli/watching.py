"""Files pushed when they are saved: each save becomes a version, or an error that changes nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from node.cli.console import note
from node.cli.failures import tell

if TYPE_CHECKING:
    from cluster.client import Client
    from node.settings import Settings

WATCHED = frozenset({".lua", ".yaml", ".yml", ".json", ".md", ".txt", ".html", ".lock"})


async def push_on_save(
    client: Client, app: Path, overrides: Sequence[str], stop: asyncio.Event, settings: Callable[[], Settings]
) -> None:
    """Until ``stop``: watch ``app`` and push its files, loaded with ``settings``, after each change."""
    from watchfiles import Change, awatch

    def matters(change: Change, path: str) -> bool:
        parts = Path(path).relative_to(app).parts
        return Path(path).suffix in WATCHED and not any(part.startswith(".") for part in parts[:-1])

    async for _ in awatch(app, watch_filter=matters, stop_event=stop, debounce=200, step=50, rust_timeout=500):
        await push_saved(client, app, overrides, settings)


async def push_saved(client: Client, app: Path, overrides: Sequence[str], settings: Callable[[], Settings]) -> None:
    """Push the files once and say what came of it."""
    from cluster.errors import ClusterError, Invalid
    from cluster.registry.publish import PushConflict
    from node.cli.registry import TooManyDeletions, push_project, pushed, unified
    from node.modules import MODULES
    from node.project import load_project

    try:
        project = load_project(app, overrides=overrides, settings=settings(), modules=MODULES)
        result = await push_project(client, project, message="saved", careful=True)
    except Invalid as invalid:
        for problem in invalid.problems:
            tell(str(problem))
        note("nothing was pushed; save again when it is right")
    except PushConflict as conflict:
        print("\n".join(unified(each) for each in conflict.conflicts), file=sys.stderr)
        tell(f"{conflict}; nothing was pushed: `wippy registry push --take files` or `--take cluster` decides")
    except TooManyDeletions as refused:
        tell(f"saving {refused}; nothing was pushed; run `wippy registry push` to do it")
    except ClusterError as error:
        tell(str(error))
    else:
        if result.changed_ids:
            note(pushed(result))
