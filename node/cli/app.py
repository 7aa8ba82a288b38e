"""The verbs of ``wippy``, put together, and its entry point."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from node.cli import (
    act,
    config,
    doctor,
    drain,
    inspect,
    letters,
    look,
    modules,
    operate,
    project,
    prompt,
    registry,
    run,
    services,
    top,
    tree,
    up,
)
from node.cli.failures import guarded
from node.cli.gateway import clustered

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


def build() -> typer.Typer:
    """The command line."""
    app = typer.Typer(
        name="wippy",
        help="A runtime for software that changes while it runs, on one machine or many.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings=_SETTINGS,
    )
    app.callback()(_options)
    app.command("up")(up.up)
    app.command("run", context_settings={"allow_interspersed_args": False})(run.run)
    app.command("init")(project.init)
    app.command("add")(modules.add)
    app.command("install")(modules.install)
    for verb in (
        look.nodes,
        look.ps,
        look.names,
        look.locks,
        services.services,
        tree.tree,
        top.top,
        inspect.inspect,
        act.send,
        act.call,
        act.spawn,
        act.cancel,
        act.terminate,
        prompt.console,
        operate.cordon,
        operate.uncordon,
        operate.label,
        operate.release,
        operate.move,
        drain.drain,
        doctor.doctor,
    ):
        app.command(verb.__name__)(clustered(verb))
    app.command("dead-letters")(clustered(letters.dead_letters))
    app.add_typer(_registry(), name="registry")
    app.add_typer(_config(), name="config")
    app.command("version")(project.version)
    return app


def _version(asked: bool) -> None:
    if asked:
        project.version()
        raise typer.Exit


def _options(
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show the traceback of an unexpected error")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="The same as `wippy version`", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Options of every verb."""


def _registry() -> typer.Typer:
    group = typer.Typer(help="The registry: what the cluster runs.", no_args_is_help=True, rich_markup_mode=None)
    group.command("list")(clustered(registry.list_))
    for verb in (registry.show, registry.diff, registry.push, registry.history, registry.rollback, registry.watch):
        group.command(verb.__name__)(clustered(verb))
    return group


def _config() -> typer.Typer:
    group = typer.Typer(
        help="The operator's configuration, laid over entries.", no_args_is_help=True, rich_markup_mode=None
    )
    for name, verb in (("list", config.list_), ("get", config.get), ("set", config.set_), ("unset", config.unset)):
        group.command(name)(clustered(verb))
    return group


def main(arguments: list[str] | None = None) -> int:
    """Run ``wippy`` with the given arguments (those of the process without); returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    return guarded(lambda: _invoke(run.place_app(given)), verbose=bool({"-v", "--verbose"} & set(given[:2])))


def _invoke(arguments: list[str]) -> None:
    try:
        build()(arguments, prog_name="wippy")
    except SystemExit as exit:
        if exit.code:
            from node.cli.failures import Failed

            raise Failed("", code=exit.code if isinstance(exit.code, int) else 1) from None
