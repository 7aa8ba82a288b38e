"""How to prove who we are to NATS, and how to know the server: credentials and TLS files.

Values only; a bad file shows when the bus connects (``cluster.errors.Unavailable``, naming it).
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Tls:
    """Files for a TLS connection. ``ca`` verifies the server, ``cert`` and ``key`` prove who we are."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """The context to connect with. Raises OSError when a file can't be read."""
        context = ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
        if self.cert:
            context.load_cert_chain(str(self.cert), str(self.key) if self.key else None)
        return context


@dataclass(frozen=True)
class Credentials:
    """How to prove who we are: user and password, a token, an nkey seed, or a credentials file. One of them."""

    user: str | None = None
    password: str | None = None
    token: str | None = None
    nkey_seed: str | None = None
    creds_file: Path | None = None

    def options(self) -> dict[str, Any]:
        """As nats-py takes them. Raises OSError when the credentials file can't be read: nats-py opens it late."""
        if self.creds_file:
            self.creds_file.read_bytes()
        given = {
            "user": self.user,
            "password": self.password,
            "token": self.token,
            "nkeys_seed_str": self.nkey_seed,
            "user_credentials": str(self.creds_file) if self.creds_file else None,
        }
        return {name: value for name, value in given.items() if value is not None}
