"""A node in the foreground: its log and output, its files, what goes on beside it while it serves.

The part of ``wippy run`` that needs everything; imported when a node really starts.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import structlog
import uvloop

from cluster.errors import Problem
from cluster.tasks import Tasks
from node.cli import places
from node.cli.gateway import cluster_sets, connected
from node.cli.watching import push_on_save
from node.logs import Level, Logs, LogSettings
from node.main import NodeOptions, Place, ReadyHook, run_node
from node.modules import MODULES
from node.output import Output
from node.project import Project, load_project
from node.settings import Settings, load_settings


@dataclass(frozen=True)
class Start:
    """What ``run`` was asked for, worked out."""

    settings: Settings
    directory: Path
    execute: str | None
    arguments: Sequence[str]
    terminal_host: str | None
    overrides: tuple[str, ...]
    keep: bool
    watch: bool
    colour: bool | None
    silent: bool
    parent_fd: int | None


def foreground(start: Start) -> int:
    """Run the node to its end and return the exit code."""
    logger = start.settings.logger
    level = log_level(logger.level, start.silent)
    colour = sys.stderr.isatty() if start.colour is None else start.colour
    with Output() as output:
        logs = Logs(output, LogSettings(level, logger.encoding, colour and logger.encoding == "console"))
        logs.configure()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run(start, output, logs))


def log_level(set_level: str, silent: bool) -> Level:
    """The lowest level to show: a silent node still says what went wrong."""
    return "error" if silent else cast(Level, {"warn": "warning"}.get(set_level, set_level))


async def _run(start: Start, output: Output, logs: Logs) -> int:
    settings = start.settings
    _warn(settings.warnings)
    project = load_project(start.directory, overrides=start.overrides, settings=settings, modules=MODULES)
    _warn(project.warnings)
    async with Tasks("beside the node") as tasks:
        options = NodeOptions(
            settings=settings,
            node=settings.node,
            entries=project.entries,
            directory=start.directory,
            publish=settings.registry.publish or ("always" if settings.embedded else "if-empty"),
            execute=start.execute,
            args=start.arguments,
            terminal_host=start.terminal_host,
            keep=start.directory / places.FOLDER / "servers" if start.keep else None,
            parent_fd=start.parent_fd,
            on_ready=Readiness(start, project, tasks),
        )
        return await run_node(options, output, logs)


def _warn(warnings: Iterable[Problem]) -> None:
    for warning in warnings:
        structlog.get_logger("wippy.settings").warning(str(warning))


class Readiness(ReadyHook):
    """While the node serves: other verbs find its cluster, and saved files are pushed."""

    def __init__(self, start: Start, project: Project, tasks: Tasks) -> None:
        self._start = start
        self._project = project
        self._tasks = tasks
        self._stop = asyncio.Event()
        self._file: Path | None = None

    def started(self, place: Place) -> None:
        if place.embedded:
            own = os.getpid()
            node = {"name": self._start.settings.node, "pid": own, "metrics": f"http://{place.metrics}/metrics"}
            known = places.Place(place.cluster, place.nats, place.etcd, own, (node,), str(self._start.directory))
            self._file = places.write_place(self._start.directory, known)
        if self._start.watch:
            self._tasks.start(self._push_on_save(place), "files")

    def stopped(self) -> None:
        self._stop.set()
        if self._file is not None:
            places.remove_place(self._file, os.getpid())

    async def _push_on_save(self, place: Place) -> None:
        servers = cluster_sets(place.nats, place.etcd, place.cluster)
        start = self._start
        async with connected(load_settings(start.directory, sets=servers)) as client:
            await push_on_save(client, self._project, start.overrides, self._stop, lambda: start.settings)
