#!/usr/bin/env python3
"""Give somebody a login to etcd that may change a cluster's configuration, and nothing else.

    python roles.py --etcd http://root:SECRET@10.0.0.1:2379 --cluster shop operator alice
    python roles.py --etcd http://root:SECRET@10.0.0.1:2379 --cluster shop node shop-node
    python roles.py --etcd http://10.0.0.1:2379 enable

``operator`` may write under ``/wippy/<cluster>/config/`` and read the answers under ``config-status/``;
``node`` may use all keys of that cluster: it is the login of the nodes (``WIPPY_ETCD_USER``).
``enable`` makes the user root and switches authentication on, for an etcd that has none yet. The
password of the new user comes from WIPPY_NEW_PASSWORD or is asked for. What exists already stays, so the
command can be repeated; it sets the password anew.

Talks to etcd's JSON gateway; needs Python and nothing else. Exit code 0 done, 1 refused or unreachable, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import base64
import getpass
import json
import os
import ssl
import sys
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

TIMEOUT_SECONDS = 10
EXISTS = ("already exists", "already granted")
READ, READWRITE = "READ", "READWRITE"


class Refused(Exception):
    """etcd's answer is an error, or there is none; the text says which."""


def main() -> int:
    arguments = parse_arguments()
    try:
        etcd = Etcd(arguments.etcd, arguments.ca)
        if arguments.what == "enable":
            enable(etcd)
        else:
            grant(etcd, arguments.what, arguments.user, arguments.cluster)
    except Refused as refused:
        print(f"error: {refused}", file=sys.stderr)
        return 1
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Logins to etcd for the operators and nodes of a cluster.")
    parser.add_argument("what", choices=("operator", "node", "enable"), help="which rights; or switch them on")
    parser.add_argument("user", nargs="?", help="the login's name")
    parser.add_argument("--etcd", metavar="URL", default=os.environ.get("WIPPY_ETCD"), help="of root [WIPPY_ETCD]")
    parser.add_argument("--cluster", metavar="NAME", default=os.environ.get("WIPPY_CLUSTER"), help="[WIPPY_CLUSTER]")
    parser.add_argument("--ca", help="certificate that verifies etcd (https)")
    arguments = parser.parse_args()
    if not arguments.etcd:
        parser.error("expected --etcd URL")
    if arguments.what != "enable" and not (arguments.user and arguments.cluster):
        parser.error(f"expected a user and --cluster NAME after {arguments.what}")
    return arguments


def permissions(what: str, cluster: str) -> list[tuple[str, str]]:
    """(right, prefix) of a role."""
    own = f"/wippy/{cluster}/"
    if what == "node":
        return [(READWRITE, own)]
    return [(READWRITE, f"{own}config/"), (READ, f"{own}config-status/")]


def grant(etcd: Etcd, what: str, user: str, cluster: str) -> None:
    """Make the role and the user, and give one to the other."""
    role = f"wippy-{cluster}-{what}"
    etcd.ask("auth/role/add", {"name": role})
    for right, prefix in permissions(what, cluster):
        # a prefix is a range that ends where its last byte is one higher
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        perm = {"permType": right, "key": encoded(prefix), "range_end": encoded(end)}
        etcd.ask("auth/role/grant", {"name": role, "perm": perm})
        print(f"{role}: {right.lower()} {prefix}")
    make_user(etcd, user)
    etcd.ask("auth/user/grant", {"user": user, "role": role})
    print(f"{user} has the role {role}")


def make_user(etcd: Etcd, user: str) -> None:
    password = os.environ.get("WIPPY_NEW_PASSWORD") or getpass.getpass(f"password of {user}: ")
    if not etcd.ask("auth/user/add", {"name": user, "password": password}):
        etcd.ask("auth/user/changepw", {"name": user, "password": password})


def enable(etcd: Etcd) -> None:
    make_user(etcd, "root")
    etcd.ask("auth/role/add", {"name": "root"})
    etcd.ask("auth/user/grant", {"user": "root", "role": "root"})
    etcd.ask("auth/enable", {})
    print("authentication is on; log in as root from now on")


class Etcd:
    """The JSON gateway of one etcd."""

    def __init__(self, url: str, ca: str | None) -> None:
        parts = urlsplit(url)
        self._base = f"{parts.scheme}://{parts.hostname}:{parts.port or 2379}/v3/"
        self._tls = ssl.create_default_context(cafile=ca) if parts.scheme == "https" else None
        self._token = ""
        if parts.username:
            login = {"name": unquote(parts.username), "password": unquote(parts.password or "")}
            self._token = str(self.post("auth/authenticate", login).get("token", ""))

    def ask(self, path: str, body: dict[str, Any]) -> bool:
        """Do it; False when it was there already. Raises Refused."""
        try:
            self.post(path, body)
        except Refused as refused:
            if any(text in str(refused) for text in EXISTS):
                return False
            raise
        return True

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"} | ({"Authorization": self._token} if self._token else {})
        request = Request(self._base + path, json.dumps(body).encode(), headers)
        try:
            with urlopen(request, timeout=TIMEOUT_SECONDS, context=self._tls) as answer:
                return dict(json.load(answer))
        except HTTPError as error:
            raise Refused(f"{path} at {self._base}: {reason(error.read())}") from None
        except (URLError, OSError, ValueError) as error:
            raise Refused(f"no answer from etcd at {self._base}: {error}; check the address") from None


def reason(raw: bytes) -> str:
    """What an error of the gateway says."""
    try:
        said = json.loads(raw)
        return str(said.get("message") or said.get("error") or said)
    except (ValueError, AttributeError):
        return raw[:200].decode(errors="replace")


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


if __name__ == "__main__":
    sys.exit(main())
