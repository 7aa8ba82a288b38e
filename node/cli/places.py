"""``.wippy/cluster.json``: where the development cluster of a directory is.

``wippy up`` and a ``wippy run`` with embedded servers write it, so that every verb typed in the
same directory or below finds them. It is looked at last, after flags, environment and ``.wippy.yaml``.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from node.cli.failures import Failed

FOLDER = ".wippy"
FILE = "cluster.json"


@dataclass(frozen=True)
class Place:
    """How to reach a cluster."""

    cluster: str
    nats: tuple[str, ...]
    etcd: tuple[str, ...]
    pid: int = 0
    """The process that runs it when it is a development cluster, else 0."""
    nodes: tuple[dict[str, Any], ...] = field(default=())
    """Its nodes as they were when the file was written: name, pid, metrics."""
    app: str = ""
    """The directory of the application it runs."""


def running_place(start: Path) -> Place:
    """The development cluster of ``start`` or a directory above. Raises Failed when there is none, or none any more."""
    file = find_file(start)
    if file is None:
        raise Failed(
            f"no cluster found: no --nats and --etcd, no WIPPY_NATS and WIPPY_ETCD, no servers in .wippy.yaml, and no "
            f"{FOLDER}/{FILE} in {start} or above; start one with `wippy up`, or name one with --nats URL --etcd URL"
        )
    found = read_place(file)
    if found.pid and not is_alive(found.pid):
        raise Failed(f"the cluster of {file} has ended (its process {found.pid} is gone); start it with `wippy up`")
    return found


def find_file(start: Path) -> Path | None:
    """The nearest ``.wippy/cluster.json`` in ``start`` or a directory above it."""
    for directory in (start, *start.parents):
        file = directory / FOLDER / FILE
        if file.is_file():
            return file
    return None


def is_of(place: Place, file: Path, app: Path) -> bool:
    """Whether the cluster of ``file`` is there for ``app``: it runs it, or was started in that directory."""
    return str(app) in (place.app, str(file.parent.parent))


def read_place(file: Path) -> Place:
    """The cluster in a file. Raises Failed when the file is not one of ours."""
    try:
        raw = json.loads(file.read_text())
        return Place(
            raw["cluster"],
            tuple(raw["nats"]),
            tuple(raw["etcd"]),
            int(raw["pid"]),
            tuple(raw.get("nodes", ())),
            str(raw.get("app", "")),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"{file} can't be read as a cluster's address ({error!r})"
        raise Failed(f"{why}; remove it, or name the cluster with flags") from None


def write_place(directory: Path, place: Place) -> Path:
    """Write ``.wippy/cluster.json`` under ``directory``, whole or not at all."""
    file = directory / FOLDER / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps(asdict(place), indent=2) + "\n")
    fresh.replace(file)
    return file


def remove_place(file: Path, pid: int) -> None:
    """Remove the file if it still speaks of the process ``pid``."""
    try:
        if read_place(file).pid == pid:
            file.unlink()
    except (Failed, OSError):
        return  # gone, or another's by now


def is_alive(pid: int) -> bool:
    """Whether a process with that id exists on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
