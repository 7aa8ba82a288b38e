"""``wippy up``: a development cluster on this machine.

Starts NATS and etcd on free loopback ports and n nodes as child processes, shows what they
write, pushes files to the registry when they are saved, and says what to try next. Nothing is
restarted when a node dies: that is what the others are for. Ctrl-C stops everything in order;
when this process is killed, everything it started ends too.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.console import note
from node.cli.failures import Failed
from node.cli.places import FOLDER, Place, find_file, is_alive, read_place, remove_place, write_place

if TYPE_CHECKING:
    from cluster.client import Client
    from cluster.embedded import Server
    from node.cli.children import Child
    from node.project import Project
    from node.settings import Settings

READY_SECONDS = 60.0
STOP_SECONDS = 40.0
"""A node gives its processes up to `shutdown.timeout` (30 s); a second Ctrl-C ends it at once."""
BROKEN_SECONDS = 10.0
"""The same when NATS or etcd is gone: without them a node can't end in good order anyway."""
SERVER_POLL_SECONDS = 0.25
SETTINGS = ("registry.publish=always", "registry.write=**", "processes.move=**", "console.enabled=true")
"""What a development cluster has in common with a node that runs its own servers."""
_AGAIN = "start it again with `wippy up`"
NAMES_SECONDS = 3.0
"""How long the suggestions wait for the application to register its names."""


@dataclass(frozen=True)
class Plan:
    """What to start."""

    app: Path
    nodes: int
    cluster: str
    keep: bool
    watch: bool
    overrides: tuple[str, ...]
    settings: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        return [f"node-{number}" for number in range(1, self.nodes + 1)]


def up(
    app: Annotated[Path, typer.Argument(metavar="[APP]", help="The application's directory")] = Path(),
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=20, help="How many nodes")] = 3,
    keep: Annotated[bool, typer.Option("--keep", help=f"Keep the data of NATS and etcd under {FOLDER}/")] = False,
    watch: Annotated[bool, typer.Option("--watch/--no-watch", help="Push files when they are saved")] = True,
    cluster: Annotated[str, typer.Option("--cluster", metavar="NAME", help="The cluster's name")] = "dev",
    override: Annotated[
        list[str] | None, typer.Option("-o", metavar="NS:ENTRY:PATH=VALUE", help="Change an entry")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.PATH=VALUE", help="Change a setting")
    ] = None,
) -> None:
    """Start a development cluster on this machine."""
    if not app.is_dir():
        raise Failed(f"no directory {app}; name the application's directory, or make one with `wippy init`", code=2)
    plan = Plan(app.resolve(), nodes, cluster, keep, watch, tuple(override or ()), tuple(set_ or ()))
    _refuse_second(Path.cwd())
    asyncio.run(Development(plan).run())


def _refuse_second(here: Path) -> None:
    file = find_file(here)
    if file is None or file.parent.parent != here:
        return
    place = read_place(file)
    if place.pid and is_alive(place.pid):
        raise Failed(
            f"a cluster runs here already (process {place.pid}); stop it first, or start this one in another directory"
        )


class Development:
    """One run of ``wippy up``."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._children: list[Child] = []
        self._stop = asyncio.Event()
        self._failed = ""
        self._grace = STOP_SECONDS
        self._serves = False

    async def run(self) -> None:
        """Until it is stopped. Raises Failed when the cluster can't start or all nodes are gone."""
        from cluster.client import Client
        from cluster.embedded import EmbeddedServers
        from cluster.errors import ClusterError
        from cluster.tasks import Tasks
        from node.cli.children import Lifeline
        from node.modules import MODULES
        from node.project import load_project

        began = time.monotonic()
        project = load_project(
            self._plan.app, overrides=self._plan.overrides, settings=self._settings(), modules=MODULES
        )
        for warning in project.warnings:
            note(f"warning: {warning}")
        self._catch_signals()
        kept = Path.cwd() / FOLDER / "servers" if self._plan.keep else None
        async with EmbeddedServers(kept, progress=note) as servers, Tasks("servers", self._broke) as tasks:
            tasks.start(self._watch_servers((servers.nats, servers.etcd)), "watch")
            place = Place(self._plan.cluster, (servers.nats_url,), (servers.etcd_url,), os.getpid())
            try:
                with Lifeline() as lifeline:
                    async with self._nodes(place, lifeline), Client(place.nats, place.etcd, place.cluster) as client:
                        members = await self._ready(client)
                        if members is not None:
                            await self._serve(place, project, client, members, time.monotonic() - began)
            except ClusterError:
                if not self._failed:  # else the failure explains it
                    raise
        if self._failed:
            raise Failed(self._failed)

    def _settings(self) -> Settings:
        """Those of the nodes, as the files say now."""
        from node.settings import load_settings

        return load_settings(self._plan.app, sets=self._plan.settings)

    async def _watch_servers(self, servers: Sequence[Server]) -> None:
        """Notice when NATS or etcd ends by itself, say so, and stop."""
        while not self._stop.is_set():
            for server in servers:
                if (how := server.failure) is not None:
                    self._failed = f"{server.name} ended ({how}) and the cluster can't go on without it; {_AGAIN}"
                    self._grace = BROKEN_SECONDS
                    note(f"{server.name} has ended: {how}; stopping the nodes")
                    self._stop.set()
                    return
            await asyncio.sleep(SERVER_POLL_SECONDS)

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._interrupt)

    def _interrupt(self) -> None:
        if self._stop.is_set():
            note("killing the nodes")
            for child in self._children:
                child.kill()
            return
        note("stopping (once more: kill)")
        self._stop.set()

    @asynccontextmanager
    async def _nodes(self, place: Place, lifeline: int) -> AsyncIterator[None]:
        """The node processes, started together; stopped together when this is left."""
        from cluster.tasks import Tasks
        from node.cli.children import Child

        width = max(len(name) for name in self._plan.names)
        async with Tasks("up", self._broke) as tasks:
            try:
                for number, name in enumerate(self._plan.names):
                    child = Child(name, number, width)
                    await child.start(self._command(name, place), lifeline)
                    self._children.append(child)
                    tasks.start(self._await_end(child, place), name)
                yield
            finally:
                await asyncio.gather(*(child.stop(self._grace) for child in self._children))

    def _command(self, name: str, place: Place) -> list[str]:
        command = [
            sys.executable,
            "-m",
            "node.cli",
            "run",
            str(self._plan.app),
            "--node",
            name,
            "--cluster",
            place.cluster,
        ]
        command.append("--colour" if sys.stderr.isatty() else "--no-colour")
        command += [part for url in place.nats for part in ("--nats", url)]
        command += [part for url in place.etcd for part in ("--etcd", url)]
        command += [part for text in self._plan.overrides for part in ("-o", text)]
        expected = f"cluster.expected_nodes={self._plan.nodes}"
        command += [part for text in (expected, *SETTINGS, *self._plan.settings) for part in ("--set", text)]
        return command

    def _broke(self, task: str, error: BaseException) -> None:
        self._failed = self._failed or f"{task} failed: {error}"
        self._stop.set()

    async def _await_end(self, child: Child, place: Place) -> None:
        """Say that a node ended by itself, and how to have it back."""
        from node.cli.children import how_it_ended
        from node.cli.suggestions import wippy_command

        how = how_it_ended(await child.ended())
        if child.is_stopping:
            return
        if not self._serves or self._failed:
            note(f"{child.name} {how}")
            return
        again = f"{wippy_command()} run {self._plan.app} --node {child.name}"
        others = any(each.code is None for each in self._children)
        moves = "services that ran there go to other nodes; " if others else ""
        note(f"{child.name} {how}; {moves}start it again with: {again}")
        if all(each.code is not None for each in self._children):
            self._failed = "all nodes have ended"
            self._stop.set()

    async def _ready(self, client: Client) -> list[dict[str, Any]] | None:
        """Wait until every node serves; None when that is not to be."""
        from cluster.members import NodeState

        note(f"starting {', '.join(self._plan.names)} with {self._plan.app}")
        deadline = time.monotonic() + READY_SECONDS
        said: set[str] = set()
        while not self._stop.is_set():
            ready = {member.node: member for member in await client.nodes() if member.state is NodeState.READY}
            for name in sorted(set(ready) - said):
                note(f"{name} is ready")
            said |= set(ready)
            if len(ready) == len(self._children):
                return [
                    {"name": child.name, "pid": child.pid, "metrics": f"http://{ready[child.name].http}/metrics"}
                    for child in self._children
                ]
            ended = [child.name for child in self._children if child.code is not None]
            if ended or time.monotonic() > deadline:
                why = f"{', '.join(ended)} ended" if ended else f"not all nodes are ready after {READY_SECONDS:g} s"
                self._failed = f"the cluster did not start: {why}; see the lines above"
                return None
            await asyncio.sleep(0.05)
        return None

    async def _serve(
        self, place: Place, project: Project, client: Client, members: list[dict[str, Any]], seconds: float
    ) -> None:
        """The cluster runs: tell, watch, wait for the end."""
        from cluster.tasks import Tasks
        from node.cli.watching import push_on_save

        self._serves = True
        known = replace(place, nodes=tuple(members), app=str(self._plan.app))
        files = {write_place(directory, known) for directory in (Path.cwd(), self._plan.app)}
        try:
            _tell(members, seconds, await self._suggestions(project, client, members))
            async with Tasks("watching", self._broke) as tasks:
                if self._plan.watch:
                    saving = push_on_save(client, project, self._plan.overrides, self._stop, self._settings)
                    tasks.start(saving, "files")
                await self._stop.wait()
        finally:
            for file in files:
                remove_place(file, place.pid)

    async def _suggestions(self, project: Project, client: Client, members: list[dict[str, Any]]) -> Sequence[Any]:
        from node.cli.suggestions import suggestions

        tries = [entry.meta["try"] for entry in project.entries if isinstance(entry.meta.get("try"), dict)]
        names: dict[str, str] = {}
        deadline = time.monotonic() + NAMES_SECONDS
        while tries and len(names) < len(members) and time.monotonic() < deadline:
            held = (await client.names()).by_node.get(members[0]["name"], [])
            names = {each["name"]: each["pid"] for each in held if each["scope"]}
            await asyncio.sleep(0.05)
        return suggestions(tries, members, names)


def _tell(members: list[dict[str, Any]], seconds: float, suggestions: Sequence[Any]) -> None:
    """What runs now and what to try next, on stdout."""
    count = "1 node is" if len(members) == 1 else f"{len(members)} nodes are"
    lines = ["", f"{count} ready after {seconds:.1f} s", ""]
    lines += [f"  {each['name']:<10} pid {each['pid']:<8} {each['metrics']}" for each in members]
    lines += ["", "Try in another terminal, in this directory:", ""]
    for each in suggestions:
        lines += [f"  # {each.says}", f"  {each.command}", ""]
    lines += ["Files are pushed when you save them. Ctrl-C stops everything.", ""]
    print("\n".join(lines), flush=True)
