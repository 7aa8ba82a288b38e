"""Endpoints and what a client is refused before it connects."""

from pathlib import Path

import pytest

from cluster.errors import Unavailable
from cluster.etcd import Etcd, Tls
from cluster.etcd.connection import Endpoint


@pytest.mark.parametrize(
    ("text", "shown", "target"),
    [
        ("http://10.0.0.1:2379", "http://10.0.0.1:2379", "10.0.0.1:2379"),
        ("https://etcd.example:4001/", "https://etcd.example:4001", "etcd.example:4001"),
        ("etcd-0", "http://etcd-0:2379", "etcd-0:2379"),
        ("127.0.0.1:23790", "http://127.0.0.1:23790", "127.0.0.1:23790"),
        ("http://[::1]:2379", "http://[::1]:2379", "[::1]:2379"),
    ],
)
def test_endpoint_accepts_urls_and_plain_addresses(text: str, shown: str, target: str) -> None:
    endpoint = Endpoint.parse(text)
    assert (str(endpoint), endpoint.target) == (shown, target)


@pytest.mark.parametrize("text", ["", "ftp://x:1", "http://", "http://a:99999", "http://a:b", "http://a:1/path"])
def test_endpoint_refuses_the_rest_and_shows_it(text: str) -> None:
    with pytest.raises(ValueError, match="expected an etcd endpoint like"):
        Endpoint.parse(text)


def test_no_endpoint_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one etcd endpoint"):
        Etcd([])


def test_user_without_password_is_refused() -> None:
    with pytest.raises(ValueError, match="user and password together"):
        Etcd(["http://a:1"], user="root")


def test_tls_files_for_a_plain_endpoint_are_refused() -> None:
    with pytest.raises(ValueError, match="starts with http://"):
        Etcd(["https://a:1", "http://b:1"], tls=Tls())


async def test_unreadable_tls_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"can't read the TLS file .*nothing\.pem: No such file"):
        async with Etcd(["https://a:1"], tls=Tls(ca=tmp_path / "nothing.pem")):
            pass


async def test_certificate_without_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only one of them"):
        async with Etcd(["https://a:1"], tls=Tls(cert=tmp_path / "cert.pem")):
            pass


async def test_call_outside_the_scope_says_so() -> None:
    with pytest.raises(Unavailable, match="use it inside `async with`"):
        await Etcd(["http://127.0.0.1:1"]).get("/k")
