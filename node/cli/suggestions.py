"""What to try next with a development cluster: commands ready to paste.

An application names its own in ``meta.try`` of any entry: ``{says, command}``, the command
without ``wippy``; ``<last-node>`` in it stands for the name of the last node.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.pid import Pid


@dataclass(frozen=True)
class Suggestion:
    """One command and what it does."""

    says: str
    command: str


def wippy_command() -> str:
    """How ``wippy`` is called from anywhere: the full path of the executable beside this Python."""
    script = Path(sys.executable).with_name("wippy")
    return shlex.quote(str(script)) if script.is_file() else f"{shlex.quote(sys.executable)} -m node.cli"


def suggestions(
    tries: Iterable[Mapping[str, Any]], nodes: Sequence[Mapping[str, Any]], names: Mapping[str, str]
) -> list[Suggestion]:
    """``tries`` are the application's own, ``nodes`` have name, pid and metrics, ``names`` maps names to PIDs."""
    wippy = wippy_command()
    own = [
        Suggestion(str(each["says"]), f"{wippy} {each['command']}".replace("<last-node>", nodes[-1]["name"]))
        for each in tries
    ]
    calls = [each for each in own if each.command.startswith(f"{wippy} call ")]
    rest = [each for each in own if each not in calls]
    return [*calls, _metrics(nodes), *rest, _kill(nodes, names), Suggestion("list the processes", f"{wippy} ps")]


def _metrics(nodes: Sequence[Mapping[str, Any]]) -> Suggestion:
    url = nodes[0]["metrics"]
    fetch = f"curl -s {url}" if shutil.which("curl") else f"{shlex.quote(sys.executable)} -m webbrowser {url}"
    return Suggestion("look at the metrics of a node", f"{fetch} | grep ^wippy_" if "curl" in fetch else fetch)


def _kill(nodes: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> Suggestion:
    """The node whose loss shows most: one that runs a named process the cluster has once."""
    for name, pid in sorted(names.items()):
        owner = Pid.parse(pid).node
        for node in nodes:
            if node["name"] == owner and owner not in name:
                return Suggestion(f'kill {owner}, which runs "{name}": it goes on elsewhere', f"kill -9 {node['pid']}")
    return Suggestion(f"kill {nodes[-1]['name']}", f"kill -9 {nodes[-1]['pid']}")
