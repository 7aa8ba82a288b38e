"""The probe server over real sockets: what it serves, and what it withstands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest
import structlog

from node import probes
from node.metrics import NodeSample
from node.probes import FIRST_PORT, PortTaken, ProbeServer, Target, reachable


@dataclass
class FakeView:
    """A node whose answers the test sets."""

    shown: NodeSample = field(default_factory=lambda: NodeSample(registry_version=3))
    dead: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    remarked: list[str] = field(default_factory=list)
    refreshed: int = 0
    stuck: bool = False

    async def refresh(self) -> None:
        self.refreshed += 1
        if self.stuck:
            await asyncio.Event().wait()

    def sample(self) -> NodeSample:
        return self.shown

    def failing(self) -> list[str]:
        return self.dead

    def unready(self) -> list[str]:
        return self.busy

    def remarks(self) -> list[str]:
        return self.remarked

    def targets(self) -> list[Target]:
        return [Target("127.0.0.1:9464", {"node": "node-1"}), Target("127.0.0.1:9465", {"node": "node-2"})]


@pytest.fixture
def view() -> FakeView:
    return FakeView()


@pytest.fixture
async def server(view: FakeView) -> AsyncIterator[ProbeServer]:
    async with ProbeServer(view, port=0) as server:
        yield server


@pytest.fixture
async def client(server: ProbeServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{server.address}", trust_env=False, timeout=5) as client:
        yield client


async def raw(server: ProbeServer, request: bytes) -> bytes:
    """The answer to bytes as they are."""
    host, port = server.address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


class TestRoutes:
    async def test_metrics_are_fresh_prometheus_text(self, client: httpx.AsyncClient, view: FakeView) -> None:
        answer = await client.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "wippy_registry_version 3.0" in answer.text
        assert "process_resident_memory_bytes" in answer.text
        assert view.refreshed == 1

    async def test_a_node_that_does_not_answer_shows_what_is_known(
        self, client: httpx.AsyncClient, view: FakeView, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(probes, "REFRESH_DEADLINE", 0.01)
        view.stuck = True
        with structlog.testing.capture_logs() as logs:
            assert (await client.get("/metrics")).status_code == 200
        assert [line["log_level"] for line in logs] == ["warning"]

    async def test_what_is_degraded_is_told_and_does_not_make_the_node_unready(
        self, view: FakeView, client: httpx.AsyncClient
    ) -> None:
        view.remarked = ["degraded: app:store since v3 (2 tries): no\nroom"]
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.text) == (200, "ok\ndegraded: app:store since v3 (2 tries): no room\n")
        assert (await client.get("/livez")).text == "ok\n"
        view.busy = ["draining"]
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.text.splitlines()[0]) == (503, "failed: draining")
        assert "app:store" in answer.text

    @pytest.mark.parametrize(("path", "kind"), [("/livez", "dead"), ("/readyz", "busy")])
    async def test_probes_say_what_failed(
        self, client: httpx.AsyncClient, view: FakeView, path: str, kind: str
    ) -> None:
        assert (await client.get(path)).text == "ok\n"
        getattr(view, kind).extend(["lease lost", "VM of app:processes is stuck"])
        answer = await client.get(path)
        assert answer.status_code == 503
        assert answer.text == "failed: lease lost\nfailed: VM of app:processes is stuck\n"

    async def test_service_discovery_lists_all_nodes(self, client: httpx.AsyncClient) -> None:
        answer = await client.get("/sd")
        assert answer.headers["content-type"] == "application/json"
        assert json.loads(answer.text) == [
            {"targets": ["127.0.0.1:9464"], "labels": {"node": "node-1"}},
            {"targets": ["127.0.0.1:9465"], "labels": {"node": "node-2"}},
        ]

    async def test_head_answers_without_a_body(self, client: httpx.AsyncClient) -> None:
        answer = await client.head("/livez")
        assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "3")

    async def test_the_query_is_no_part_of_the_path(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/livez?verbose=1")).status_code == 200

    async def test_other_paths_and_methods_are_refused_with_a_hint(self, client: httpx.AsyncClient) -> None:
        answer = await client.get("/../etc/passwd")
        assert answer.status_code == 404
        assert "/metrics" in answer.text
        assert (await client.post("/metrics", content=b"x")).status_code == 405

    async def test_a_broken_view_is_a_500_and_a_log_line(
        self, client: httpx.AsyncClient, view: FakeView, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken() -> list[str]:
            raise RuntimeError("boom")

        monkeypatch.setattr(view, "failing", broken)
        with structlog.testing.capture_logs() as logs:
            answer = await client.get("/livez")
        assert (answer.status_code, answer.text) == (500, "RuntimeError: boom\n")
        assert logs[0]["event"] == "probe failed"


class TestHostile:
    @pytest.mark.parametrize(
        ("request_bytes", "status"),
        [
            (b"\r\n\r\n", 400),
            (b"GET /livez\r\n\r\n", 400),
            (b"GET /livez FTP/1.0\r\n\r\n", 400),
            (b"\x00\xff\xfe \x80 \x81\r\n\r\n", 400),
            (b"GET /%00\xff HTTP/1.1\r\n\r\n", 404),
            (b"GET /livez HTTP/1.1\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", 431),
        ],
    )
    async def test_bad_requests_are_answered_and_closed(
        self, server: ProbeServer, request_bytes: bytes, status: int
    ) -> None:
        assert (await raw(server, request_bytes)).startswith(b"HTTP/1.1 %d " % status)

    async def test_a_client_that_says_nothing_is_let_go(
        self, server: ProbeServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(probes, "DEADLINE", 0.05)
        assert (await raw(server, b"GET /livez HTT")).startswith(b"HTTP/1.1 408 ")

    async def test_connections_are_bounded(
        self, server: ProbeServer, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(probes, "MAX_CONNECTIONS", 1)
        monkeypatch.setattr(probes, "DEADLINE", 0.5)
        host, port = server.address.rsplit(":", 1)
        _, idle = await asyncio.open_connection(host, int(port))
        async with asyncio.timeout(5):
            while (await raw(server, b"GET /livez HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200"):
                continue
        idle.close()
        async with asyncio.timeout(5):
            while not (await raw(server, b"GET /livez HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200"):
                continue


class TestPorts:
    async def test_each_server_takes_the_next_free_port(self, view: FakeView) -> None:
        async with ProbeServer(view) as first, ProbeServer(view) as second:
            ports = [int(server.address.rsplit(":", 1)[1]) for server in (first, second)]
        assert FIRST_PORT <= ports[0] < ports[1]

    async def test_a_port_that_was_asked_for_and_is_taken_says_so(self, view: FakeView, server: ProbeServer) -> None:
        port = int(server.address.rsplit(":", 1)[1])
        with pytest.raises(PortTaken, match=f"port {port} is taken on 127.0.0.1; set another with metrics.port"):
            async with ProbeServer(view, port=port):
                pass

    async def test_after_the_end_nobody_listens(self, view: FakeView) -> None:
        async with ProbeServer(view, port=0) as server:
            pass
        host, port = server.address.rsplit(":", 1)
        with pytest.raises(OSError, match="onnect"):
            await asyncio.open_connection(host, int(port))


@pytest.mark.parametrize("every", ["0.0.0.0", "", "::"])
def test_every_address_is_told_to_others_as_one_they_can_reach(every: str) -> None:
    assert reachable(every) not in ("", "0.0.0.0", "::")
    assert reachable("10.1.2.3") == "10.1.2.3"
