"""docs/wire.md names every subject, key and envelope the program uses, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from cluster.door import Refusal
from cluster.envelope import Kind
from cluster.keys import Keys
from cluster.subjects import Subjects

PAGE = (Path(__file__).parents[3] / "docs" / "wire.md").read_text()


def table(title: str) -> list[str]:
    """The first cells of the table under a heading, without code marks."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return [match[1].strip("`") for match in re.finditer(r"^\| ([^|]+?) \|", section, re.MULTILINE)][1:]


def shape(text: str) -> str:
    """A subject or key with every filled-in part as one sign."""
    return re.sub(r"<[^>]+>", "?", text)


def test_every_subject_is_there() -> None:
    subjects = Subjects("c")
    used = [
        subjects.data("<d>", 1, "<s>"),
        subjects.control("<d>", 1, "<s>"),
        subjects.pid("<n>", "<i>", "<c>"),
        subjects.event("<s>", "<k>"),
        subjects.announcements,
        subjects.inbox("<o>") + ".>",
    ]
    plain = [re.sub(r"=3C.=3E|<.>", "?", subject.removeprefix(subjects.prefix)) for subject in used]
    assert sorted(plain) == sorted(
        shape(subject).replace("?.data", "1.data").replace("?.control", "1.control")
        for subject in table("NATS subjects")
    )


def test_every_key_is_there() -> None:
    keys = Keys("c")
    used = [
        keys.incarnation,
        keys.node("<n>"),
        keys.name("<n>"),
        keys.service("<s>", 0),
        keys.service_state("<s>", 0),
        keys.heir("<s>", 0),
        keys.heir_begun("<s>", 0),
        keys.avoid("<s>", "<n>"),
        keys.suspect("<s>", 0),
        keys.quarantine("<s>"),
        keys.moved_process("<u>"),
        keys.lock("<n>"),
        keys.head,
        keys.floor,
        keys.change(0),
        keys.snapshot(0),
        keys.upload("<u>"),
        keys.blob("<u>", 0),
        keys.overlay("<n>:<m>"),
        keys.overlay_status("<n>:<m>"),
        keys.store("<s>") + "<k>",
    ]
    plain = [re.sub(r"(?<=/)0+(?=$|\.)", "?", shape(key.removeprefix(keys.prefix))) for key in used]
    assert sorted(plain) == sorted(map(shape, table("etcd keys")))


def test_every_envelope_is_there_with_its_layout() -> None:
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \| `\[(\d+), ", PAGE, re.MULTILINE)
    assert [(int(number), name, int(first)) for number, name, first in rows] == [(k, k.name, k) for k in Kind]


def test_every_refusal_of_the_side_door_is_there() -> None:
    listed = PAGE.split("Refusals are counted by reason:")[1].split(".\n")[0]
    assert re.findall(r"`(\w+)`", listed) == [refusal.name.lower() for refusal in Refusal]
