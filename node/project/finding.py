"""Where modules are looked for on this machine, and which copy of one is taken.

A replacement stands for its module whatever else there is. Else it is the project's own copy
under ``<modules>/vendor``, or the one bundled with this program; of several the newest, or the
one that ``wippy.lock`` pins. A copy whose content is not what the lock file pins is refused, not
passed over. The remote hub is never reached.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field

from cluster.errors import Problem
from node.project.contents import NoModule, module_hash
from node.project.inline import shown_path
from node.project.layout import LOCK, Layout, Pin, Section, read_layout, read_model
from node.project.versions import parse_version, version_flaw
from node.scalars import PlainText

BUNDLED = Path(__file__).parents[1] / "bundled"
"""The modules that come with the program: ``organization/module`` each."""
MANIFEST = "wippy.yaml"
_VERSIONED = re.compile(r"-(v?\d[^/]*)")
NO_HUB = "the remote hub is not reached"


class _Manifest(Section):
    organization: str = ""
    module: str = ""
    version: PlainText = ""
    exclude: list[str] = Field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Module:
    """A module found on this machine."""

    component: str
    root: Path
    source: Path
    version: str
    """Empty when neither its manifest nor the name of its directory says one."""
    exclude: tuple[str, ...]

    @property
    def order(self) -> tuple[int, int, int]:
        """What the newest of several is told by."""
        return parse_version(self.version) if self.version else (-1, 0, 0)

    def hash(self) -> str:
        """Raises NoModule."""
        return module_hash(self.root, self.exclude)

    def has_version(self, version: str) -> bool:
        """Whether it is this version, or may be."""
        return not (version and self.version) or parse_version(version) == parse_version(self.version)


def find_module(layout: Layout, component: str) -> Module | str:
    """The module of a component, or why there is none."""
    try:
        return _find(layout, component)
    except NoModule as reason:
        return str(reason)


def _find(layout: Layout, component: str) -> Module:
    replacement = layout.replacements.get(component)
    if replacement is not None:
        return replaced(component, replacement)
    pin = layout.pinned.get(component, Pin("", ""))
    there = [*vendored(layout, component), *bundled(component)]
    fitting = [module for module in there if module.has_version(pin.version)]
    if not fitting:
        raise NoModule(_missing(layout, component, pin, there))
    own = [module for module in fitting if not module.root.is_relative_to(BUNDLED)]
    module = max(own or fitting, key=lambda each: each.order)
    if wrong := hash_flaw(module, pin, layout):
        raise NoModule(wrong)
    return replace(module, version=module.version or pin.version)


def hash_flaw(module: Module, pin: Pin, layout: Layout) -> str:
    """What is wrong with a copy that must have the content the lock file pins. Raises NoModule."""
    if not pin.hash or module.hash() == pin.hash:
        return ""
    where = shown_path(module.root, layout.root)
    return (
        f"{where} is not what {layout.lock} pins (hash {pin.hash[:12]}...): it was changed, or the hash was made from "
        f"a packed module; `wippy install --refresh` puts the pinned copy back, `wippy add {module.component}` pins "
        "what is there"
    )


def _missing(layout: Layout, component: str, pin: Pin, there: list[Module]) -> str:
    if there:
        found = " and ".join(f"{each.version} in {shown_path(each.root, layout.root)}" for each in there)
        return f"{layout.lock} pins {pin.version}, there is {found}; `wippy add {component}` pins another version"
    where = shown_path(vendor_folder(layout, component), layout.root)
    packed = sorted(vendor_folder(layout, component).parent.glob(f"{component.partition('/')[2]}-*.wapp"))
    if packed:
        return f"{packed[0].name} is packed, which this version does not read; unpack it into {where}"
    remedy = f"`wippy add {component} --from DIRECTORY` takes it from a local one, workspace.replacements names one"
    return f"it is not in {where} and not bundled with wippy; {remedy} ({NO_HUB})"


def vendor_folder(layout: Layout, component: str) -> Path:
    """Where ``wippy install`` puts a module."""
    return layout.modules / "vendor" / component


def vendored(layout: Layout, component: str) -> list[Module]:
    """The project's own copies. Raises NoModule for a broken one."""
    return list(_versions(vendor_folder(layout, component), component))


def bundled(component: str) -> list[Module]:
    """The copy that comes with the program."""
    return list(_versions(BUNDLED / component, component))


def bundled_names() -> list[str]:
    """The modules that come with the program."""
    return sorted(f"{each.parent.name}/{each.name}" for each in BUNDLED.glob("*/*") if each.is_dir())


def local(directory: Path, component: str) -> list[Module]:
    """The copies in a directory of modules, or the directory itself when its manifest names the component.

    Raises NoModule for a broken one.
    """
    found = list(_versions(directory / component, component))
    manifest = _manifest(directory)
    if f"{manifest.organization}/{manifest.module}" == component:
        found.append(_module(component, directory, manifest.version))
    return found


def replaced(component: str, directory: Path) -> Module:
    """The directory that stands for a module. Raises NoModule."""
    if not directory.is_dir():
        raise NoModule(f"its replacement {directory} is no directory")
    return _module(component, directory, _manifest(directory).version)


def _versions(folder: Path, component: str) -> Iterator[Module]:
    """``folder``, and those beside it with a version behind its name."""
    for directory in sorted(folder.parent.glob(f"{folder.name}*")):
        suffix = directory.name.removeprefix(folder.name)
        versioned = _VERSIONED.fullmatch(suffix)
        if directory.is_dir() and (not suffix or (versioned and not version_flaw(versioned[1]))):
            manifest = _manifest(directory)
            named = f"{manifest.organization}/{manifest.module}"
            if manifest.organization and manifest.module and named != component:
                raise NoModule(f"{directory} holds {named}, not {component}")
            yield _module(component, directory, manifest.version or (versioned[1] if versioned else ""))


def _manifest(root: Path) -> _Manifest:
    if not (root / MANIFEST).is_file():
        return _Manifest()
    problems: list[Problem] = []
    manifest = read_model(root / MANIFEST, str(root / MANIFEST), _Manifest, problems) or _Manifest()
    if problems:
        raise NoModule("; ".join(str(problem) for problem in problems))
    if wrong := version_flaw(manifest.version):
        raise NoModule(f"{root / MANIFEST}: version: {wrong}")
    return manifest


def _module(component: str, root: Path, version: str) -> Module:
    source = read_layout(root, {}).source if (root / LOCK).is_file() else None
    if source is not None and not source.resolve().is_relative_to(root.resolve()):
        raise NoModule(f"{root / LOCK}: directories.src leads outside of the module")
    fallback = root / "src" if (root / "src").is_dir() else root
    return Module(component, root, source or fallback, version, tuple(_manifest(root).exclude))
