"""What can be set: the sections of ``.wippy.yaml`` as frozen models.

The names are those of the original where it has one; what only makes sense here (the NATS
and etcd servers, limits, names) stands beside it. Durations are timedeltas, sizes are bytes.
A field marked "accepted" comes from the original and changes nothing in this runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from cluster.errors import Problem
from cluster.patterns import Pattern
from node.durations import Duration, PositiveDuration, format_duration
from node.scalars import PlainText, Size


def _listed(value: Any) -> Any:
    """A list, also as one text with commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _patterns(texts: list[str]) -> list[str]:
    for text in texts:
        Pattern(text)
    return texts


def _existing(path: Path, info: ValidationInfo) -> Path:
    """Relative to the first configuration file; must be there, so that the mistake shows now and not at the connect."""
    found = (info.context["anchor"] if info.context else Path()) / path
    if not found.exists():
        raise ValueError(f"there is no {found}")
    return found


def _directory(path: str | None, info: ValidationInfo) -> Path | None:
    found = None if path is None else _existing(Path(path), info)
    if found is not None and not found.is_dir():
        raise ValueError(f"expected a directory, {found} is none")
    return found


def _at_least(least: timedelta) -> Callable[[timedelta], timedelta]:
    def check(value: timedelta) -> timedelta:
        if value < least:
            raise ValueError(f"expected at least {format_duration(least)}, got {format_duration(value)}")
        return value

    return check


def _no_client(name: str) -> str:
    if name == "client":
        raise ValueError("the name 'client' stands for programs outside the cluster; choose another")
    return name


ExistingFile = Annotated[Path, AfterValidator(_existing)]
ExistingDirectory = Annotated[Path | None, BeforeValidator(_directory)]
Urls = Annotated[list[str], BeforeValidator(_listed)]
Namespaces = Annotated[list[str], BeforeValidator(_listed), AfterValidator(_patterns)]
NodeName = Annotated[PlainText, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"), AfterValidator(_no_client)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    """A frozen group of settings; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Logger(Section):
    """How log lines look."""

    mode: Literal["development", "production"] = "development"
    """Accepted; ``encoding`` decides how lines look."""
    level: Literal["debug", "info", "warn", "error"] = "info"
    """The least level shown; ``-v`` on the command line means debug."""
    encoding: Literal["console", "json"] = "console"
    """``console`` for people, ``json`` for machines."""


class LogManager(Section):
    """Where log lines go."""

    propagate_downstream: bool = True
    """Accepted; log lines always go to the console, from ``logger.level`` upwards."""
    stream_to_events: bool = False
    """Accepted; log lines do not become events."""
    min_level: int = Field(default=-1, ge=-1, le=3)
    """The least level of lines from Lua: -1 debug, 0 info, 1 warn, 2 error."""


class Security(Section):
    """Access control."""

    strict_mode: bool = False
    """Accepted with a warning; permissions are not checked yet."""


class Registry(Section):
    """The registry of entries and its history."""

    publish: Literal["always", "if-empty", "never"] | None = None
    """When a starting node publishes its files: at every start, only into an empty registry, or never.
    Unset: ``always`` with embedded servers, ``if-empty`` in a cluster."""
    write: Namespaces | None = None
    """Namespaces programs may change whose host's entry has no ``registry.write``: ``tools`` is one, ``tools.*`` each
    right below it, ``tools.**`` it and all below, ``**`` every one. Unset: every one with embedded servers, none in a
    cluster."""
    strict_requirements: bool = False
    """Refuse an application in which an ``ns.requirement`` without default gets no value; else that is a warning."""
    history_versions: int = Field(default=1000, ge=1)
    """Versions that can be looked at and brought back. Older ones are thrown away, but none within an hour."""
    history_size: Size = 256 * 1024**2
    """Bytes they may take in etcd, snapshots included; fewer versions are kept when they take more."""
    enable_history: bool = True
    """Accepted; versions are always kept in etcd."""
    history_type: Literal["memory", "sqlite", "postgres", "nil"] = "memory"
    """Accepted; versions are kept in etcd."""
    history_path: str = ".wippy/registry.db"
    """Accepted."""
    history_dsn: str | None = None
    """Accepted."""
    history_schema: str | None = None
    """Accepted."""
    event_wait_timeout: Duration = timedelta(seconds=30)
    """Accepted; a change returns when the own node has applied it, or with an error after two minutes."""
    dependency_resolve_timeout: Duration = timedelta(seconds=20)
    """Accepted; modules come from local directories."""
    dependency_download_timeout: Duration = timedelta(seconds=45)
    """Accepted; modules come from local directories."""


class Processes(Section):
    """What programs may do to processes."""

    move: Namespaces | None = None
    """Namespaces of hosts whose processes programs may move with ``process.move`` whose own host's entry has no
    ``processes.move``; written as in ``registry.write``. Unset: every one with embedded servers, none in a cluster."""


class Relay(Section):
    """The node among others."""

    node_name: NodeName | None = None
    """The node's name, unique in the cluster. Unset: made of the host name and the project's directory.
    Environment: WIPPY_NODE, WIPPY_RELAY_NODE_NAME, WIPPY_NODE_ID, the first that is set."""


class SupervisorHost(Section):
    """The original's mailbox of the supervisor."""

    buffer_size: int = Field(default=1024, ge=1)
    """Accepted."""
    worker_count: int = Field(default=16, ge=1)
    """Accepted."""


class Supervisor(Section):
    """The supervisor of services."""

    host: SupervisorHost = SupervisorHost()
    """Accepted."""


class Console(Section):
    """The live prompt of ``wippy console``."""

    enabled: bool | None = None
    """Whether this node lets clients open one: whoever may query the node can run any code in it then. Each line is
    logged. Unset: yes with embedded servers, no in a cluster; ``wippy up`` sets it."""


class Lua(Section):
    """The original's Lua caches and type checks; code is compiled once per VM here."""

    proto_cache_size: int = Field(default=60_000, ge=0)
    """Accepted."""
    main_cache_size: int = Field(default=10_000, ge=0)
    """Accepted."""
    cache: dict[str, Any] = Field(default_factory=dict)
    """Accepted."""
    type_system: dict[str, Any] = Field(default_factory=dict)
    """Accepted; types are read and erased, not checked."""
    eval: dict[str, Any] = Field(default_factory=dict)
    """Accepted."""
    invalidation_wait_timeout: Duration | None = None
    """Accepted."""


class Shutdown(Section):
    """The end of a node."""

    timeout: PositiveDuration = timedelta(seconds=30)
    """How long a stopping node waits for its processes before it kills them."""


class Metrics(Section):
    """Where the node serves ``/metrics``, ``/livez`` and ``/readyz``."""

    host: str = "127.0.0.1"
    """The address it listens on."""
    port: Port = 9464
    """The first port tried; a taken one means the next, up to 100 further. 0 = any free port."""
    advertise: str = ""
    """The address others reach it at, without port. Unset: ``host``, and when that means every address, this
    machine's own (what its host name resolves to)."""
    buffer: dict[str, Any] = Field(default_factory=dict)
    """Accepted."""
    interceptor: dict[str, Any] = Field(default_factory=dict)
    """Accepted."""


class Prometheus(Section):
    """The original's way to name the address of ``/metrics``; takes precedence over ``metrics``."""

    enabled: bool = False
    """Serve metrics at ``address``; without it they are served at ``metrics.host`` and ``metrics.port``."""
    address: str = ""
    """``host:port`` or ``:port``; that port and no other."""


class Tls(Section):
    """Files of a TLS connection."""

    ca: ExistingFile | None = None
    """Certificates the server's must be signed by; unset: those of the system."""
    cert: ExistingFile | None = None
    """Our own certificate."""
    key: ExistingFile | None = None
    """The key of ``cert``."""

    @model_validator(mode="after")
    def _cert_and_key(self) -> Tls:
        if (self.cert is None) != (self.key is None):
            raise ValueError("expected cert and key together, got only one of them")
        return self


class Nats(Section):
    """The NATS servers. A plain list, or a text of URLs separated by commas, means ``urls``."""

    urls: Urls = Field(default_factory=list)
    """``nats://host:4222`` or ``tls://host:4222``, several for one cluster of servers. Environment: WIPPY_NATS."""
    user: PlainText | None = None
    """Environment: WIPPY_NATS_USER."""
    password: PlainText | None = Field(default=None, repr=False)
    """Environment: WIPPY_NATS_PASSWORD."""
    token: PlainText | None = Field(default=None, repr=False)
    """Environment: WIPPY_NATS_TOKEN."""
    nkey_seed_file: ExistingFile | None = None
    """A file with the seed of an nkey."""
    creds_file: ExistingFile | None = None
    """A credentials file (JWT and seed)."""
    tls: Tls | None = None
    """Files for TLS."""

    @model_validator(mode="after")
    def _one_identity(self) -> Nats:
        given = [name for name in ("user", "token", "nkey_seed_file", "creds_file") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"expected one way to log in, got {' and '.join(given)}")
        if (self.password is None) != (self.user is None):
            raise ValueError("expected user and password together, got only one of them")
        _check_urls(self.urls, ("nats", "tls", "ws", "wss"))
        return self


class Etcd(Section):
    """The etcd servers. A plain list, or a text of URLs separated by commas, means ``urls``."""

    urls: Urls = Field(default_factory=list)
    """``http://host:2379`` or ``https://host:2379``, several for one cluster of servers. Environment: WIPPY_ETCD."""
    user: PlainText | None = None
    """Environment: WIPPY_ETCD_USER."""
    password: PlainText | None = Field(default=None, repr=False)
    """Environment: WIPPY_ETCD_PASSWORD."""
    tls: Tls | None = None
    """Files for TLS."""

    @model_validator(mode="after")
    def _user_and_password(self) -> Etcd:
        if (self.password is None) != (self.user is None):
            raise ValueError("expected user and password together, got only one of them")
        _check_urls(self.urls, ("http", "https"))
        return self


def _check_urls(urls: list[str], schemes: tuple[str, ...]) -> None:
    for url in urls:
        scheme, separator, rest = url.partition("://")
        if separator and scheme not in schemes:
            raise ValueError(f"expected {schemes[0]}://host:port, got a URL of scheme {scheme!r}")
        if not (rest if separator else scheme) or any(character.isspace() for character in url):
            # the URL may hold a password: it is not shown
            raise ValueError(f"expected {schemes[0]}://host:port")


class Cluster(Section):
    """The cluster this node is part of, and the servers that hold it together."""

    name: NodeName = "wippy"
    """The cluster's name: nodes of one name, NATS and etcd form one cluster. Environment: WIPPY_CLUSTER."""
    nats: Nats = Nats()
    """The NATS servers; none = embedded ones."""
    etcd: Etcd = Etcd()
    """The etcd servers; none = embedded ones."""
    labels: dict[str, PlainText] = Field(default_factory=dict)
    """Labels of this node, for the placement of services."""
    expected_nodes: int = Field(default=1, ge=1, le=1000)
    """Services that never ran are placed when so many nodes are there, after 30s at the latest, so that they spread
    evenly when a cluster starts; `wippy doctor` and `wippy top` say when fewer are there. `wippy up` sets it."""
    lease_ttl: Annotated[Duration, AfterValidator(_at_least(timedelta(seconds=4)))] = timedelta(seconds=5)
    """After this long without a sign of life the cluster takes the node for dead. At least 4s. Owned services are
    cancelled 2.5s before, so a shorter absence of etcd than the rest does not disturb them."""
    wedge_limit: Annotated[Duration, AfterValidator(_at_least(timedelta(seconds=1)))] = timedelta(seconds=10)
    """A node whose main loop or a Lua VM stands still for this long ends itself."""
    link_timeout: PositiveDuration = timedelta(seconds=90)
    """Two nodes that can't reach each other for this long close the link between them."""
    rebalance: Duration = timedelta(seconds=30)
    """A node that came and has been ready for so long gets its share of the processes that may move, a few a second, of
    those that had started before it was ready. ``0s``: never."""
    enabled: bool | None = None
    """Accepted; a node is always part of a cluster, if only of its own."""
    failure_domain: PlainText | None = None
    """Becomes the label ``failure_domain``."""

    @model_validator(mode="after")
    def _times_agree(self) -> Cluster:
        if self.link_timeout <= self.lease_ttl:
            raise ValueError("expected link_timeout to be longer than lease_ttl")
        return self

    @model_validator(mode="after")
    def _both_servers(self) -> Cluster:
        if bool(self.nats.urls) != bool(self.etcd.urls):
            have, lack = ("nats", "etcd") if self.nats.urls else ("etcd", "nats")
            raise ValueError(f"{have} is given and {lack} is not; give both, or none for embedded servers")
        return self


class Names(Section):
    """Names of processes."""

    default_scope: Literal["LOCAL", "EVENTUAL", "CONSISTENT", "STRONG"] | None = None
    """The scope of a registration that names none. Unset: LOCAL on a stand-alone node, CONSISTENT in a cluster."""


class Limits(Section):
    """What one process or message may take."""

    max_message: Annotated[Size, Field(le=8 * 1024 * 1024)] = 900 * 1024
    """The largest message, packed, in bytes. NATS must allow more (its ``max_payload``, 1 MiB by default)."""
    mailbox_limit: int = Field(default=100_000, ge=1)
    """Messages that may wait for one process."""
    mailbox_policy: Literal["reject", "kill"] = "reject"
    """What a message to a full mailbox does: ``reject`` refuses it, from elsewhere it becomes a dead letter; ``kill``
    also ends the process, with the reason ``killed: mailbox``."""
    vm_max_memory: Annotated[Size, Field(ge=8 * 1024**2)] = 1024**3
    """Bytes one worker of a host (a Lua VM with all its processes) may hold. The ``host`` block of a ``process.host``
    or ``terminal.host`` can set these limits, and more, for itself."""
    dead_letters: int = Field(default=1000, ge=0)
    """Undeliverable messages a node remembers."""


class Disable(Section):
    """Entries of the files that are left out. ``*`` stands for one word of a namespace, ``**`` for any number."""

    namespaces: list[str] = Field(default_factory=list)
    """Patterns of namespaces."""
    entries: list[str] = Field(default_factory=list)
    """Patterns of ids, ``namespace:name``."""
    meta: dict[str, Any] = Field(default_factory=dict)
    """Entries whose metadata has one of these values under its key; a list gives several."""

    @field_validator("namespaces")
    @classmethod
    def _only_namespaces(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            if not pattern or ":" in pattern:
                raise ValueError(f"expected patterns of namespaces such as legacy.**, got {pattern!r}")
        return patterns

    @field_validator("entries")
    @classmethod
    def _whole_ids(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            namespace, _, name = pattern.partition(":")
            if not namespace or not name:
                raise ValueError(f"expected patterns of ids such as app:test*, got {pattern!r}")
        return patterns


class Workspace(Section):
    """Where modules are taken from while they are developed."""

    replacements: dict[str, ExistingDirectory] = Field(default_factory=dict)
    """``organization/module`` to a directory, relative to the first configuration file; null takes one back."""


class Settings(Section):
    """Everything that can be set for one node."""

    version: PlainText = "1.0"
    """The version of the file format."""
    logger: Logger = Logger()
    logmanager: LogManager = LogManager()
    security: Security = Security()
    registry: Registry = Registry()
    processes: Processes = Processes()
    relay: Relay = Relay()
    supervisor: Supervisor = Supervisor()
    console: Console = Console()
    lua: Lua = Lua()
    shutdown: Shutdown = Shutdown()
    metrics: Metrics = Metrics()
    prometheus: Prometheus = Prometheus()
    cluster: Cluster = Cluster()
    names: Names = Names()
    limits: Limits = Limits()
    override: dict[str, Any] = Field(default_factory=dict)
    """Changes to entries of the files: ``namespace:entry:path`` to a value."""
    disable: Disable = Disable()
    workspace: Workspace = Workspace()
    vars: dict[str, Any] = Field(default_factory=dict)
    """Values for ``${name}`` elsewhere in the configuration."""

    directory: Path = Path()
    """The project; not a setting of the file."""
    node: str = ""
    """The node's name: ``relay.node_name`` or the one made up for it; not a setting of the file."""
    override_places: dict[str, str] = Field(default_factory=dict)
    """Where each override was written; not a setting of the file."""
    warnings: tuple[Problem, ...] = ()
    """What was accepted and has no effect, or not the one expected; not a setting of the file."""

    @property
    def embedded(self) -> bool:
        """Whether this node has to bring its own NATS and etcd."""
        return not self.cluster.nats.urls

    @property
    def labels(self) -> dict[str, str]:
        """The labels of this node."""
        domain = {} if self.cluster.failure_domain is None else {"failure_domain": self.cluster.failure_domain}
        return {**domain, **self.cluster.labels}


NOT_IN_FILE = frozenset({"directory", "node", "warnings", "override_places"})
"""Fields of ``Settings`` that are worked out, not set."""
