"""Modules put into a project: copied under ``<modules>/vendor`` and pinned in the lock file.

``plan`` says what would be done, ``carry_out`` does it, all or nothing: copies are made aside,
checked, and moved into place under a lock; a failure moves everything back. After a kill in between
``mend`` puts back what was moved aside, and the next run completes the rest. A copy somebody changed is
overwritten only when asked.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import Invalid, Problem
from cluster.registry.entry import split_id
from node.project.contents import NoModule, copy_module
from node.project.definitions import Definitions, Tree
from node.project.draft import Draft
from node.project.finding import Module, vendor_folder
from node.project.inline import shown_path
from node.project.layout import Layout, Pin, lock_content
from node.project.linking import REQUIREMENT, parameters
from node.project.lockfile import lock_text, write_lock
from node.project.modules import DEPENDENCY
from node.project.resolving import Choice, Request, resolve

_STAGING, _NEW, _OLD = ".install-", "new", "old"


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one module."""

    module: Module
    origin: str
    """``replaced``, ``there``, ``bundled`` or ``local``."""
    target: Path | None
    """Where it is copied to; None when it stays where it is."""
    pin: Pin | None
    """What the lock file says of it afterwards; None for a replaced one."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done for a project."""

    layout: Layout
    steps: Sequence[Step]
    lock: str | None
    """The new text of the lock file; None when it stays."""

    @property
    def changes(self) -> bool:
        return self.lock is not None or any(step.target is not None for step in self.steps)


def plan(layout: Layout, request: Request) -> Plan:
    """What ``request`` means for the project. Raises Invalid with every reason why it can't be done."""
    problems: list[Problem] = []
    steps: list[Step] = []
    for component, choice in sorted(resolve(layout, request).items()):
        try:
            steps.append(_step(layout, component, choice, request.refresh))
        except NoModule as reason:
            problems.append(Problem(f"module {component}: {reason}", file=layout.lock))
    if problems:
        raise Invalid(problems)
    pins = {**layout.pinned, **{step.module.component: step.pin for step in steps if step.pin is not None}}
    return Plan(layout, steps, lock_text(layout, pins) if pins != layout.pinned else None)


def _step(layout: Layout, component: str, choice: Choice, refresh: bool) -> Step:
    module = choice.module
    if choice.origin == "replaced":
        return Step(module, choice.origin, None, None)
    pinned = layout.pinned.get(component, Pin("", ""))
    pin = Pin(module.version or pinned.version, module.hash())
    target = vendor_folder(layout, component)
    if choice.origin == "there" or (target.is_dir() and _hash_of(target, module) == pin.hash):
        return Step(module, "there", None, pin)
    if target.exists() and not refresh and not (pinned.hash and _hash_of(target, module) == pinned.hash):
        where = shown_path(target, layout.root)
        raise NoModule(f"{where} holds changes the lock file does not know; --refresh overwrites them")
    return Step(module, choice.origin, target, pin)


def _hash_of(target: Path, module: Module) -> str:
    """The hash of what is in place of a module, as if it were that module."""
    return Module(module.component, target, target, "", module.exclude).hash() if target.is_dir() else ""


def carry_out(plan: Plan) -> None:
    """Do it. Raises NoModule or OSError, and then nothing has changed."""
    if not plan.changes:
        return
    copies = [(step, step.target) for step in plan.steps if step.target is not None]
    vendor = _vendor(plan.layout)
    with _locked(vendor) as staging, _moved_back() as undo:
        _check_lock(plan.layout)
        for step, target in copies:
            fresh = staging / _NEW / step.module.component
            copy_module(step.module.root, step.module.exclude, fresh)
            _check(fresh, step)
            target.parent.mkdir(parents=True, exist_ok=True)
            (staging / _OLD / step.module.component).parent.mkdir(parents=True, exist_ok=True)
        for step, target in copies:
            _swap(staging / _NEW / step.module.component, target, staging / _OLD / step.module.component, undo)
        if plan.lock is not None:
            write_lock(plan.layout, plan.lock)


def mend(layout: Layout) -> None:
    """Put back what a killed installation had moved aside, and clean up after it. Raises NoModule or OSError."""
    if any(_vendor(layout).glob(f"{_STAGING}*")):
        with _locked(_vendor(layout)):
            pass


def _vendor(layout: Layout) -> Path:
    return layout.modules / "vendor"


def _check_lock(layout: Layout) -> None:
    """What was planned from another lock file would take back what somebody pinned meanwhile."""
    if lock_content(layout) != layout.content:
        raise NoModule(f"{layout.lock} was changed meanwhile; try again")


def _check(fresh: Path, step: Step) -> None:
    if step.pin is None or _hash_of(fresh, step.module) != step.pin.hash:
        raise NoModule(f"{step.module.root} changed while it was copied; try again")


def _swap(fresh: Path, target: Path, former: Path, undo: list[tuple[Path, Path]]) -> None:
    if target.exists():
        os.rename(target, former)
        undo.append((former, target))
    os.rename(fresh, target)
    undo.append((target, fresh))


@contextmanager
def _moved_back() -> Iterator[list[tuple[Path, Path]]]:
    """Moves (from, to) that are made again, in reverse, when something fails."""
    moves: list[tuple[Path, Path]] = []
    try:
        yield moves
    except BaseException:
        for origin, target in reversed(moves):
            os.rename(origin, target)
        raise


@contextmanager
def _locked(vendor: Path) -> Iterator[Path]:
    """A directory to work in, for one installation at a time."""
    vendor.mkdir(parents=True, exist_ok=True)
    with (vendor / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NoModule(f"another installation works in {vendor}; wait for it") from None
        for stale in vendor.glob(f"{_STAGING}*"):
            for former in stale.glob(f"{_OLD}/*/*"):
                if not (target := vendor / former.relative_to(stale / _OLD)).exists():
                    os.rename(former, target)
            shutil.rmtree(stale, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=vendor))
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def open_requirements(plan: Plan, added: Collection[str]) -> dict[str, list[str]]:
    """What modules that were added need and nobody in the sources gives, by component."""
    found: dict[str, list[str]] = {}
    given = _given(plan.layout)
    for module in (step.module for step in plan.steps if step.module.component in added):
        tree = Tree(module.source, module.root, module.component, module.exclude)
        holes = [draft for draft in _drafts(tree) if draft.kind == REQUIREMENT and draft.data.get("default") is None]
        names = [split_id(draft.id)[1] for draft in holes if not given & {draft.id, split_id(draft.id)[1]}]
        if names:
            found[module.component] = names
    return found


def _given(layout: Layout) -> set[str]:
    if layout.source is None:
        return set()
    own = [draft for draft in _drafts(Tree(layout.source, layout.base)) if draft.kind == DEPENDENCY]
    return {name for dependency in own for name, _ in parameters(dependency)}


def _drafts(tree: Tree) -> Collection[Draft]:
    definitions = Definitions(tree.base)
    definitions.read_tree(tree)
    return definitions.drafts.values()
