"""The metrics of a sample, as Prometheus reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cluster.etcd import Status
from node.metrics import (
    FAMILIES,
    MAX_ENTRIES,
    Family,
    HostSample,
    LinkSample,
    NatsSample,
    NodeSample,
    Steps,
    WorkerSample,
    metrics_registry,
)

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"

HOST = HostSample(
    "app:processes",
    live={"app:worker": 3},
    spawned={"app:worker": 5},
    exits={"normal": 1, "error": 1},
    mailbox=7,
    workers=(WorkerSample(1, 4096, 0.25, Steps((0.001, 0.01), (4, 2, 1), 0.05)), WorkerSample(2, 1024, 0.5)),
    workers_asked=4,
    short_of_memory=1,
    limit_hits={"mailbox_size": 3},
    limits={"mailbox_size": 100, "stretch": 0.25},
)
SAMPLE = NodeSample(
    version="1.2.3",
    hosts=(HOST,),
    messages={"local": 10, "remote_in": 2, "remote_out": 3},
    dead_letters={"noproc": 1},
    moves={"moved": 2},
    guests=3,
    registry_version=4,
    registry_head=5,
    etcd=Status("3.5.17", 2000, 90, 3, 1500, ("NOSPACE",)),
    degraded=[("app:cache", 7, "no\nroom")],
    lease_seconds_left=4.5,
    links=(LinkSample("node-2", True, 20, 30, 128, 1), LinkSample("node-3", False)),
    nats=(NatsSample("data", True, 2, 3, 4), NatsSample("control", False)),
    nodes={"ready": 2},
    side_door={"accepted": 8},
    events={"local": 6},
    log_lines_dropped=9,
)


def scraped(sample: NodeSample) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = generate_latest(metrics_registry(lambda: sample)).decode()
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def test_a_sample_gives_its_values() -> None:
    found = scraped(SAMPLE)
    host = ("host", "app:processes")
    for (name, labels), value in {
        ("wippy_processes", (("entry", "app:worker"), host)): 3,
        ("wippy_spawned_total", (("entry", "app:worker"), host)): 5,
        ("wippy_exits_total", (host, ("reason", "error"))): 1,
        ("wippy_mailbox_depth", (host,)): 7,
        ("wippy_vm_memory_bytes", (host, ("worker", "1"))): 4096,
        ("wippy_vm_busy", (host, ("worker", "2"))): 0.5,
        ("wippy_host_workers", (host,)): 2,
        ("wippy_host_workers_asked", (host,)): 4,
        ("wippy_host_short_of_memory", (host,)): 1,
        ("wippy_limit", (host, ("limit", "stretch"))): 0.25,
        ("wippy_limit_hits_total", (host, ("limit", "mailbox_size"))): 3,
        ("wippy_limit_hits_total", (host, ("limit", "stretch"))): 0,
        ("wippy_messages_total", (("path", "remote_out"),)): 3,
        ("wippy_dead_letters_total", (("reason", "noproc"),)): 1,
        ("wippy_moves_total", (("verdict", "moved"),)): 2,
        ("wippy_moved_in_processes", ()): 3,
        ("wippy_registry_version", ()): 4,
        ("wippy_registry_head", ()): 5,
        ("wippy_etcd_db_bytes", ()): 2000,
        ("wippy_etcd_db_in_use_bytes", ()): 1500,
        ("wippy_etcd_alarm", (("alarm", "NOSPACE"),)): 1,
        ("wippy_etcd_alarm", (("alarm", "CORRUPT"),)): 0,
        ("wippy_degraded_entries", ()): 1,
        ("wippy_degraded_entry", (("entry", "app:cache"), ("reason", "no room"), ("version", "v7"))): 1,
        ("wippy_lease_ttl_seconds", ()): 4.5,
        ("wippy_link_state", (("peer", "node-2"),)): 1,
        ("wippy_link_state", (("peer", "node-3"),)): 0,
        ("wippy_link_envelopes_total", (("dir", "out"), ("peer", "node-2"))): 30,
        ("wippy_link_closes_total", (("peer", "node-2"),)): 1,
        ("wippy_nats_connected", (("connection", "control"),)): 0,
        ("wippy_nats_reconnects_total", (("connection", "data"),)): 2,
        ("wippy_nats_slow_consumer_drops_total", (("connection", "data"),)): 3,
        ("wippy_nats_permission_errors_total", (("connection", "data"),)): 4,
        ("wippy_nodes", (("state", "ready"),)): 2,
        ("wippy_side_door_total", (("result", "accepted"),)): 8,
        ("wippy_events_total", (("path", "local"),)): 6,
        ("wippy_log_lines_dropped_total", ()): 9,
    }.items():
        assert found[name, labels] == value, name


def test_step_times_are_a_cumulative_histogram() -> None:
    found = scraped(SAMPLE)
    host = ("host", "app:processes")
    worker = ("worker", "1")
    buckets = [
        found["wippy_vm_step_seconds_bucket", (host, ("le", bound), worker)] for bound in ("0.001", "0.01", "+Inf")
    ]
    assert buckets == [4, 6, 7]
    assert found["wippy_vm_step_seconds_count", (host, worker)] == 7
    assert found["wippy_vm_step_seconds_sum", (host, worker)] == 0.05


def test_an_empty_node_can_be_scraped() -> None:
    found = scraped(NodeSample())
    assert found["wippy_registry_version", ()] == -1
    assert ("wippy_registry_head", ()) not in found


def test_labels_of_applications_are_bounded() -> None:
    many = {f"app:e{number}": 2 for number in range(MAX_ENTRIES + 5)}
    found = scraped(NodeSample(hosts=(HostSample("h", live=many),)))
    shown = [labels for name, labels in found if name == "wippy_processes"]
    assert len(shown) == MAX_ENTRIES + 1
    assert found["wippy_processes", (("entry", "other"), ("host", "h"))] == 10


def test_every_family_is_told_with_a_full_sample_and_nothing_else_has_our_prefix() -> None:
    text = generate_latest(metrics_registry(lambda: SAMPLE)).decode()
    told = {
        family.name.removesuffix("_total")
        for family in text_string_to_metric_families(text)
        if family.name.startswith("wippy_")
    }
    assert told == {family.name.removesuffix("_total") for family in FAMILIES}


def test_the_build_is_a_label() -> None:
    ((_, labels),) = [key for key in scraped(SAMPLE) if key[0] == "wippy_build_info"]
    assert ("version", "1.2.3") in labels


@pytest.mark.parametrize("family", FAMILIES, ids=[family.name for family in FAMILIES])
def test_the_document_has_every_metric_with_its_labels_and_meaning(family: Family) -> None:
    labels = ", ".join(f"`{label}`" for label in family.labels) or "-"
    assert f"| `{family.name}` | {labels} | {family.help} |" in DOCUMENT.read_text()
