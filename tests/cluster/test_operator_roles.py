"""An operator's login may change the overlay of its cluster and learn what became of it, and touch nothing else.

The roles are made by the lines of docs/deploy.md, and by deploy/operator/roles.py, on an etcd with authentication on.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from cluster.embedded import EmbeddedServers, etcd_binary
from cluster.etcd import Compare, Delete, Etcd, Get, PermissionDenied, Put
from cluster.keys import Keys
from tests.cluster.processes import ROOT, WIPPY, Program, environment, wippy
from tests.cluster.test_apps import copied

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("binaries")]

SCRIPT = ROOT / "deploy" / "operator" / "roles.py"
KEYS = Keys("shop")
ALICE, NODE = ("alice", "ALICE-SECRET"), ("shop-node", "NODE-SECRET")
MINE = KEYS.overlay("app:limits")
ANSWER = KEYS.overlay_status("app:limits")
OTHERS = {
    "incarnation": KEYS.incarnation,
    "nodes": KEYS.node("node-1"),
    "head": KEYS.head,
    "floor": KEYS.floor,
    "changes": KEYS.change(0),
    "snapshots": KEYS.snapshot(0),
    "blobs": KEYS.blob("u", 0),
    "uploads": KEYS.upload("u"),
    "names": KEYS.name("counter"),
    "services": KEYS.service("app:s", 0),
    "moved": KEYS.moved_process("1-1"),
    "locks": KEYS.lock("l"),
    "store": KEYS.store("app:store") + "k",
    "another cluster": Keys("shop2").overlay("app:limits"),
    "a neighbour of the prefix": "/wippy/shop/config0",
}


def documented() -> list[str]:
    """The etcdctl lines of the page."""
    return re.findall(r"^etcdctl .+$", (ROOT / "docs" / "deploy.md").read_text(), re.MULTILINE)


def by_hand(url: str) -> None:
    etcdctl = etcd_binary().with_name("etcdctl")
    for line in documented():
        words = shlex.split(line)[1:]
        subprocess.run([str(etcdctl), "--endpoints", url, *words], check=True, capture_output=True, timeout=30)


def by_script(url: str) -> None:
    def run(*arguments: str, password: str) -> None:
        env = {**environment(), "WIPPY_NEW_PASSWORD": password}
        command = [sys.executable, "-I", str(SCRIPT), *arguments]
        subprocess.run(command, env=env, check=True, capture_output=True, timeout=30)

    run("--etcd", url, "enable", password="SECRET")
    root = url.replace("://", "://root:SECRET@")
    for what, (user, password) in (("node", NODE), ("operator", ALICE), ("operator", ALICE)):
        run("--etcd", root, "--cluster", "shop", what, user, password=password)


@pytest_asyncio.fixture(params=[by_hand, by_script], ids=["etcdctl", "roles.py"])
async def guarded(request: pytest.FixtureRequest) -> AsyncIterator[EmbeddedServers]:
    """Servers whose etcd has the roles of the cluster ``shop``."""
    make: Callable[[str], None] = request.param
    async with EmbeddedServers() as servers:
        make(servers.etcd_url)
        yield servers


@contextmanager
def node(servers: EmbeddedServers, directory: Path) -> Iterator[Path]:
    """A node of the cluster that logs in as nodes do."""
    app = copied("shelf", directory)
    settings = app / "src" / "limits.yaml"
    settings.write_text("namespace: app\nentries:\n  - {name: limits, kind: registry.entry, data: {rate: 2}}\n")
    env = place(servers, *NODE)
    with Program([*WIPPY, "run", "--node", "node-1", "--set", "metrics.port=0"], app, "node", env) as running:
        running.until(lambda: "node ready" in running.err, within=30)
        yield app


def place(servers: EmbeddedServers, user: str, password: str) -> dict[str, str]:
    return {
        "WIPPY_NATS": servers.nats_url,
        "WIPPY_ETCD": servers.etcd_url,
        "WIPPY_CLUSTER": "shop",
        "WIPPY_ETCD_USER": user,
        "WIPPY_ETCD_PASSWORD": password,
    }


async def test_an_operator_configures_a_running_cluster_and_touches_nothing_else(
    guarded: EmbeddedServers, tmp_path: Path
) -> None:
    alice = place(guarded, *ALICE)
    with node(guarded, tmp_path) as app:
        set_ = wippy(tmp_path, "config", "set", "app:limits", '{"rate": 5}', env=alice)
        assert set_.stdout.startswith("applied: app:limits is at v1")
        assert "refused" in wippy(tmp_path, "config", "set", "app:nothing", "a=1", code=1, env=alice).stderr
        assert "applied" in wippy(tmp_path, "config", "list", env=alice).stdout
        operator_script(guarded, '{"rate": 7}')
        assert wippy(tmp_path, "config", "unset", "app:limits", env=alice).stdout.startswith("applied")
        for verb in (
            ("nodes",),
            ("ps",),
            ("registry", "list"),
            ("registry", "push", str(app)),
            ("registry", "rollback", "v0"),
        ):
            assert "user 'alice' needs a role" in wippy(tmp_path, *verb, code=1, env=alice).stderr
        await deny(guarded)


def operator_script(servers: EmbeddedServers, value: str) -> None:
    """The example that needs no code of ours."""
    user, password = ALICE
    url = servers.etcd_url.replace("://", f"://{user}:{password}@")
    script = ROOT / "deploy" / "operator" / "set_config.py"
    command = [sys.executable, str(script), "--etcd", url, "--cluster", "shop", "app:limits", value]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 0, ended.stderr


async def deny(servers: EmbeddedServers) -> None:
    """Every other key of the cluster, one by one, by every kind of request."""
    async with Etcd([servers.etcd_url], user=ALICE[0], password=ALICE[1]) as etcd:
        await etcd.put(MINE, b"{}")
        await etcd.delete(MINE)
        await etcd.get(ANSWER)
        for what, key in {**OTHERS, "the answers": ANSWER}.items():
            with pytest.raises(PermissionDenied):
                await etcd.put(key, b"mine")
                pytest.fail(f"put {what}")
            with pytest.raises(PermissionDenied):
                await etcd.delete(key)
                pytest.fail(f"delete {what}")
            with pytest.raises(PermissionDenied):
                await etcd.txn([], [Put(MINE, b"{}"), Put(key, b"mine")])
                pytest.fail(f"a transaction with {what}")
            with pytest.raises(PermissionDenied):
                await etcd.txn([Compare.mod(MINE, "=", 0)], [Put(MINE, b"{}")], [Delete(key)])
                pytest.fail(f"the other branch of a transaction with {what}")
        for what, key in OTHERS.items():
            with pytest.raises(PermissionDenied):
                await etcd.get(key)
                pytest.fail(f"get {what}")
            with pytest.raises(PermissionDenied):
                await etcd.txn([], [Get(key)])
                pytest.fail(f"get {what} in a transaction")
        with pytest.raises(PermissionDenied):
            await etcd.range(KEYS.prefix)
        with pytest.raises(PermissionDenied):
            await etcd.delete_prefix(KEYS.prefix)
        assert await etcd.get(MINE) is None, "a refused transaction has done nothing"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "required: what"),
        (["operator", "alice"], 2, "expected --etcd URL"),
        (["operator", "--etcd", "http://127.0.0.1:1"], 2, "expected a user and --cluster NAME"),
        (["king", "alice"], 2, "invalid choice"),
        (["operator", "alice", "--etcd", "http://127.0.0.1:1", "--cluster", "shop"], 1, "no answer from etcd at"),
    ],
)
def test_the_script_says_what_it_lacks(arguments: list[str], code: int, says: str) -> None:
    env = {**environment(), "WIPPY_NEW_PASSWORD": "x"}
    command = [sys.executable, "-I", str(SCRIPT), *arguments]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == code
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_script_says_that_the_login_is_wrong(guarded: EmbeddedServers) -> None:
    env = {**environment(), "WIPPY_NEW_PASSWORD": "x"}
    url = guarded.etcd_url.replace("://", "://root:guessed@")
    command = [sys.executable, "-I", str(SCRIPT), "--etcd", url, "--cluster", "shop", "operator", "eve"]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert "authentication failed" in ended.stderr
    assert "guessed" not in ended.stderr
