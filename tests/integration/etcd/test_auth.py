"""Users, roles and tokens that end."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from cluster.embedded import EmbeddedServers
from cluster.etcd import Etcd, PermissionDenied, PrefixWatch, Put
from cluster.fencing import LeaseKeeper

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("binaries")]


class Gateway:
    """etcd's HTTP gateway, for what the client has no call for."""

    def __init__(self, url: str) -> None:
        self._http = httpx.AsyncClient(base_url=url)

    async def post(self, path: str, body: dict[str, Any], token: str = "") -> dict[str, Any]:
        headers = {"Authorization": token} if token else {}
        answer: dict[str, Any] = (await self._http.post(f"/v3/{path}", json=body, headers=headers)).json()
        return answer

    async def log_in(self, user: str, password: str) -> str:
        return str((await self.post("auth/authenticate", {"name": user, "password": password}))["token"])

    async def close(self) -> None:
        await self._http.aclose()


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def switch_auth_on(gateway: Gateway) -> None:
    """root may do all, ``node`` (password ``n0de``) what is under /rt/."""
    for user, password in (("root", "r00t"), ("node", "n0de")):
        await gateway.post("auth/user/add", {"name": user, "password": password})
        await gateway.post("auth/role/add", {"name": user})
        await gateway.post("auth/user/grant", {"user": user, "role": user})
    permission = {"permType": "READWRITE", "key": b64("/rt/"), "range_end": b64("/rt0")}
    await gateway.post("auth/role/grant", {"name": "node", "perm": permission})
    assert "message" not in await gateway.post("auth/enable", {})


@pytest.fixture
async def guarded() -> AsyncIterator[EmbeddedServers]:
    async with EmbeddedServers(with_nats=False, etcd_args=["--auth-token-ttl=1"]) as servers:
        gateway = Gateway(servers.etcd_url)
        await switch_auth_on(gateway)
        await gateway.close()
        yield servers


async def test_user_reads_and_writes_within_the_role(guarded: EmbeddedServers) -> None:
    async with Etcd([guarded.etcd_url], user="node", password="n0de") as etcd:
        await etcd.txn([], [Put("/rt/a", b"1")])
        assert [kv.key for kv in (await etcd.range("/rt/")).kvs] == ["/rt/a"]


async def test_key_outside_the_role_is_denied_with_the_remedy(guarded: EmbeddedServers) -> None:
    async with Etcd([guarded.etcd_url], user="node", password="n0de") as etcd:
        with pytest.raises(PermissionDenied, match=r"put /other at http://.*user 'node' needs a role with this prefix"):
            await etcd.put("/other", b"")


async def test_wrong_password_is_named_without_showing_it(guarded: EmbeddedServers) -> None:
    async with Etcd([guarded.etcd_url], user="node", password="guess") as etcd:
        with pytest.raises(PermissionDenied, match="log in as 'node'") as refused:
            await etcd.put("/rt/a", b"")
    assert "guess" not in str(refused.value)


async def test_client_without_a_user_is_told_to_log_in(guarded: EmbeddedServers) -> None:
    async with Etcd([guarded.etcd_url]) as etcd:
        with pytest.raises(PermissionDenied, match="wants a login"):
            await etcd.put("/rt/a", b"")


async def test_user_is_no_obstacle_where_auth_is_off(servers: EmbeddedServers, cluster_name: str) -> None:
    async with Etcd([servers.etcd_url], user="node", password="n0de") as etcd:
        await etcd.put(f"/wippy/{cluster_name}/a", b"")


async def test_ended_token_is_renewed_for_reads_writes_transactions_and_leases(guarded: EmbeddedServers) -> None:
    gateway = Gateway(guarded.etcd_url)
    async with Etcd([guarded.etcd_url], user="node", password="n0de") as etcd:
        lease = await etcd.grant(60)
        await etcd.put("/rt/a", b"1")
        token = await gateway.log_in("node", "n0de")
        await asyncio.sleep(2.5)  # longer than the TTL of 1 s, which etcd checks once a second
        refused = await gateway.post("kv/range", {"key": b64("/rt/a")}, token)
        assert "invalid auth token" in refused["message"]
        assert (await etcd.txn([], [Put("/rt/a", b"2")])).succeeded
        kv = await etcd.get("/rt/a")
        assert kv is not None
        assert kv.version == 2
        # tokens end with etcd as well
        for call in (lambda: etcd.keep_alive(lease.id), lambda: etcd.put("/rt/a", b"3"), lambda: etcd.count("/rt/")):
            await guarded.etcd.kill()
            await guarded.etcd.start()
            assert await call()
    await gateway.close()


async def test_many_calls_at_once_log_in_once(guarded: EmbeddedServers, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Etcd([guarded.etcd_url], user="node", password="n0de") as etcd:
        logins = 0
        real = etcd.connection._authenticate

        async def counted(*args: Any) -> str:
            nonlocal logins
            logins += 1
            return await real(*args)

        monkeypatch.setattr(etcd.connection, "_authenticate", counted)
        await asyncio.gather(*(etcd.put(f"/rt/{number}", b"") for number in range(50)))
        assert logins == 1


async def test_watch_goes_on_after_its_token_died_with_etcd(guarded: EmbeddedServers) -> None:
    async with Etcd([guarded.etcd_url], user="node", password="n0de") as etcd:
        keys: list[str] = []
        watch = PrefixWatch(etcd, "/rt/")
        watch.subscribe("/rt/", lambda batch: keys.extend(event.kv.key for event in batch.events))
        async with watch:
            await watch.reached(await etcd.put("/rt/a", b""))
            await guarded.etcd.kill()
            await guarded.etcd.start()
            await watch.reached(await etcd.put("/rt/b", b""))
            assert keys == ["/rt/a", "/rt/b"]


async def test_keeper_renews_through_the_end_of_its_token(guarded: EmbeddedServers) -> None:
    async with LeaseKeeper([guarded.etcd_url], user="node", password="n0de") as keeper:
        await guarded.etcd.kill()
        await guarded.etcd.start()
        before = keeper.remaining()
        async with asyncio.timeout(5):
            while keeper.remaining() < before:
                await asyncio.sleep(0.02)
