import os
from pathlib import Path

import pytest

from node import envfile
from node.envfile import EnvFile, parse_lines


def test_names_values_comments_and_quotes_are_read() -> None:
    text = """
# a comment
A=1
export B = two words   # not part of it
C="x \\"y\\"\\n#z"
D='$raw\\n'
E=
not a line
A=last
"""
    assert parse_lines(text) == {"A": "last", "B": "two words", "C": 'x "y"\n#z', "D": "$raw\\n", "E": ""}


def test_a_write_keeps_comments_and_order_and_replaces_the_last_line_of_the_name(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("# top\nA=1\nB=2\n")
    EnvFile(path).set("A", "new value")
    assert path.read_text() == '# top\nA="new value"\nB=2\n'


@pytest.mark.parametrize("value", ["", "plain", "a b", 'q"q', "back\\slash", "line\nbreak\ttab", "#hash", "é=ü", "'x'"])
def test_what_is_written_is_read_back(tmp_path: Path, value: str) -> None:
    file = EnvFile(tmp_path / "x" / ".env")
    file.set("NAME", value)
    assert file.get("NAME") == value
    assert EnvFile(tmp_path / "x" / ".env").get("NAME") == value


def test_changes_by_others_are_seen(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    file = EnvFile(path)
    assert file.get("A") is None
    path.write_text("A=1\n")
    assert file.get("A") == "1"
    path.unlink()
    assert file.get("A") is None


def test_modes_are_those_asked_for(tmp_path: Path) -> None:
    file = EnvFile(tmp_path / "d" / ".env", file_mode=0o600, dir_mode=0o700)
    file.create()
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "d" / ".env").stat().st_mode & 0o777 == 0o600
    file.set("A", "1")
    assert (tmp_path / "d" / ".env").stat().st_mode & 0o777 == 0o600


def test_creating_keeps_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n")
    EnvFile(path).create()
    assert path.read_text() == "A=1\n"


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        EnvFile(path).set("A", "2")
    assert path.read_text() == "A=1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_over_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envfile, "MAX_FILE", 5)
    (tmp_path / ".env").write_text("A=12345\n")
    with pytest.raises(OSError, match="over the limit"):
        EnvFile(tmp_path / ".env").get("A")
