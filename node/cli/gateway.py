"""Verbs that need a cluster: finds it, opens a client, runs the verb, closes.

``@clustered`` turns ``async def verb(client, ...)`` into a command with the verb's own
parameters and, behind them, the flags that say which cluster is meant.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.console import Format, note
from node.cli.failures import Failed
from node.cli.places import running_place

if TYPE_CHECKING:
    from cluster.client import Answers, Client
    from node.settings import Settings

CONNECT_SECONDS = 5.0
FROM = "@FILE or - reads it from a file or standard input"
_PANEL = "Which cluster"
_URLS = "several with commas, or by repeating the flag"
NatsUrls = Annotated[
    list[str] | None,
    typer.Option("--nats", metavar="URL", help=f"NATS servers; {_URLS} [WIPPY_NATS]", rich_help_panel=_PANEL),
]
EtcdUrls = Annotated[
    list[str] | None,
    typer.Option("--etcd", metavar="URL", help=f"etcd servers; {_URLS} [WIPPY_ETCD]", rich_help_panel=_PANEL),
]
ClusterName = Annotated[
    str | None,
    typer.Option("--cluster", metavar="NAME", help="The cluster's name [WIPPY_CLUSTER]", rich_help_panel=_PANEL),
]
Gateway = Annotated[
    str | None,
    typer.Option(
        "--node", metavar="NODE", help="The node to go through; any ready one without", rich_help_panel=_PANEL
    ),
]
Listing = Annotated[Format, typer.Option("--format", help="text for people, json for programs")]
AsJson = Annotated[bool, typer.Option("--json", help="The same as --format json")]
Timeout = Annotated[
    str, typer.Option("--timeout", metavar="DURATION", help="How long to wait for the answer, e.g. 500ms or 1m")
]

_PLACE: dict[str, Any] = {"nats": NatsUrls, "etcd": EtcdUrls, "cluster": ClusterName, "node": Gateway}


def clustered(verb: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A command from an asynchronous verb whose first parameter is the client."""

    def command(**given: Any) -> None:
        nats, etcd, cluster, gateway = (given.pop(name) for name in _PLACE)
        asyncio.run(_run(verb, nats or (), etcd or (), cluster, gateway, given))

    names = {**verb.__globals__, "Client": object}  # imported for type checkers only: it costs time
    own = list(inspect.signature(verb, eval_str=True, globals=names).parameters.values())[1:]
    place = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _PLACE.items()
    ]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + place
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__name__, command.__doc__, command.__module__ = verb.__name__, verb.__doc__, verb.__module__
    return command


async def _run(
    verb: Callable[..., Awaitable[None]],
    nats: Sequence[str],
    etcd: Sequence[str],
    cluster: str | None,
    gateway: str | None,
    given: dict[str, Any],
) -> None:
    quiet()
    patience = min(CONNECT_SECONDS, seconds(given["timeout"])) if "timeout" in given else CONNECT_SECONDS
    async with connected(find_cluster(Path.cwd(), nats, etcd, cluster), gateway, patience) as client:
        if gateway is not None:
            await client.member(gateway)
        try:
            await verb(client, **given)
        finally:
            if client.told_by:
                note(f"etcd does not answer; these are the nodes {client.told_by} knew of when it last did")


def find_cluster(
    start: Path, nats: Sequence[str] = (), etcd: Sequence[str] = (), cluster: str | None = None
) -> Settings:
    """Settings that name a cluster: from flags, environment, ``.wippy.yaml``, or ``.wippy/cluster.json``.

    Raises Failed when there is none, Invalid when the settings are wrong.
    """
    from node.settings import Settings, load_settings

    settings = load_settings(start, sets=cluster_sets(nats, etcd, cluster))
    if not settings.embedded:
        return settings
    place = running_place(start)
    named = settings.cluster.name if settings.cluster.name != Settings().cluster.name else place.cluster
    return load_settings(start, sets=cluster_sets(place.nats, place.etcd, named))


def cluster_sets(nats: Sequence[str], etcd: Sequence[str], cluster: str | None) -> list[str]:
    """The flags as ``--set`` options, empty ones left out."""
    values = {"cluster.nats.urls": ",".join(nats), "cluster.etcd.urls": ",".join(etcd), "cluster.name": cluster}
    return [f"{path}={value}" for path, value in values.items() if value]


def connected(settings: Settings, gateway: str | None = None, patience: float = CONNECT_SECONDS) -> Client:
    """A client of the cluster in ``settings``, to be entered; its servers may take ``patience`` seconds to answer."""
    from cluster.client import Client
    from node.logins import etcd_tls, nats_credentials, nats_tls

    of_nats, of_etcd = settings.cluster.nats, settings.cluster.etcd
    return Client(
        of_nats.urls,
        of_etcd.urls,
        settings.cluster.name,
        gateway=gateway,
        connect_timeout=timedelta(seconds=patience),
        credentials=nats_credentials(of_nats),
        nats_tls=nats_tls(of_nats),
        etcd_user=of_etcd.user,
        etcd_password=of_etcd.password,
        etcd_tls=etcd_tls(of_etcd),
    )


def quiet() -> None:
    """No log lines in between: a verb says what went wrong itself."""
    import logging

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.getLogger().addHandler(logging.NullHandler())


def listing(format: Format, as_json: bool) -> Format:
    """The form asked for by the two flags."""
    return Format.JSON if as_json else format


def seconds(text: str) -> float:
    """The duration of a ``--timeout``. A bare number is seconds, as people type it."""
    from node.durations import parse_duration

    try:
        duration = parse_duration(f"{text}s" if text.replace(".", "", 1).isdecimal() else text)
    except ValueError as error:
        raise Failed(str(error), code=2) from None
    if duration <= timedelta(0):
        raise Failed(f"expected a timeout above 0, got {text}", code=2)
    return duration.total_seconds()


def text_argument(text: str) -> str:
    """What was typed, or what it names: ``@FILE`` a file, ``-`` standard input. Raises Failed (wrong usage)."""
    if text != "-" and not text.startswith("@"):
        return text
    try:
        raw = sys.stdin.buffer.read() if text == "-" else Path(text[1:]).read_bytes()
        return raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        source = "standard input" if text == "-" else f"the file {text[1:]!r}"
        why = error.strerror if isinstance(error, OSError) else f"no UTF-8, {error.reason}"
        raise Failed(f"can't read {source}: {why}; expected JSON in it", code=2) from None


def json_argument(text: str) -> Any:
    """A value typed on the command line, or in ``@FILE`` or on standard input (``-``).

    Raises Failed (wrong usage) showing how it is written.
    """
    import json

    text = text_argument(text)
    try:
        return json.loads(text)
    except ValueError as error:
        raise Failed(f"""expected JSON such as '{{"n": 1}}' or '"text"', got {text!r} ({error})""", code=2) from None


def target_argument(text: str) -> str:
    """A PID or a name as typed. Raises Failed (wrong usage) on what looks like a PID and is none."""
    from cluster.errors import BadPid
    from cluster.pid import Pid, is_pid

    try:
        return str(Pid.parse(text)) if is_pid(text) else text
    except BadPid as error:
        raise Failed(str(error), code=2) from None


def warn_silent(silent: dict[str, str]) -> None:
    """Say which nodes a listing lacks, and why."""
    for node, reason in silent.items():
        note(f"{node} did not answer: {reason}")


def tell_silent(answers: Answers, on: str | None = None) -> None:
    """Say which nodes a listing lacks. Raises Failed when it lacks the only one asked for (``on``), or all."""
    warn_silent(answers.silent)
    if on is not None and on in answers.silent and on not in answers.by_node:
        raise Failed(f"node {on} does not answer, so nothing is known of it")
    if answers.silent and not answers.by_node:
        raise Failed("no node answers, so nothing is known of them")
