"""Locks and names of real nodes: free when their node is gone, and no write of a holder that overslept its lease."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.client import Client
from cluster.etcd import Delete
from cluster.keys import Keys
from tests.cluster.agents import Agents
from tests.cluster.processes import eventually

pytestmark = [pytest.mark.servers, pytest.mark.chaos]

LEASE_TTL = 5.0


@pytest.fixture(scope="module")
def agents(binaries: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    with Agents(tmp_path_factory.mktemp("agents")) as agents:
        yield agents


def test_a_lock_is_of_one_holder_in_the_cluster_and_the_command_line_shows_it(agents: Agents) -> None:
    assert agents.tell("node-1", "acquire", "orders") == {"value": True}
    refused = agents.tell("node-2", "acquire", "orders")
    assert (refused["value"], refused["kind"]) == (False, "AlreadyExists")
    assert refused["details"]["holder"].startswith("{node-1@app:processes|")
    assert agents.held() == {"orders": "node-1"}
    assert agents.tell("node-2", "release", "orders") == {"value": False}
    first = agents.tell("node-1", "fence", "orders")["value"]
    assert agents.tell("node-1", "release", "orders") == {"value": True}
    assert agents.tell("node-2", "acquire", "orders") == {"value": True}
    assert agents.tell("node-2", "fence", "orders")["value"] > first
    assert agents.tell("node-2", "release", "orders") == {"value": True}
    assert agents.held() == {}


def test_a_service_and_the_functions_it_calls_have_the_token_of_its_claim(agents: Agents) -> None:
    claim = f"{Keys(agents.place['cluster']).services}app:keepers/0"

    async def revision(client: Client) -> int:
        return (await client.etcd.range(claim)).kvs[0].mod_revision

    def tokens() -> dict[str, Any]:
        return dict(agents.call("keeper", "tell", gateway="node-1"))

    first = agents.asked(revision)
    nothing = {"kind": "NotFound"}
    assert tokens() == {"own": first, "called": first, "child": nothing}

    async def end_claim(client: Client) -> None:
        await client.etcd.txn([], [Delete(claim)])

    agents.asked(end_claim)
    second = eventually(lambda: tokens()["own"] != first and tokens(), within=20, what="somebody claimed it again")
    assert second["own"] > first
    assert second == {"own": agents.asked(revision), "called": second["own"], "child": nothing}


def test_a_program_ends_its_node_with_a_code_of_its_own(agents: Agents) -> None:
    agents.wippy("run", "owners", "--node", "leaver", "-x", "app:leaver", "7", code=7)
    assert "leaver" not in {row["node"] for row in agents.json("nodes", "--json")}


def test_names_of_every_scope_reach_every_node(agents: Agents) -> None:
    for scope in ("EVENTUAL", "CONSISTENT", "STRONG"):
        name = f"name {scope}"
        assert agents.tell("node-1", "register", name, scope) == {"value": True}
        pid = agents.tell("node-1", "lookup", name)["value"]
        if scope == "STRONG":  # no need to wait: every node has it
            assert agents.tell("node-3", "lookup", name) == {"value": pid}
        eventually(
            lambda name=name, pid=pid: agents.tell("node-2", "lookup", name) == {"value": pid},
            within=5,
            what=f"node-2 knows {name}",
        )
        assert agents.tell("node-2", "register", name, scope)["kind"] == "AlreadyExists"
        assert agents.tell("node-1", "unregister", name, scope) == {"value": True}
        assert agents.tell("node-1", "lookup", name)["kind"] == "NotFound"


def test_a_strong_name_waits_for_a_node_that_hangs_until_that_is_gone(agents: Agents) -> None:
    stopped = agents.pids["node-3"]
    os.kill(stopped, signal.SIGSTOP)
    try:
        began = time.monotonic()
        told = agents.call("agent@node-1", "register", ["strong", "STRONG"], gateway="node-1", timeout=20.0)
        assert told == {"value": True}
        assert time.monotonic() - began > 1, "it did not wait for node-3"
        pid = agents.tell("node-1", "lookup", "strong")["value"]
        assert agents.tell("node-2", "lookup", "strong") == {"value": pid}
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert agents.tell("node-1", "unregister", "strong", "STRONG") == {"value": True}
    eventually(lambda: agents.tell("node-3", "lookup", "strong"), within=20, what="node-3 is back")


def test_a_holder_that_overslept_its_lease_writes_nothing_more(agents: Agents) -> None:
    """SIGSTOP longer than the lease, then SIGCONT."""
    assert agents.tell("node-2", "acquire", "row")["value"] is True
    assert agents.tell("node-2", "keep_writing", "row", "old holder")["value"] is True
    eventually(lambda: agents.tell("node-3", "read", "row") == {"value": "old holder"}, within=5, what="it writes")
    stopped = agents.pids["node-2"]
    os.kill(stopped, signal.SIGSTOP)
    try:
        eventually(
            lambda: agents.tell("node-3", "acquire", "row")["value"] is True,
            within=LEASE_TTL + 10,
            what="the lock is free",
        )
        assert agents.tell("node-3", "write", "row", "new holder") == {"value": True}
    finally:
        os.kill(stopped, signal.SIGCONT)
    until = time.monotonic() + 3
    while time.monotonic() < until:
        assert agents.tell("node-3", "read", "row") == {"value": "new holder"}
    assert agents.held() == {"row": "node-3"}
    restarted = eventually(lambda: agents.tell("node-2", "acquire", "row"), within=20, what="node-2 is back")
    assert restarted["kind"] == "AlreadyExists"
    assert agents.tell("node-3", "release", "row") == {"value": True}


def test_the_lock_of_a_killed_node_is_free_when_its_lease_ended(agents: Agents) -> None:
    assert agents.tell("node-3", "acquire", "orders") == {"value": True}
    os.kill(agents.pids["node-3"], signal.SIGKILL)
    killed_at = time.monotonic()
    eventually(
        lambda: agents.tell("node-1", "acquire", "orders")["value"] is True,
        within=LEASE_TTL + 10,
        what="the lock is free",
    )
    assert time.monotonic() - killed_at > 1, "not before the lease ended"
    assert agents.held() == {"orders": "node-1"}
