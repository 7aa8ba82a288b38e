#!/usr/bin/env python3
"""Change the configuration of a running cluster from outside, with the ``etcd3`` package alone.

    python set_config.py --etcd http://127.0.0.1:2379 --cluster dev app:limits '{"rate": 5}'
    python set_config.py app:limits --delete        # of the development cluster that runs in this directory

Puts ``/wippy/<cluster>/config/<ns>:<name>`` and waits until a node has answered in
``config-status/``: prints the version that holds it now, or the reason it was refused (and
then nothing changed). Exit code 0 applied, 1 refused or unreachable, 2 wrong usage.

Needs ``pip install 'wippy-cluster[etcd3]'`` (or just ``etcd3 protobuf``); nothing else of this project.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# The generated code in etcd3 0.12.0 is older than protobuf 4 and loads only with protobuf's Python
# implementation. This must be said before the first import of protobuf, and only in a process of one's own.
os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"

try:
    import etcd3
except ImportError as missing:
    sys.exit(f"error: {missing}; install what this script needs: pip install 'etcd3==0.12.0' protobuf")

POLL_SECONDS = 0.1


def main() -> int:
    arguments = parse_arguments()
    try:
        client = connect(arguments)
        asked = delete(client, arguments) if arguments.delete else put(client, arguments)
        if asked is None or not arguments.wait:
            return 0
        return report(arguments.entry, wait(client, arguments, *asked))
    except etcd3.exceptions.Etcd3Exception as error:
        print(f"error: etcd at {arguments.etcd}: {error!r}; check the address and the credentials", file=sys.stderr)
        return 1


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Change configuration of a running Wippy cluster through etcd.")
    parser.add_argument("entry", metavar="NS:NAME", help="the entry the configuration is laid over, e.g. app:limits")
    parser.add_argument("value", nargs="?", help="a JSON or YAML mapping, e.g. '{\"rate\": 5}'; null removes a key")
    parser.add_argument("--delete", action="store_true", help="take it away: the entry's base holds again")
    parser.add_argument("--etcd", metavar="URL", help="e.g. http://user:password@127.0.0.1:2379 [WIPPY_ETCD]")
    parser.add_argument("--cluster", metavar="NAME", help="the cluster's name [WIPPY_CLUSTER]")
    parser.add_argument(
        "--wait", action=argparse.BooleanOptionalAction, default=True, help="wait for the cluster's answer"
    )
    parser.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS", help="how long to wait (10)")
    parser.add_argument("--ca", help="certificate that verifies etcd (https)")
    parser.add_argument("--cert", help="client certificate")
    parser.add_argument("--key", help="key of the client certificate")
    arguments = parser.parse_args()
    if arguments.delete == (arguments.value is not None):
        parser.error("expected either a value or --delete")
    return find_cluster(arguments, parser)


def find_cluster(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What the flags leave open comes from the environment, then from the development cluster that runs here."""
    here = Path.cwd()
    files = [directory / ".wippy" / "cluster.json" for directory in (here, *here.parents)]
    file = next((each for each in files if each.is_file()), None)
    running = json.loads(file.read_text()) if file else {}
    arguments.etcd = arguments.etcd or os.environ.get("WIPPY_ETCD") or next(iter(running.get("etcd", ())), None)
    arguments.cluster = arguments.cluster or os.environ.get("WIPPY_CLUSTER") or running.get("cluster")
    if not arguments.etcd or not arguments.cluster:
        parser.error("no cluster runs here; name one with --etcd URL --cluster NAME")
    return arguments


def connect(arguments: argparse.Namespace) -> Any:
    url = urlsplit(arguments.etcd)
    client = etcd3.client(
        host=url.hostname,
        port=url.port or 2379,
        user=url.username,
        password=url.password,
        ca_cert=arguments.ca,
        cert_cert=arguments.cert,
        cert_key=arguments.key,
        timeout=arguments.timeout,
    )
    # The token of the login travels as metadata; as call credentials too, which etcd3 also sets, it is refused
    # by grpc on a connection without TLS.
    client.call_credentials = None
    return client


def key(arguments: argparse.Namespace, folder: str) -> str:
    return f"/wippy/{arguments.cluster}/{folder}/{arguments.entry}"


def put(client: Any, arguments: argparse.Namespace) -> tuple[int, int]:
    """The value's mod_revision, twice: what the answer must name, and the revision it must have seen."""
    revision = client.put(key(arguments, "config"), arguments.value).header.revision
    return revision, revision


def delete(client: Any, arguments: argparse.Namespace) -> tuple[int, int] | None:
    """A deletion is answered under mod_revision 0. None when there was nothing to delete."""
    answer = client.delete(key(arguments, "config"), return_response=True)
    if not answer.deleted:
        print(f"nothing was laid over {arguments.entry}")
        return None
    return 0, answer.header.revision


def wait(client: Any, arguments: argparse.Namespace, mod: int, revision: int) -> dict[str, Any] | None:
    """The cluster's answer, None when none came in time."""
    deadline = time.monotonic() + arguments.timeout
    while time.monotonic() < deadline:
        raw, _ = client.get(key(arguments, "config-status"))
        status = json.loads(raw) if raw else {}
        if status and (status["mod"] == mod or status["revision"] >= revision):
            return dict(status)
        time.sleep(POLL_SECONDS)
    return None


def report(entry: str, status: dict[str, Any] | None) -> int:
    if status is None:
        print(
            f"error: no node answered for {entry} in time; is one ready? The value stays and is applied then",
            file=sys.stderr,
        )
        return 1
    if status["status"] != "applied":
        print(f"refused: {entry}: {status['reason']}; nothing changed", file=sys.stderr)
        return 1
    print(f"applied: {entry} is at v{status['version']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
