"""etcd behind TLS, with certificates of its own authority, asking for one of the client."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cluster.embedded import EmbeddedServers
from cluster.errors import Unavailable
from cluster.etcd import Etcd, PrefixWatch, Tls
from cluster.fencing import LeaseKeeper

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("binaries")]


class Authority:
    """Signs certificates and writes them as ``<name>.pem`` and ``<name>.key``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.certificate = self._write("ca", self._name, self._key, is_authority=True)

    def issue(self, name: str) -> tuple[Path, Path]:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._write(name, subject, ec.generate_private_key(ec.SECP256R1()))
        return certificate, certificate.with_suffix(".key")

    def _write(
        self, name: str, subject: x509.Name, key: ec.EllipticCurvePrivateKey, is_authority: bool = False
    ) -> Path:
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        path = self._directory / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        path.with_suffix(".key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return path


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def secured(authority: Authority) -> AsyncIterator[EmbeddedServers]:
    certificate, key = authority.issue("server")
    args = [
        f"--cert-file={certificate}",
        f"--key-file={key}",
        f"--trusted-ca-file={authority.certificate}",
        "--client-cert-auth",
    ]
    async with EmbeddedServers(with_nats=False, etcd_args=args) as servers:
        yield servers


async def test_calls_watch_and_lease_work_with_the_right_certificate(
    secured: EmbeddedServers, authority: Authority
) -> None:
    certificate, key = authority.issue("client")
    tls = Tls(ca=authority.certificate, cert=certificate, key=key)
    assert secured.etcd_url.startswith("https://")
    async with Etcd([secured.etcd_url], tls=tls) as etcd, PrefixWatch(etcd, "/a/") as watch:
        await watch.reached(await etcd.put("/a/b", b""))
        assert watch.stats().keys == 1
        async with LeaseKeeper([secured.etcd_url], tls=tls) as keeper:
            assert keeper.remaining() > 4


async def test_client_without_certificate_is_turned_away_with_a_hint(
    secured: EmbeddedServers, authority: Authority
) -> None:
    tls = Tls(ca=authority.certificate)
    async with Etcd([secured.etcd_url], tls=tls, timeout=timedelta(seconds=0.5)) as etcd:
        with pytest.raises(Unavailable, match="TLS"):
            await etcd.get("/a")


async def test_server_of_another_authority_is_not_trusted(secured: EmbeddedServers, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    certificate, key = other.issue("client")
    tls = Tls(ca=other.certificate, cert=certificate, key=key)
    async with Etcd([secured.etcd_url], tls=tls, timeout=timedelta(seconds=0.5)) as etcd:
        with pytest.raises(Unavailable, match="no connection to etcd"):
            await etcd.get("/a")


async def test_expected_server_name_may_differ_from_the_endpoint(
    secured: EmbeddedServers, authority: Authority
) -> None:
    certificate, key = authority.issue("client")
    tls = Tls(ca=authority.certificate, cert=certificate, key=key, server_name="localhost")
    async with Etcd([secured.etcd_url], tls=tls) as etcd:
        await etcd.put("/a", b"")
