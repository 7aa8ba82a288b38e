"""The files under deploy/ parse, agree with each other and with the program. No container engine is needed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from node.settings import ENVIRONMENT, load_settings

DEPLOY = Path(__file__).parents[3] / "deploy"
ROOT = DEPLOY.parent


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text()))


def unit() -> dict[str, list[str]]:
    """The keys of the systemd unit and their values, sections aside."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "systemd" / "wippy@.service").read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_compose_starts_three_nodes_nats_etcd_and_prometheus() -> None:
    assert set(compose()["services"]) == {"nats", "etcd", "node-1", "node-2", "node-3", "prometheus"}


def test_the_environment_of_composed_nodes_makes_one_cluster_of_three_names(tmp_path: Path) -> None:
    services = compose()["services"]
    settings = [load_settings(tmp_path, environ=services[f"node-{n}"]["environment"]) for n in (1, 2, 3)]
    assert {each.cluster.name for each in settings} == {"demo"}
    assert sorted(each.node for each in settings) == ["node-1", "node-2", "node-3"]
    assert not any(each.embedded for each in settings)


def test_composed_nodes_have_longer_to_stop_than_they_take(tmp_path: Path) -> None:
    grace = compose()["services"]["node-1"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > load_settings(tmp_path, environ={}).shutdown.timeout.total_seconds()


def test_files_that_compose_mounts_exist() -> None:
    for service in compose()["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), source


def test_nats_of_the_composition_has_jetstream() -> None:
    assert "--jetstream" in compose()["services"]["nats"]["command"]


def test_prometheus_asks_every_composed_node_for_all_nodes() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    urls = [each["url"] for each in config["scrape_configs"][0]["http_sd_configs"]]
    assert urls == [f"http://node-{n}:9464/sd" for n in (1, 2, 3)]


def test_the_image_runs_as_nobody_in_particular_and_is_checked_by_livez() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    instructions = [line.split()[0] for line in text.splitlines() if re.match(r"[A-Z]+ ", line)]
    assert instructions.count("FROM") == 2
    assert "USER 10001" in text
    assert "/livez" in text.split("HEALTHCHECK")[1]
    assert 'ENTRYPOINT ["wippy"]' in text


def test_what_the_image_copies_exists() -> None:
    for line in (DEPLOY / "Containerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source


def test_the_unit_ends_a_node_in_good_order(tmp_path: Path) -> None:
    keys = unit()
    assert keys["KillSignal"] == ["SIGTERM"]
    timeout = int(keys["TimeoutStopSec"][0].removesuffix("s"))
    assert timeout > load_settings(tmp_path, environ={}).shutdown.timeout.total_seconds()
    assert keys["ProtectSystem"] == ["strict"]
    assert keys["NoNewPrivileges"] == ["yes"]


def test_the_environment_file_sets_only_variables_a_node_reads(tmp_path: Path) -> None:
    lines = (DEPLOY / "systemd" / "node-1.env").read_text().splitlines()
    environ = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert set(environ) <= set(ENVIRONMENT)
    assert not load_settings(tmp_path, environ=environ).embedded


if shutil.which("systemd-analyze"):

    def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
        """On a copy whose program exists: the real one is not installed here."""
        text = (
            (DEPLOY / "systemd" / "wippy@.service")
            .read_text()
            .replace("/opt/wippy/bin/wippy", shutil.which("true") or "")
        )
        copy = tmp_path / "wippy@node-1.service"
        copy.write_text(text.replace("User=wippy", "User=root").replace("Group=wippy", "Group=root"))
        verified = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(copy)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        complaints = [line for line in verified.stderr.splitlines() if "wippy" in line]
        assert not complaints


@pytest.mark.parametrize("arguments", [["app:limits"], ["app:limits", "{}", "--delete"]])
def test_the_operator_script_wants_a_value_or_a_deletion(arguments: list[str]) -> None:
    script = DEPLOY / "operator" / "set_config.py"
    command = [sys.executable, str(script), "--etcd", "http://127.0.0.1:1", "--cluster", "c", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "either a value or --delete" in ended.stderr


def test_the_operator_script_says_that_etcd_does_not_answer() -> None:
    script = DEPLOY / "operator" / "set_config.py"
    command = [
        sys.executable,
        str(script),
        "--etcd",
        "http://127.0.0.1:1",
        "--cluster",
        "c",
        "--timeout",
        "2",
        "app:x",
        "{}",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: etcd at http://127.0.0.1:1")
    assert "Traceback" not in ended.stderr
