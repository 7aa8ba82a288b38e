"""Files pushed when they are saved: each burst of saves becomes a version, or an error that changes nothing.

What can't be pushed because the cluster does not answer is pushed as soon as it does.
"""

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
    from node.cli.registry.pushing import Pushed
    from node.project import Project
    from node.settings import Settings

WATCHED = frozenset({".lua", ".yaml", ".yml", ".json", ".md", ".txt", ".html", ".lock"})
"""Files that matter wherever they are; others do when an entry has their content."""
_QUIET_MS, _BURST_MS = 100, 1600
"""A burst of saves is over after so long without one, or when it has lasted so long."""
_TICK_MS = 500
_SETTLE_SECONDS = 10.0


class Watched:
    """What is watched for saves: the application, its modules' sources elsewhere, the files entries are made of."""

    def __init__(self, project: Project) -> None:
        self.app = project.root
        elsewhere = (each for each in project.directories if not each.is_relative_to(project.root))
        self.directories = (project.root, *elsewhere)
        self._files: frozenset[Path] | None = project.files

    def learn(self, project: Project | None) -> None:
        """What the files said when they were loaded again; None: they are wrong, and any file may set it right."""
        self._files = project.files if project is not None else None

    def matters(self, path: Path) -> bool:
        """Whether a change of ``path`` may change an entry."""
        if self._files is not None and path in self._files:
            return True
        roots = [each for each in self.directories if path.is_relative_to(each)]
        if not roots or any(part.startswith(".") for part in path.relative_to(roots[0]).parts[:-1]):
            return False
        return self._files is None or path.suffix in WATCHED


async def push_on_save(
    client: Client, project: Project, overrides: Sequence[str], stop: asyncio.Event, settings: Callable[[], Settings]
) -> None:
    """Until ``stop``: watch what ``project`` was loaded from; after a change load it with ``settings`` and push it."""
    from watchfiles import awatch

    is_owed = False
    watched = Watched(project)
    saves = awatch(
        *watched.directories,
        watch_filter=lambda change, path: watched.matters(Path(path)),
        stop_event=stop,
        debounce=_BURST_MS,
        step=_QUIET_MS,
        rust_timeout=_TICK_MS,
        yield_on_timeout=True,
    )
    async for saved in saves:
        if saved or is_owed:
            is_owed = not await push_saved(client, watched, overrides, settings, quiet=is_owed and not saved)


async def push_saved(
    client: Client,
    watched: Watched,
    overrides: Sequence[str],
    settings: Callable[[], Settings],
    *,
    quiet: bool = False,
) -> bool:
    """Push the files once and say what came of it. False when the cluster did not answer, so that it is to be repeated.

    ``quiet`` says that this is told already.
    """
    from cluster.errors import CallTimeout, ClusterError, Invalid, OutcomeUnknown, Unavailable
    from cluster.registry.publish import PushConflict
    from node.cli.registry.changes import from_files
    from node.cli.registry.drawing import draw
    from node.cli.registry.pushing import TooManyDeletions, push_project
    from node.modules import MODULES
    from node.project import load_project

    watched.learn(None)
    try:
        project = load_project(watched.app, overrides=overrides, settings=settings(), modules=MODULES)
        watched.learn(project)
        done = await push_project(client, project, message="saved", careful=True)
    except Invalid as invalid:
        for problem in invalid.problems:
            tell(str(problem))
        note("nothing was pushed; save again when it is right")
    except PushConflict as conflict:
        print("\n".join(draw(from_files(conflict.conflicts), "registry", "files")), file=sys.stderr)
        tell(f"{conflict}; nothing was pushed: `wippy registry push --take files` or `--take cluster` decides")
    except TooManyDeletions as refused:
        tell(f"saving {refused}; nothing was pushed; run `wippy registry push` to do it")
    except (Unavailable, CallTimeout, OutcomeUnknown) as error:
        if not quiet:
            tell(f"{error}; what you saved is pushed when the cluster answers")
        return False
    except (ClusterError, OSError) as error:
        tell(str(error))
    else:
        if done.changes:
            await _tell(client, done)
    return True


async def _tell(client: Client, done: Pushed) -> None:
    """In one line what was pushed and where it is."""
    from cluster.errors import ClusterError
    from node.cli.registry.changes import summary
    from node.cli.registry.settling import settle, tell_troubles, told

    said = f"v{done.version}: {summary(done.changes)}"
    try:
        outcomes, took = await settle(client, done.version, _SETTLE_SECONDS)
    except ClusterError as error:
        note(f"{said}; whether the nodes have it can't be told: {error}")
        return
    kept = "; running processes keep their code until they upgrade or start anew" if done.keeps_code else ""
    note(f"{said}, {told(outcomes, took)}{kept}")
    tell_troubles(outcomes)
