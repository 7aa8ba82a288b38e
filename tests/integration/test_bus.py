"""The bus over a real nats-server: the barrier, what an outage does, and that refusals are never silent."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats.errors
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from nats.aio.msg import Msg

from cluster.bus import Bus, Credentials, Problem, Tls, Trouble
from cluster.embedded import EmbeddedServers
from cluster.errors import CallTimeout, MessageTooBig, NotConnected, Unavailable
from cluster.tasks import Tasks
from tests.waiting import eventually

pytestmark = pytest.mark.servers


def ignore(subject: str, reply: str, payload: bytes, headers: dict[str, str] | None) -> None:
    """A handler for messages nobody looks at."""


@pytest.fixture
def subject() -> str:
    return f"test.{secrets.token_hex(6)}"


@pytest_asyncio.fixture
async def bus(servers: EmbeddedServers) -> AsyncIterator[Bus]:
    async with Bus([servers.nats_url], name="one", inbox=f"inbox.{secrets.token_hex(4)}") as bus:
        yield bus


@pytest_asyncio.fixture
async def other(servers: EmbeddedServers) -> AsyncIterator[Bus]:
    async with Bus([servers.nats_url], name="other", inbox=f"inbox.{secrets.token_hex(4)}") as bus:
        yield bus


class TestSubscribe:
    async def test_the_first_message_after_subscribe_always_arrives(self, bus: Bus, other: Bus, subject: str) -> None:
        for trial in range(150):
            arrived = asyncio.Event()
            await bus.data.subscribe(f"{subject}.{trial}", lambda *_, e=arrived: e.set())
            other.data.publish(f"{subject}.{trial}", b"first")
            async with asyncio.timeout(2):
                await arrived.wait()

    async def test_messages_of_one_publisher_keep_their_order(self, bus: Bus, other: Bus, subject: str) -> None:
        got: list[int] = []
        await bus.data.subscribe(subject, lambda s, r, payload, h: got.append(int(payload)))
        for number in range(5000):
            other.data.publish(subject, b"%d" % number)
        await eventually(lambda: len(got) == 5000)
        assert got == list(range(5000))

    async def test_nothing_arrives_after_close(self, bus: Bus, other: Bus, subject: str) -> None:
        got: list[bytes] = []
        subscription = await bus.data.subscribe(subject, lambda s, r, payload, h: got.append(payload))
        await subscription.close()
        other.data.publish(subject, b"late")
        await other.data.flush()
        await bus.data.flush()
        assert got == []

    async def test_a_full_queue_drops_counts_and_tells(self, bus: Bus, other: Bus, subject: str) -> None:
        problems: list[Problem] = []
        bus.data.on_problem(problems.append)
        got: list[bytes] = []

        def slow(subject: str, reply: str, payload: bytes, headers: dict[str, str] | None) -> None:
            got.append(payload)
            time.sleep(0.02)

        await bus.data.subscribe(subject, slow, pending_msgs=10)
        for _ in range(2000):
            other.data.publish(subject, b"x" * 100)
        await eventually(lambda: bus.data.stats().slow_consumer_drops > 0)
        assert problems[0] == Problem(Trouble.SLOW_CONSUMER, subject)

    async def test_a_failing_handler_is_counted_and_does_not_end_the_subscription(
        self, bus: Bus, other: Bus, subject: str
    ) -> None:
        got: list[bytes] = []

        def handler(subject: str, reply: str, payload: bytes, headers: dict[str, str] | None) -> None:
            got.append(payload)
            if payload == b"bad":
                raise RuntimeError("this message is bad")

        await bus.data.subscribe(subject, handler)
        other.data.publish(subject, b"bad")
        other.data.publish(subject, b"good")
        await eventually(lambda: got == [b"bad", b"good"])
        assert bus.data.stats().handler_errors == 1


class TestRequest:
    async def test_the_answer_comes_back(self, bus: Bus, other: Bus, subject: str) -> None:
        await bus.control.subscribe(subject, lambda s, reply, payload, h: bus.control.publish(reply, payload.upper()))
        assert await other.control.request(subject, b"hello", 2.0) == b"HELLO"

    async def test_no_subscriber_is_unavailable_at_once(self, bus: Bus, subject: str) -> None:
        began = time.monotonic()
        with pytest.raises(Unavailable, match="nobody answers"):
            await bus.control.request(subject, b"", 5.0)
        assert time.monotonic() - began < 1.0

    async def test_over_the_servers_limit_it_is_too_big(self, bus: Bus, subject: str) -> None:
        too_big = bytes(1024 * 1024 + 1)
        with pytest.raises(MessageTooBig):
            await bus.control.request(subject, too_big, 1.0)
        with pytest.raises(MessageTooBig):
            bus.control.publish(subject, too_big)

    async def test_a_silent_subscriber_is_a_timeout(self, bus: Bus, other: Bus, subject: str) -> None:
        await bus.control.subscribe(subject, ignore)
        with pytest.raises(CallTimeout):
            await other.control.request(subject, b"", 0.1)

    async def test_a_cancelled_flush_does_not_harm_the_connection(self, bus: Bus, subject: str) -> None:
        for _ in range(20):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await bus.control.flush()
        await bus.control.subscribe(subject, lambda s, reply, p, h: bus.control.publish(reply, p))
        assert await bus.control.request(subject, b"alive", 2.0) == b"alive"


class TestOutage:
    async def test_publish_refuses_while_nats_is_away_and_subscriptions_come_back(
        self, own_servers: EmbeddedServers, subject: str
    ) -> None:
        got: list[bytes] = []
        async with Bus([own_servers.nats_url], name="one", inbox="inbox.one") as bus:
            back = asyncio.Event()
            bus.data.on_reconnect(back.set)
            await bus.data.subscribe(subject, lambda s, r, payload, h: got.append(payload))
            await own_servers.nats.kill()
            await eventually(lambda: not bus.data.connected)
            with pytest.raises(NotConnected):
                bus.data.publish(subject, b"stale")
            with pytest.raises(NotConnected):
                await bus.data.request(subject, b"", 1.0)
            await own_servers.nats.start()
            async with asyncio.timeout(5):
                await back.wait()
            bus.data.publish(subject, b"fresh")
            await eventually(lambda: got == [b"fresh"])
            assert bus.data.stats().reconnects == 1

    async def test_a_connection_lost_while_much_was_being_written_sends_again_when_it_is_back(
        self, own_servers: EmbeddedServers, subject: str
    ) -> None:
        got: list[bytes] = []
        async with Bus([own_servers.nats_url], name="one", inbox="inbox.one") as bus:
            await bus.data.subscribe(subject, lambda s, r, payload, h: got.append(payload))
            own_servers.nats.signal(signal.SIGSTOP)  # it reads no more: what is published piles up in every buffer
            await asyncio.sleep(0.2)
            for _ in range(200):
                bus.data.publish("elsewhere", bytes(100_000))
            for _ in range(50):
                await asyncio.sleep(0.01)
            await own_servers.nats.kill()
            await own_servers.nats.start()
            await eventually(lambda: bus.data.connected, within=10)
            bus.data.publish(subject, b"fresh")
            await eventually(lambda: got == [b"fresh"], within=10)

    @pytest.mark.parametrize(
        "error", [ConnectionResetError("Connection lost"), RuntimeError("closed"), nats.errors.Error]
    )
    async def test_a_publish_that_fails_in_the_transport_is_counted_and_the_next_one_goes(
        self, servers: EmbeddedServers, subject: str, error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        got: list[bytes] = []
        async with Bus([servers.nats_url], name="one", inbox="inbox.one") as bus:
            await bus.data.subscribe(subject, lambda s, r, payload, h: got.append(payload))

            async def fail(*args: object) -> None:
                raise error

            with monkeypatch.context() as patch:
                patch.setattr(bus.data._nats, "publish", fail)
                bus.data.publish(subject, b"lost")
                await eventually(lambda: bus.data.stats().publishes_dropped == 1)
            bus.data.publish(subject, b"next")
            await eventually(lambda: got == [b"next"])

    async def test_no_server_is_told_with_address_and_remedy(self) -> None:
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1.*check the address"):
            async with Bus(["nats://127.0.0.1:1"], name="one", inbox="i", connect_timeout=timedelta(milliseconds=300)):
                pass


USERS = """
authorization {
  users = [
    {user: admin, password: a}
    {user: bob, password: b, permissions: {
      publish: ["ok.>", "inbox.>"], subscribe: ["ok.>", "inbox.bob.>"]}}
  ]
}
"""


@pytest_asyncio.fixture
async def guarded(binaries: None, tmp_path: Path) -> AsyncIterator[EmbeddedServers]:
    """A nats-server with users and permissions."""
    config = tmp_path / "users.conf"
    config.write_text(USERS)
    async with EmbeddedServers(nats_args=["-c", str(config)], with_etcd=False) as servers:
        yield servers


@dataclass
class Keyring:
    """Certificates of a throw-away authority: the server's and one for a client."""

    directory: Path

    def path(self, name: str) -> Path:
        return self.directory / name

    def make(self) -> None:
        authority = ec.generate_private_key(ec.SECP256R1())
        self._sign("ca", "test authority", authority, authority, ca=True)
        for name in ("server", "client"):
            self._sign(name, "test authority", ec.generate_private_key(ec.SECP256R1()), authority, ca=False)

    def _sign(
        self, name: str, issuer: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey, *, ca: bool
    ) -> None:
        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        now = datetime.now(UTC)
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = (
            x509.CertificateBuilder(named(issuer), named(issuer if ca else name), key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(address, critical=False)
        )
        certificate = builder.sign(signer, hashes.SHA256())
        pem = serialization.Encoding.PEM
        self.path(f"{name}.pem").write_bytes(certificate.public_bytes(pem))
        plain, form = serialization.NoEncryption(), serialization.PrivateFormat.PKCS8
        self.path(f"{name}.key").write_bytes(key.private_bytes(pem, form, plain))


class TestTls:
    async def test_both_sides_prove_who_they_are(self, binaries: None, tmp_path: Path, subject: str) -> None:
        keyring = Keyring(tmp_path)
        keyring.make()
        args = ["--tlsverify", "--tlscacert", str(keyring.path("ca.pem"))]
        args += ["--tlscert", str(keyring.path("server.pem")), "--tlskey", str(keyring.path("server.key"))]
        async with EmbeddedServers(nats_args=args, with_etcd=False) as servers:
            tls = Tls(keyring.path("ca.pem"), keyring.path("client.pem"), keyring.path("client.key"))
            async with Bus([servers.nats_url], name="t", inbox="i", tls=tls) as bus:
                await bus.data.subscribe(subject, lambda s, reply, payload, h: bus.data.publish(reply, payload))
                assert await bus.control.request(subject, b"secret", 2.0) == b"secret"
            with pytest.raises(Unavailable, match="can't connect"):
                async with Bus([servers.nats_url], name="t", inbox="i", connect_timeout=timedelta(milliseconds=500)):
                    pass


async def test_credentials_that_need_a_missing_package_or_file_say_so(servers: EmbeddedServers, tmp_path: Path) -> None:
    credentials = Credentials(creds_file=tmp_path / "absent.creds")
    with pytest.raises(Unavailable, match=r"nkeys|absent\.creds"):
        async with Bus(
            [servers.nats_url], name="b", inbox="i", credentials=credentials, connect_timeout=timedelta(seconds=1)
        ):
            pass


class TestPermissions:
    async def test_a_forbidden_subscription_raises_and_names_the_subject(self, guarded: EmbeddedServers) -> None:
        async with Bus([guarded.nats_url], name="b", inbox="inbox.bob", credentials=Credentials("bob", "b")) as bus:
            with pytest.raises(Unavailable, match=r"secret\.all"):
                await bus.data.subscribe("secret.all", ignore)
            assert bus.data.stats().permission_errors == 1
            await bus.data.subscribe("ok.fine", ignore)

    async def test_a_forbidden_publish_is_counted_and_told(self, guarded: EmbeddedServers) -> None:
        async with Bus([guarded.nats_url], name="b", inbox="inbox.bob", credentials=Credentials("bob", "b")) as bus:
            problems: list[Problem] = []
            bus.data.on_problem(problems.append)
            bus.data.publish("secret.all", b"")
            await bus.data.flush()
            await eventually(lambda: bool(problems))
            assert problems == [Problem(Trouble.PUBLISH_DENIED, "secret.all")]
            assert bus.data.connected

    async def test_a_wrong_password_fails_at_once_and_says_so(self, guarded: EmbeddedServers) -> None:
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"(?i)authorization"):
            async with Bus([guarded.nats_url], name="b", inbox="i", credentials=Credentials("bob", "wrong")):
                pass
        assert time.monotonic() - began < 3.0

    async def test_a_connection_nats_ended_for_good_is_built_up_again(
        self, binaries: None, tmp_path: Path, subject: str
    ) -> None:
        config = tmp_path / "users.conf"
        config.write_text(USERS)
        got: list[bytes] = []
        async with EmbeddedServers(nats_args=["-c", str(config)], with_etcd=False) as servers:
            credentials = Credentials("bob", "b")
            async with Bus([servers.nats_url], name="b", inbox="inbox.bob", credentials=credentials) as bus:
                await bus.data.subscribe("ok.x", lambda s, r, payload, h: got.append(payload))
                config.write_text(USERS.replace("password: b,", "password: changed,"))
                servers.nats.signal(signal.SIGHUP)
                await eventually(lambda: not bus.data.connected)
                with pytest.raises(NotConnected):
                    bus.data.publish("ok.x", b"lost")
                config.write_text(USERS)
                servers.nats.signal(signal.SIGHUP)
                await eventually(lambda: bus.data.connected and bus.control.connected, within=15)
                bus.control.publish("ok.x", b"again")
                await eventually(lambda: got == [b"again"])
                assert bus.data.stats().reconnects == 1
                assert bus.data.stats().in_msgs == 1


async def test_a_request_that_is_cancelled_just_as_its_answer_comes_is_cancelled(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def answers_all_the_same(*_: object, **__: object) -> Msg:
        """As ``asyncio.wait_for`` does before Python 3.12."""
        try:
            asked.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return Msg(bus.control._nats, data=b"late")
        raise AssertionError("not cancelled")

    monkeypatch.setattr(bus.control._nats, "request", answers_all_the_same)
    async with Tasks("test") as tasks:
        request = tasks.start(bus.control.request("subject", b"", 60), "request")
        await asked.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
