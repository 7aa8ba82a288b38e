"""Writes the reference pages that are made from the program: ``python -m tests.docs``.

``docs/cli.md`` from the verbs, ``docs/configuration.md`` from the settings, ``docs/kinds.md`` from the models of the
kinds. A test compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from node.cli.app import build
from node.settings import ENVIRONMENT
from node.settings.describe import describe
from tests.kinds import kinds_page, sentence

DOCS = Path(__file__).parents[1] / "docs"

CLI = """# The command line

`wippy VERB --help` says the same. Exit codes: 0 done, 1 an error (one line on stderr says what, where and what next),
2 wrong usage, 130 interrupted; `wippy run -x` ends with the code of the program.

Verbs that need a cluster find it by `--nats` and `--etcd`, then `WIPPY_NATS` and `WIPPY_ETCD`, then `.wippy.yaml` of
this directory, then `.wippy/cluster.json` here or above, which `wippy up` writes. They go through any ready node, or
through the one named with `--node`. Listings print a table on a terminal, plain columns into a pipe, and JSON with
`--json`.

"""

CONFIGURATION = """# Settings of a node

In `.wippy.yaml` of the application's directory (or the files named with `--config`), in the environment, and as
`--set section.path=value`; later ones win in this order. Durations are written `500ms`, `5s`, `1h30m`. Files may hold
`${env:NAME}` and `${name}` of the section `vars`. Unknown settings are refused, with file and line. Settings marked
"Accepted" belong to the original runtime and have no effect.

Application configuration that changes while the cluster runs does not belong here: see `wippy config` in
[cli.md](cli.md).

"""


def cli_page() -> str:
    """The verbs with their arguments and options."""
    return CLI + "\n".join(_verbs(typer.main.get_command(build()), "wippy"))


def _verbs(command: Any, path: str) -> Iterator[str]:
    inner = getattr(command, "commands", None)
    if inner is not None:
        for name, each in inner.items():
            yield from _verbs(each, f"{path} {name}")
        return
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    arguments = [parameter for parameter in shown if parameter.param_type_name == "argument"]
    options = [parameter for parameter in shown if parameter.param_type_name == "option" and not _is_place(parameter)]
    usage = " ".join([path, *(_metavar(argument) for argument in arguments)])
    yield f"## `{usage}`\n"
    yield f"{sentence(command.help)}\n"
    rows = [(f"`{_metavar(each)}`", each.help) for each in arguments if each.help]
    rows += [(f"`{_flags(each)}`", each.help) for each in options]
    bar = r"\|"
    if rows:
        yield "| | |\n|--|--|"
        yield "\n".join(f"| {name.replace('|', bar)} | {sentence(text)} |" for name, text in rows)
        yield ""


def _is_place(parameter: Any) -> bool:
    """The options that say which cluster is meant are explained once, at the top."""
    return getattr(parameter, "rich_help_panel", None) == "Which cluster"


def _metavar(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _flags(option: Any) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    return names if option.is_flag else f"{names} {option.metavar or 'VALUE'}"


def configuration_page() -> str:
    """Every setting, its default and its environment variable."""
    parts = [CONFIGURATION]
    section = ""
    for setting in describe():
        head = setting.path.split(".")[0]
        if head != section:
            parts.append(f"\n## {head}\n\n| setting | default | |\n|--|--|--|\n")
            section = head
        default = f"`{setting.default}`" if setting.default else ""
        parts.append(f"| `{setting.path}` | {default} | {sentence(setting.text)} |\n")
    parts.append("\n## Environment\n\n| variable | setting |\n|--|--|\n")
    parts += [f"| `{name}` | `{path}` |\n" for name, path in ENVIRONMENT.items()]
    return "".join(parts)


PAGES = {"cli.md": cli_page, "configuration.md": configuration_page, "kinds.md": kinds_page}


def main() -> None:
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
        print(f"wrote {DOCS / name}")


if __name__ == "__main__":
    main()
