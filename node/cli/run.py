"""``wippy run``: one node, with the application of a directory.

With servers named (flags, environment, ``.wippy.yaml``) it joins that cluster. Without, it
joins the development cluster of the application when one runs, and else starts servers of its
own. A positional that names a directory is the application; any other is a command of it, and
what follows belongs to the program.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.console import Format, note, show
from node.cli.failures import Failed
from node.cli.gateway import ClusterName, EtcdUrls, NatsUrls, cluster_sets
from node.cli.places import FOLDER, find_file, is_alive, is_of, read_place

if TYPE_CHECKING:
    from node.kinds import Command
    from node.settings import Settings

_VALUED = frozenset(
    {"-x", "--execute", "-o", "--override", "--set", "--config", "--host", "--node", "--parent-fd"}
    | {"--nats", "--etcd", "--cluster"}
)
"""Options of ``run`` that take a value: what stands behind them is no positional."""


def place_app(arguments: Sequence[str]) -> list[str]:
    """``run [OPTIONS] DIR ...`` as ``run --app DIR [OPTIONS] ...``: options may stand on both sides of it."""
    if not arguments or arguments[0] != "run":
        return list(arguments)
    position = 1
    while position < len(arguments) and arguments[position].startswith("-"):
        if arguments[position] in ("-x", "--execute", "--"):
            return list(arguments)  # what follows belongs to the program
        position += 2 if arguments[position] in _VALUED else 1
    if position == len(arguments) or not Path(arguments[position]).is_dir():
        return list(arguments)
    return ["run", "--app", arguments[position], *arguments[1:position], *arguments[position + 1 :]]


def run(
    given: Annotated[
        list[str] | None,
        typer.Argument(metavar="[APP] [COMMAND] [ARGS]...", help="A directory; a command and its arguments"),
    ] = None,
    app: Annotated[Path | None, typer.Option("--app", hidden=True)] = None,
    execute: Annotated[
        str | None,
        typer.Option("-x", "--execute", metavar="NS:ENTRY", help="Run this process in the terminal, with ARGS"),
    ] = None,
    host: Annotated[str | None, typer.Option("--host", metavar="ID", help="Which terminal host, of several")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("-o", "--override", metavar="NS:ENTRY:PATH=VALUE", help="Change an entry")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.PATH=VALUE", help="Change a setting")
    ] = None,
    config: Annotated[
        list[Path] | None, typer.Option("--config", metavar="FILE", help="Settings instead of .wippy.yaml; repeatable")
    ] = None,
    node: Annotated[str | None, typer.Option("--node", metavar="NAME", help="This node's name [WIPPY_NODE]")] = None,
    keep: Annotated[bool, typer.Option("--keep", help=f"Keep the data of servers of its own under {FOLDER}/")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Push files when they are saved")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Log debug lines too")] = False,
    silent: Annotated[bool, typer.Option("-s", "--silent", help="Log nothing below errors")] = False,
    colour: Annotated[bool | None, typer.Option("--colour/--no-colour", help="Colours in the log")] = None,
    parent_fd: Annotated[int | None, typer.Option("--parent-fd", hidden=True)] = None,
    nats: NatsUrls = None,
    etcd: EtcdUrls = None,
    cluster: ClusterName = None,
) -> None:
    """Run a node, or a program of the application.

    When no servers are named it joins the `wippy up` that runs the same application, or was started in the same
    directory; else it starts servers of its own.
    """
    directory = (app or Path()).resolve()
    arguments = list(given or [])
    levels = ["logger.level=debug"] * verbose + ["logger.level=error"] * silent
    named = [f"relay.node_name={node}"] if node else []
    servers = cluster_sets(nats or (), etcd or (), cluster)
    settings = _settings(directory, config, [*(sets or []), *levels, *named, *servers])
    if execute is None and arguments:
        execute, arguments = _command(directory, settings, overrides or [], arguments)
        if execute is None:
            return
    from node.cli.foreground import Start, foreground

    asked = Start(
        settings=settings,
        directory=directory,
        execute=execute,
        arguments=arguments,
        terminal_host=host,
        overrides=tuple(overrides or ()),
        keep=keep,
        watch=watch,
        colour=colour,
        silent=silent,
        parent_fd=parent_fd,
    )
    if code := foreground(asked):
        raise Failed("", code=code)


def _settings(directory: Path, config: Sequence[Path] | None, sets: list[str]) -> Settings:
    """The node's settings; when they name no servers, those of the cluster that runs the application already."""
    from node.settings import load_settings

    settings = load_settings(directory, files=config, sets=sets)
    if not settings.embedded:
        return settings
    file = find_file(directory) or find_file(Path.cwd())
    place = read_place(file) if file else None
    if file is None or place is None or not (place.pid and is_alive(place.pid)):
        return settings
    if not is_of(place, file, directory):
        note(
            f"cluster {place.cluster} that runs here is of another application ({place.app or file}): this node gets "
            "servers of its own; --nats and --etcd would join"
        )
        return settings
    note(f"joining cluster {place.cluster} that runs here already ({file})")
    guest = [] if settings.relay.node_name else [f"relay.node_name=run-{os.getpid()}"]
    return load_settings(
        directory, files=config, sets=[*sets, *cluster_sets(place.nats, place.etcd, place.cluster), *guest]
    )


def _command(
    directory: Path, settings: Settings, overrides: Sequence[str], arguments: list[str]
) -> tuple[str | None, list[str]]:
    """The entry of a command and its arguments; (None, ...) after ``run list`` has listed them."""
    from node.modules import MODULES
    from node.project import load_project

    name, *rest = arguments
    known = load_project(directory, overrides=tuple(overrides), settings=settings, modules=MODULES).commands()
    found = next((each for each in known if each.name == name), None)
    if found is not None:
        return found.entry, rest
    if name == "list" and not rest:
        _list(known)
        return None, []
    names = ", ".join(each.name for each in known) or "none"
    raise Failed(f"{name!r} is no directory and no command of {directory}; its commands: {names}", code=2)


def _list(known: Sequence[Command]) -> None:
    rows = [{"name": each.name, "short": each.short, "entry": each.entry} for each in known]
    show(rows, {"name": "COMMAND", "short": "WHAT IT DOES", "entry": "ENTRY"}, Format.TEXT, empty="no commands")
