"""Where the cluster is: the file of a development cluster, and what comes before it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from node.cli.failures import Failed
from node.cli.gateway import find_cluster
from node.cli.look import gone
from node.cli.places import Place, find_file, is_alive, is_of, read_place, remove_place, running_place, write_place

PLACE = Place("dev", ("nats://127.0.0.1:1",), ("http://127.0.0.1:2",), os.getpid(), ({"name": "node-1"},), "/app")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WIPPY_NATS", "WIPPY_ETCD", "WIPPY_CLUSTER"):
        monkeypatch.delenv(name, raising=False)


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(30)
    return process.pid


class TestFile:
    def test_is_found_from_a_directory_below(self, tmp_path: Path) -> None:
        below = tmp_path / "a" / "b"
        below.mkdir(parents=True)
        file = write_place(tmp_path, PLACE)
        assert find_file(below) == file
        assert read_place(file) == PLACE

    def test_has_the_documented_fields(self, tmp_path: Path) -> None:
        raw = json.loads(write_place(tmp_path, PLACE).read_text())
        assert set(raw) == {"cluster", "nats", "etcd", "pid", "nodes", "app"}

    def test_that_is_damaged_is_named(self, tmp_path: Path) -> None:
        file = write_place(tmp_path, PLACE)
        file.write_text("{")
        with pytest.raises(Failed, match="remove it, or name the cluster"):
            running_place(tmp_path)

    def test_names_the_nodes_that_are_gone_from_that_cluster_only(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        file = write_place(tmp_path, PLACE)
        assert [each["node"] for each in gone("dev", set())] == ["node-1"]
        assert list(gone("dev", {"node-1"})) == []
        assert list(gone("production", set())) == []
        file.write_text("{")
        assert list(gone("dev", set())) == []

    def test_is_for_its_application_and_the_directory_it_was_started_in_and_no_other(self, tmp_path: Path) -> None:
        place = replace(PLACE, app=str(tmp_path / "shop"))
        file = write_place(tmp_path, place)
        assert is_of(place, file, tmp_path)
        assert is_of(place, file, tmp_path / "shop")
        assert not is_of(place, file, tmp_path / "stock")

    def test_of_a_cluster_that_ended_says_so(self, tmp_path: Path) -> None:
        write_place(tmp_path, Place("dev", ("n",), ("e",), ended_process()))
        with pytest.raises(Failed, match="has ended"):
            running_place(tmp_path)

    def test_is_removed_by_its_own_process_only(self, tmp_path: Path) -> None:
        file = write_place(tmp_path, PLACE)
        remove_place(file, os.getpid() + 1)
        assert file.exists()
        remove_place(file, os.getpid())
        assert not file.exists()
        remove_place(file, os.getpid())


def test_a_process_that_ended_is_not_alive() -> None:
    assert is_alive(os.getpid())
    assert not is_alive(ended_process())


class TestFindCluster:
    def test_flags_come_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_place(tmp_path, PLACE)
        monkeypatch.setenv("WIPPY_NATS", "nats://env:1")
        monkeypatch.setenv("WIPPY_ETCD", "http://env:1")
        found = find_cluster(tmp_path, ["nats://a:1", "nats://b:1"], ["http://c:1"], "shop").cluster
        assert (found.name, found.nats.urls, found.etcd.urls) == ("shop", ["nats://a:1", "nats://b:1"], ["http://c:1"])

    def test_then_the_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_place(tmp_path, PLACE)
        for name, value in (("WIPPY_NATS", "nats://env:1"), ("WIPPY_ETCD", "http://env:1"), ("WIPPY_CLUSTER", "shop")):
            monkeypatch.setenv(name, value)
        found = find_cluster(tmp_path).cluster
        assert (found.name, found.nats.urls) == ("shop", ["nats://env:1"])

    def test_then_the_settings_of_the_directory(self, tmp_path: Path) -> None:
        write_place(tmp_path, PLACE)
        text = "cluster: {name: shop, nats: {urls: ['nats://file:1'], user: u, password: p}, etcd: ['http://file:2']}\n"
        (tmp_path / ".wippy.yaml").write_text(text)
        found = find_cluster(tmp_path).cluster
        assert (found.name, found.nats.urls, found.nats.user) == ("shop", ["nats://file:1"], "u")

    def test_then_the_development_cluster(self, tmp_path: Path) -> None:
        write_place(tmp_path, PLACE)
        found = find_cluster(tmp_path).cluster
        assert (found.name, found.nats.urls, found.etcd.urls) == ("dev", list(PLACE.nats), list(PLACE.etcd))

    def test_a_name_alone_chooses_another_cluster_on_its_servers(self, tmp_path: Path) -> None:
        write_place(tmp_path, PLACE)
        found = find_cluster(tmp_path, cluster="other").cluster
        assert (found.name, found.nats.urls) == ("other", list(PLACE.nats))

    def test_one_server_without_the_other_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="give both"):
            find_cluster(tmp_path, ["nats://a:1"])
