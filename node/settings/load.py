"""Settings from files, environment and command line, checked as a whole.

Later layers win: the defaults, the files from left to right, environment variables, then
``--set``. Files may hold ``${env:NAME}`` (a variable of the operating system) and ``${name}``
(a value of the section ``vars``). Everything wrong is raised at once, each problem with the
file and line, variable or option it came from; nothing wrong is ever ignored.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cluster.documents import Node, parse_bytes
from cluster.errors import Invalid, Problem
from node.explain import explain
from node.scalars import coerce
from node.settings.schema import NOT_IN_FILE, Settings
from node.spelling import did_you_mean

DEFAULT_FILE = ".wippy.yaml"

ENVIRONMENT: Mapping[str, str] = {
    "WIPPY_CLUSTER": "cluster.name",
    "WIPPY_NATS": "cluster.nats.urls",
    "WIPPY_NATS_USER": "cluster.nats.user",
    "WIPPY_NATS_PASSWORD": "cluster.nats.password",
    "WIPPY_NATS_TOKEN": "cluster.nats.token",
    "WIPPY_ETCD": "cluster.etcd.urls",
    "WIPPY_ETCD_USER": "cluster.etcd.user",
    "WIPPY_ETCD_PASSWORD": "cluster.etcd.password",
    "WIPPY_NODE_ID": "relay.node_name",
    "WIPPY_RELAY_NODE_NAME": "relay.node_name",
    "WIPPY_NODE": "relay.node_name",
}
"""Environment variables and what they set; of several for one setting the last wins."""

_WITHOUT_EFFECT = (
    "profiler",
    "finder",
    "otel",
    "lsp",
    "network_service",
    "dispatcher",
    "modules",
    "extensions",
    "profiles",
)
_REPLACED = {
    "membership": "nodes find each other through etcd: set cluster.etcd and cluster.nats",
    "internode": "messages between nodes travel over NATS: set cluster.nats",
    "raft": "what the cluster agrees on is kept in etcd: set cluster.etcd",
}
_SERVERS = ("nats", "etcd")
_REFERENCE = re.compile(r"\$\$\{|\$\{env:(?P<env>[^|{}]+)(?:\|(?P<default>[^}]*))?\}|\$\{(?P<var>[A-Za-z_][\w.-]*)\}")


def load_settings(
    directory: Path,
    *,
    files: Sequence[Path] | None = None,
    sets: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings of the project in ``directory``. Raises Invalid with every problem.

    ``files`` must exist; without any ``.wippy.yaml`` of the directory is read if it is there.
    ``sets`` are ``section.path=value``. ``environ`` is the environment of the process unless given.
    """
    loader = _Loader(directory, os.environ if environ is None else environ)
    given = files or [each for each in (directory / DEFAULT_FILE,) if each.exists()]
    for file in given:
        loader.read(file)
    loader.interpolate()
    loader.take_environment()
    for each in sets:
        loader.set(each)
    return loader.settings()


def default_node_name(directory: Path, hostname: str) -> str:
    """A name for a node without one: the same each time for a directory on a machine, different for different ones."""
    host = re.sub(r"[^A-Za-z0-9-]", "-", hostname.split(".")[0]).strip("-")[:40] or "node"
    digest = hashlib.sha256(f"{hostname}\0{directory.resolve()}".encode()).hexdigest()
    return f"{host}-{digest[:6]}"


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    root: Node


class _Loader:
    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        self._directory = directory
        self._environ = environ
        self._values: dict[str, Any] = {}
        self._files: list[_File] = []
        self._origins: dict[str, str] = {}
        self._problems: list[Problem] = []
        self._warnings: list[Problem] = []
        self._anchor = directory

    def read(self, file: Path) -> None:
        """Merge a file over what is there. The first one anchors relative paths."""
        if not self._files:
            self._anchor = file.parent
        name = _shown_path(file, self._directory)
        try:
            content = file.read_bytes()
        except OSError as error:
            self._problems.append(Problem(f"can't be read: {error.strerror}", file=name))
            return
        document = parse_bytes(content, name)
        self._problems += document.problems
        if document.root is None or document.root.value is None:
            return
        if not isinstance(document.root.value, dict):
            self._problems.append(Problem("expected sections such as cluster: or logger:", file=name, line=1))
            return
        self._files.append(_File(name, document.root))
        _merge(self._values, _with_full_servers(document.root.plain()))

    def interpolate(self) -> None:
        """Replace the references in what the files said."""
        variables = self._values.get("vars")
        known: dict[str, Any] = {}
        if isinstance(variables, dict):
            known = {key: self._replace(value, {}, f"vars.{key}") for key, value in variables.items()}
            self._values["vars"] = known
        for key in [key for key in self._values if key != "vars"]:
            self._values[key] = self._replace(self._values[key], known, key)

    def _replace(self, value: Any, known: Mapping[str, Any], path: str) -> Any:
        if isinstance(value, dict):
            return {key: self._replace(item, known, f"{path}.{key}") for key, item in value.items()}
        if isinstance(value, list):
            return [self._replace(item, known, f"{path}.{at}") for at, item in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        whole = _REFERENCE.fullmatch(value)
        if whole is not None and whole["var"] in known:
            return known[whole["var"]]
        return _REFERENCE.sub(lambda match: self._referred(match, known, path), value)

    def _referred(self, match: re.Match[str], known: Mapping[str, Any], path: str) -> str:
        if match[0] == "$${":
            return "${"
        if name := match["env"]:
            found: Any = self._environ.get(name, match["default"])
            missing = f"environment variable {name} is not set"
        else:
            found = known.get(match["var"])
            missing = f"there is no {match['var']} under vars{did_you_mean(match['var'], known)}"
        if found is None:
            self._problem(missing, path)
        return "" if found is None else str(found)

    def take_environment(self) -> None:
        """Merge what environment variables say."""
        for name, path in ENVIRONMENT.items():
            if value := self._environ.get(name):
                self._put(path, value, f"environment variable {name}")

    def set(self, option: str) -> None:
        """Merge one ``section.path=value``."""
        path, equals, text = option.partition("=")
        if not equals or not all(path.split(".")):
            self._problems.append(Problem("expected section.path=value", file=f"--set {option}"))
            return
        self._put(path, coerce(text), f"--set {path}")

    def _put(self, path: str, value: Any, origin: str) -> None:
        # the keys of override hold dots themselves
        parts = path.split(".", 1) if path.startswith("override.") else path.split(".")
        layer: Any = value
        for part in reversed(parts):
            layer = {part: layer}
        _merge(self._values, _with_full_servers(layer))
        self._origins[path] = origin

    def settings(self) -> Settings:
        """Check the whole; raises Invalid."""
        self._accept_foreign()
        self._refuse_unknown()
        try:
            settings = Settings.model_validate(self._values, context={"anchor": self._anchor})
        except ValidationError as error:
            for problem in explain(error, Settings):
                self._problem(problem.message, problem.field)
            settings = Settings()
        if settings.prometheus.enabled and not settings.prometheus.address:
            self._warn(
                "prometheus.enabled without prometheus.address: metrics are served at metrics.port", "prometheus"
            )
        if settings.security.strict_mode:
            self._warn(
                "security.strict_mode has no effect in this version: permissions are not checked, "
                "every process may use the modules its entry lists",
                "security.strict_mode",
            )
        if self._problems:
            raise Invalid(self._problems)
        node = settings.relay.node_name or default_node_name(self._directory, socket.gethostname())
        found = {"directory": self._directory, "node": node, "warnings": tuple(self._warnings)}
        return settings.model_copy(update={**found, "override_places": self._override_places()})

    def _override_places(self) -> dict[str, str]:
        """Where each override was written: file and line, or the option."""
        sections = [(file.name, file.root.get("override")) for file in self._files]
        written = {
            key: f"{name}:{line}" for name, node in sections if node is not None for key, line in node.keys.items()
        }
        prefix = "override."
        options = {path[len(prefix) :]: origin for path, origin in self._origins.items() if path.startswith(prefix)}
        return written | options

    def _accept_foreign(self) -> None:
        """Take out what only the original has, saying once for each what to use instead."""
        for section in _WITHOUT_EFFECT:
            if self._values.pop(section, None):
                self._warn(f"section {section} is accepted and has no effect in this version", section)
        cluster = self._values.get("cluster")
        if not isinstance(cluster, dict):
            return
        foreign = [key for key in _REPLACED if key in cluster]
        for key in foreign:
            del cluster[key]
            self._warn(f"cluster.{key} has no effect here; {_REPLACED[key]}", f"cluster.{key}")
        if foreign and "name" in cluster and "cluster.name" not in self._origins:
            self._take_name_for_node(cluster)

    def _take_name_for_node(self, cluster: dict[str, Any]) -> None:
        """In the original ``cluster.name`` is the node's: nodes would end up in clusters of their own."""
        name = cluster.pop("name")
        relay = self._values.setdefault("relay", {})
        if isinstance(relay, dict):
            relay.setdefault("node_name", name)
        self._warn(
            f"cluster.name {name!r} stands beside keys of the original and is taken as this node's name; "
            "write it as relay.node_name, and name the cluster with cluster.name",
            "cluster.name",
        )

    def _refuse_unknown(self) -> None:
        sections = [name for name in Settings.model_fields if name not in NOT_IN_FILE]
        for name in [name for name in self._values if name not in sections]:
            del self._values[name]
            near = did_you_mean(name, (*sections, *_WITHOUT_EFFECT))
            self._problem(f"unknown section {name!r}{near} (known: {', '.join(sections)})", name)

    def _problem(self, message: str, path: str) -> None:
        self._problems.append(self._placed(message, path))

    def _warn(self, message: str, path: str) -> None:
        self._warnings.append(self._placed(message, path))

    def _placed(self, message: str, path: str) -> Problem:
        """A problem at the place that set ``path``, or something inside or around it."""
        for set_path, origin in reversed(self._origins.items()):
            if set_path == path or set_path.startswith(f"{path}.") or path.startswith(f"{set_path}."):
                return Problem(message, field=path, file=origin)
        nearest = max(reversed(self._files), key=lambda file: _depth(file.root, path), default=None)
        if nearest is None or not _depth(nearest.root, path):
            return Problem(message, field=path)
        return Problem(message, field=path, file=nearest.name, line=nearest.root.line_of(path))


def _depth(root: Node, path: str) -> int:
    """How many steps of ``path`` the file takes."""
    node: Node | None = root
    steps = 0
    for part in path.split("."):
        node = node.get(part) if node is not None else None
        if node is None:
            break
        steps += 1
    return steps


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _with_full_servers(layer: dict[str, Any]) -> dict[str, Any]:
    """``cluster.nats: URLS`` written out as ``cluster.nats.urls``, so that layers merge field by field."""
    cluster = layer.get("cluster")
    if isinstance(cluster, dict):
        for server in _SERVERS:
            if isinstance(cluster.get(server), str | list):
                cluster[server] = {"urls": cluster[server]}
    return layer


def _shown_path(file: Path, directory: Path) -> str:
    try:
        return file.relative_to(directory).as_posix()
    except ValueError:
        return str(file)
