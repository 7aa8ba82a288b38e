"""A node and the verbs on NATS and etcd that want a login, speak TLS, and of which some are down."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml

from cluster.embedded import EmbeddedServers
from tests.cluster.processes import WIPPY, Program, wippy
from tests.cluster.test_apps import copied
from tests.integration.etcd.test_tls import Authority

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("binaries")]

NATS = """
authorization {{ users = [ {{ user: wippy, password: n4ts }} ] }}
tls {{ cert_file: "{cert}", key_file: "{key}", ca_file: "{ca}", verify: true }}
"""
DEAD_NATS, DEAD_ETCD = "nats://127.0.0.1:1", "https://127.0.0.1:1"


@dataclass(frozen=True)
class Secured:
    """The servers and the files and words that open them."""

    nats: str
    etcd: str
    files: dict[str, str]

    def settings(self, cluster: str, **etcd: Any) -> dict[str, Any]:
        """What ``.wippy.yaml`` says. The first server of each kind does not answer."""
        nats = {
            "urls": [DEAD_NATS, self.nats],
            "user": "wippy",
            "password": "${env:NATS_WORD}",
            "tls": {"ca": self.files["ca"], "cert": self.files["cert"], "key": self.files["key"]},
        }
        own = {"urls": [DEAD_ETCD, self.etcd], "user": "node", "password": "n0de", "tls": {"ca": self.files["ca"]}}
        return {"metrics": {"port": 0}, "cluster": {"name": cluster, "nats": nats, "etcd": own | etcd}}


@pytest_asyncio.fixture
async def secured(tmp_path: Path, cluster_name: str) -> AsyncIterator[Secured]:
    keys = tmp_path / "keys"
    keys.mkdir()
    authority = Authority(keys)
    cert, key = authority.issue("server")
    own_cert, own_key = authority.issue("client")
    config = keys / "nats.conf"
    config.write_text(NATS.format(cert=cert, key=key, ca=authority.certificate))
    etcd_args = [f"--cert-file={cert}", f"--key-file={key}"]
    async with EmbeddedServers(nats_args=["-c", str(config)], etcd_args=etcd_args) as servers:
        await switch_auth_on(servers.etcd_url, authority.certificate, f"/wippy/{cluster_name}/")
        files = {"ca": str(authority.certificate), "cert": str(own_cert), "key": str(own_key)}
        yield Secured(servers.nats_url, servers.etcd_url, files)


async def switch_auth_on(url: str, ca: Path, prefix: str) -> None:
    """``node`` (password ``n0de``) may use the keys of one cluster and nothing else."""

    def b64(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    import ssl

    async with httpx.AsyncClient(base_url=url, verify=ssl.create_default_context(cafile=str(ca))) as http:

        async def post(path: str, body: dict[str, Any]) -> None:
            answer = (await http.post(f"/v3/auth/{path}", json=body)).json()
            assert "error" not in answer, answer

        for user, password in (("root", "r00t"), ("node", "n0de")):
            await post("user/add", {"name": user, "password": password})
            await post("role/add", {"name": user})
            await post("user/grant", {"user": user, "role": user})
        permission = {"permType": "READWRITE", "key": b64(prefix), "range_end": b64(prefix[:-1] + "0")}
        await post("role/grant", {"name": "node", "perm": permission})
        await post("enable", {})


@pytest.fixture
def app(tmp_path: Path, secured: Secured, cluster_name: str) -> Path:
    app = copied("shelf", tmp_path)
    (app / ".wippy.yaml").write_text(yaml.safe_dump(secured.settings(cluster_name)))
    return app


WORDS = {"NATS_WORD": "n4ts"}


def test_a_node_and_the_verbs_log_in_where_the_settings_say(app: Path) -> None:
    with Program([*WIPPY, "run", "--node", "node-1"], app, "node", WORDS) as node:
        node.until(lambda: "node ready" in node.err, within=30)
        nodes = json.loads(wippy(app, "nodes", "--json", env=WORDS).stdout)
        assert [(each["node"], each["state"]) for each in nodes] == [("node-1", "ready")]
        ended = wippy(app, "run", "--node", "visitor", "-x", "app:visitor", env=WORDS)
        assert "on the shelf:\tclock, vase" in ended.stdout
        assert wippy(app, "registry", "history", env=WORDS).stdout.startswith("VERSION")
        assert node.stop() == 0
    assert "n4ts" not in node.err
    assert "n0de" not in node.err


def test_a_wrong_password_is_one_clear_error_that_does_not_show_it(
    app: Path, secured: Secured, cluster_name: str
) -> None:
    said = wippy(app, "run", code=1, env={"NATS_WORD": "guessed"}).stderr
    assert "nats" in said.lower()
    assert "guessed" not in said
    (app / ".wippy.yaml").write_text(yaml.safe_dump(secured.settings(cluster_name, password="guessed")))
    for verb in (("run",), ("nodes",)):
        said = wippy(app, *verb, code=1, env=WORDS).stderr
        assert "log in as 'node'" in said
        assert "guessed" not in said


def test_a_cluster_whose_keys_the_user_may_not_touch_is_denied_with_the_prefix(app: Path, secured: Secured) -> None:
    (app / ".wippy.yaml").write_text(yaml.safe_dump(secured.settings("elsewhere")))
    said = wippy(app, "run", code=1, env=WORDS).stderr
    assert "/wippy/elsewhere/" in said
    assert "user 'node' needs a role" in said


def test_flags_name_servers_and_the_environment_the_login(app: Path, secured: Secured, cluster_name: str) -> None:
    (app / ".wippy.yaml").unlink()
    env = {
        "WIPPY_NATS_USER": "wippy",
        "WIPPY_NATS_PASSWORD": "n4ts",
        "WIPPY_ETCD_USER": "node",
        "WIPPY_ETCD_PASSWORD": "n0de",
    }
    tls = [f"cluster.nats.tls.{name}={file}" for name, file in secured.files.items()]
    sets = [part for text in (*tls, f"cluster.etcd.tls.ca={secured.files['ca']}") for part in ("--set", text)]
    servers = ["--nats", f"{DEAD_NATS},{secured.nats}", "--etcd", DEAD_ETCD, "--etcd", secured.etcd]
    ended = wippy(app, "run", "--cluster", cluster_name, *servers, *sets, "-x", "app:visitor", env=env)
    assert "on the shelf:\tclock, vase" in ended.stdout
