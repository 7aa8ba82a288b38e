"""What differs between states of the registry, and how it is drawn."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from cluster.registry.changeset import Changeset, Create, Delete, Fold, Update
from cluster.registry.entry import Entry, Origin
from cluster.registry.publish import Difference
from cluster.registry.state import EMPTY, RegistryState
from node.cli.registry import drawing
from node.cli.registry.changes import EntryChange, as_value, between, from_files, ids_by_sort, summary
from node.cli.registry.drawing import draw, heading, show_changes


def entry(id: str = "app:a", data: Any = None, kind: str = "registry.entry", **meta: Any) -> Entry:
    return Entry(id, kind, meta, data if data is not None else {"rate": 2}, Origin.FILES)


def state(*entries: Entry) -> RegistryState:
    return EMPTY.advance(Changeset(tuple(Create(each) for each in entries)), 0)


class TestBetween:
    def test_entries_come_go_and_change(self) -> None:
        before = state(entry("app:a"), entry("app:b"), entry("app:c"), entry("app:d"))
        after = before.advance(
            Changeset(
                (
                    Delete("app:a"),
                    Update(entry("app:b", {"rate": 3})),
                    Update(entry("app:c", kind="env.variable")),
                    Create(entry("app:e")),
                )
            ),
            1,
        )
        changes = between(before, after)
        assert [(each.id, each.what.value) for each in changes] == [
            ("app:a", "deleted"),
            ("app:b", "updated"),
            ("app:c", "kind changed"),
            ("app:e", "created"),
        ]
        assert ids_by_sort(changes) == {"created": ["app:e"], "updated": ["app:b", "app:c"], "deleted": ["app:a"]}
        assert summary(changes) == "1 created (app:e), 2 updated (app:b, app:c), 1 deleted (app:a)"

    def test_an_overlay_is_said_to_be_one_when_it_comes_and_when_it_goes(self) -> None:
        before = state(entry())
        after = before.advance(Changeset((Fold("app:a", {"rate": 9}, 5),)), 1)
        (laid,), (taken,) = between(before, after), between(after, before)
        assert laid.after is not None
        assert laid.after.data == {"rate": 9}
        assert (laid.remark, taken.remark) == ("by an operator's overlay", "an operator's overlay is gone")

    def test_nothing_is_said_of_equal_states(self) -> None:
        assert between(state(entry()), state(entry())) == []
        assert summary([]) == "nothing changed"

    def test_many_are_counted(self) -> None:
        changes = [EntryChange(f"app:{letter}", None, entry()) for letter in "abcdefg"]
        assert summary(changes) == "7 created (app:a, app:b, app:c, app:d, app:e and 2 more)"

    def test_what_was_changed_at_run_time_is_said(self) -> None:
        theirs = entry().with_origin(Origin.RUNTIME)
        (change,) = from_files([Difference("app:a", entry(data={"rate": 3}), theirs)])
        assert change.remark == "was changed at run time"
        assert (change.before, change.what.value) == (theirs, "updated"), "from the registry to the files"

    def test_what_was_deleted_at_run_time_is_said(self) -> None:
        (change,) = from_files([Difference("app:a", entry(), None, deleted=True)])
        assert (change.remark, change.what.value) == ("was deleted at run time", "created")

    def test_programs_get_both_sides_whole(self) -> None:
        value = as_value(EntryChange("app:a", None, entry()))
        assert value["before"] is None
        assert value["after"] == entry().as_dict()
        assert value["change"] == "created"


class TestDrawing:
    def text(self, before: Entry | None, after: Entry | None, remark: str = "") -> list[str]:
        return draw([EntryChange("app:a", before, after, remark)], "v1", "v2")

    def test_meta_and_data_are_compared_as_yaml(self) -> None:
        assert self.text(entry(comment="x"), entry(data={"rate": 3}, comment="x")) == [
            "~ app:a updated (registry.entry)",
            "--- v1 app:a",
            "+++ v2 app:a",
            "@@ -1,5 +1,5 @@",
            " data:",
            "-  rate: 2",
            "+  rate: 3",
            " kind: registry.entry",
            " meta:",
            "   comment: x",
        ]

    def test_the_order_of_keys_is_no_difference(self) -> None:
        drawn = self.text(entry(data={"a": 1, "b": {"c": 1, "d": 2}}), entry(data={"b": {"d": 2, "c": 1}, "a": 2}))
        assert [line for line in drawn if line[0] in "+-" and line[:3] not in ("+++", "---")] == ["-  a: 1", "+  a: 2"]

    def test_sources_are_compared_line_by_line_on_their_own(self) -> None:
        code = "local a = 1\nlocal b = 2\n"
        drawn = self.text(
            entry(data={"source": code, "method": "main"}, kind="process.lua"),
            entry(data={"source": code.replace("2", "3"), "method": "main"}, kind="process.lua"),
        )
        assert drawn == [
            "~ app:a updated (process.lua)",
            "--- v1 app:a source",
            "+++ v2 app:a source",
            "@@ -1,2 +1,2 @@",
            " local a = 1",
            "-local b = 2",
            "+local b = 3",
        ]

    def test_a_created_entry_is_shown_whole_and_a_deleted_one_too(self) -> None:
        whole = entry(data={"source": "one\ntwo\n"}, kind="process.lua")
        created, deleted = self.text(None, whole), self.text(whole, None)
        assert created[0] == "+ app:a created (process.lua)"
        assert deleted[0] == "- app:a deleted (process.lua)"
        assert [line for line in created if line.startswith("+") and "app:a" not in line] == [
            "+data: {}",
            "+kind: process.lua",
            "+meta: {}",
            "+one",
            "+two",
        ]
        assert "-two" in deleted

    def test_a_changed_kind_is_in_the_heading(self) -> None:
        drawn = self.text(entry(kind="function.lua"), entry(kind="process.lua"), "by somebody")
        assert drawn[0] == "! app:a kind changed (function.lua -> process.lua); by somebody"
        assert "-kind: function.lua" in drawn

    def test_a_newline_that_is_missing_at_the_end_is_seen(self) -> None:
        drawn = self.text(entry(data={"text": "a\nb"}), entry(data={"text": "a\nb\n"}))
        assert drawn[-1] == "-\\ no newline at the end"

    def test_a_text_that_gets_a_second_line_is_compared_as_text(self) -> None:
        drawn = self.text(entry(data={"text": "a"}), entry(data={"text": "a\nb\n"}))
        assert drawn[-3:] == [" a", "-\\ no newline at the end", "+b"]

    def test_an_origin_that_changed_alone_is_shown(self) -> None:
        drawn = self.text(entry(), entry().with_origin(Origin.RUNTIME))
        assert {"-origin: files", "+origin: runtime"} <= set(drawn)

    def test_content_cannot_paint_the_terminal(self) -> None:
        drawn = self.text(None, entry(data={"source": "a\x1b[31m\n\tb\r\n"}))
        assert "+a\\x1b[31m" in drawn
        assert "+\tb\\r" in drawn, "tabs stay"

    def test_texts_of_any_length_are_told_without_being_compared(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(drawing, "_LONGEST", 10)
        drawn = self.text(entry(data={"source": "x\n" * 8}), entry(data={"source": "y\n" * 7}))
        assert drawn[1:] == ["  v2 app:a source: 8 lines before, 7 after; too long to be compared"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestColours:
    def drawn(self, monkeypatch: pytest.MonkeyPatch, *changes: EntryChange, **environment: str) -> str:
        """What a terminal gets."""
        for name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"TERM": "xterm-256color", **environment}.items():
            monkeypatch.setenv(name, value)
        terminal = Terminal()
        with monkeypatch.context() as replaced:
            replaced.setattr(sys, "stdout", terminal)
            show_changes(changes, "v1", "v2")
        return terminal.getvalue()

    CHANGES = (EntryChange("app:a", entry(), entry(data={"rate": 3})),)

    def test_a_terminal_gets_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        drawn = self.drawn(monkeypatch, *self.CHANGES)
        assert "\x1b[31m-  rate: 2\x1b[0m" in drawn
        assert "\x1b[32m+  rate: 3\x1b[0m" in drawn

    def test_a_terminal_without_colours_gets_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        drawn = self.drawn(monkeypatch, *self.CHANGES, NO_COLOR="1")
        assert "\x1b[3" not in drawn
        assert "-  rate: 2" in drawn

    def test_a_pipe_gets_none(self, capsys: pytest.CaptureFixture[str]) -> None:
        show_changes(self.CHANGES, "v1", "v2")
        assert capsys.readouterr().out.splitlines() == draw(self.CHANGES, "v1", "v2")

    def test_a_long_line_is_not_broken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        long = EntryChange("app:a", None, entry(data={"source": f"{'x' * 300}\n"}))
        assert "x" * 300 in self.drawn(monkeypatch, long, COLUMNS="40")

    def test_headings_alone_can_be_asked_for(self, capsys: pytest.CaptureFixture[str]) -> None:
        show_changes(self.CHANGES, "v1", "v2", headings_only=True)
        assert capsys.readouterr().out == f"{heading(self.CHANGES[0])[0]}\n"
