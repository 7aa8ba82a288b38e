"""Verbs for the modules a project uses: add, install."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.console import note
from node.cli.failures import Failed

if TYPE_CHECKING:
    from node.project.installing import Plan, Step
    from node.project.resolving import Request

From = Annotated[
    Path | None,
    typer.Option("--from", metavar="DIR", help="A directory that holds the module, or DIR/ORG/MODULE, looked at first"),
]
Lock = Annotated[Path, typer.Option("-l", "--lock-file", metavar="FILE", help="The lock file")]
Refresh = Annotated[
    bool, typer.Option("--refresh", "--force", "--repair", help="Copy anew, over changes made in the project's copy")
]


def add(
    modules: Annotated[list[str], typer.Argument(metavar="ORG/MODULE[@VERSION]...", help="The modules")],
    source: From = None,
    refresh: Refresh = False,
    lock: Lock = Path("wippy.lock"),
) -> None:
    """Use modules: pin the newest (or the given) version in the lock file, copy it and what it needs."""
    from node.project.resolving import Request

    added = dict(_asked(text) for text in modules)
    plan = _carry_out(lock, Request(added=added, directory=_directory(source), refresh=refresh))
    _tell_requirements(plan, added)


def install(
    modules: Annotated[list[str] | None, typer.Argument(metavar="[ORG/MODULE]...", help="Only these")] = None,
    source: From = None,
    refresh: Refresh = False,
    lock: Lock = Path("wippy.lock"),
) -> None:
    """Bring the modules that the lock file pins and the sources name, in the pinned versions."""
    from node.project.resolving import Request

    _carry_out(lock, Request(only=tuple(modules or ()), directory=_directory(source), refresh=refresh))


def _asked(text: str) -> tuple[str, str]:
    """``org/module@1.2.3`` as the component and a constraint."""
    from node.kinds.plain import check_component
    from node.project.versions import satisfies

    component, _, version = text.partition("@")
    if wrong := check_component(component):
        raise Failed(wrong, code=2)
    constraint = "*" if version in ("", "latest") else version
    try:
        satisfies("0", constraint)
    except ValueError as error:
        raise Failed(str(error), code=2) from None
    return component, constraint


def _directory(path: Path | None) -> Path | None:
    if path is not None and not path.is_dir():
        raise Failed(f"--from: there is no directory {path}", code=2)
    return path


def _carry_out(lock: Path, request: Request) -> Plan:
    from node.project.contents import NoModule
    from node.project.installing import carry_out, mend, plan
    from node.project.layout import read_layout
    from node.settings import load_settings

    root = lock.parent.resolve()
    replacements = load_settings(root).workspace.replacements
    layout = read_layout(root, replacements, lock.name)
    try:
        mend(layout)
        made = plan(layout, request)
        carry_out(made)
    except NoModule as reason:
        raise Failed(f"{reason}; nothing was changed") from None
    except OSError as error:
        raise Failed(f"{error.filename}: {error.strerror}; nothing was changed") from None
    _tell(made, made.steps, lock)
    return made


def _tell(made: Plan, steps: Sequence[Step], lock: Path) -> None:
    for step in steps:
        print(_line(step, made.layout.root))
    if not steps:
        note("no modules are used here; `wippy add ORG/MODULE` adds one")
    elif made.lock is not None:
        print(f"wrote {lock}")
    elif not made.changes:
        note("everything is there already")


def _line(step: Step, root: Path) -> str:
    from node.project.inline import shown_path

    module = step.module
    name = f"{module.component} {module.version}".strip()
    match step.origin:
        case "replaced":
            return f"{name}: replaced by {shown_path(module.root, root)}"
        case "there":
            return f"{name}: there already"
        case origin:
            assert step.target is not None
            came = "bundled with wippy" if origin == "bundled" else f"from {shown_path(module.root, root)}"
            return f"{name}: {came}, copied to {shown_path(step.target, root)}"


def _tell_requirements(made: Plan, added: dict[str, str]) -> None:
    from node.project.installing import open_requirements

    for component, names in open_requirements(made, added).items():
        note(f"{component} needs values; give them in the sources, for example in src/_index.yaml:\n")
        lines = [f"  - name: {component.partition('/')[2]}", "    kind: ns.dependency"]
        lines += [f"    component: {component}", "    parameters:"]
        note("\n".join([*lines, *(f"      - {{name: {name}, value: ...}}" for name in names)]))
