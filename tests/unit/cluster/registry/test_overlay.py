from __future__ import annotations

import pytest

from cluster.documents import parse_bytes
from cluster.registry import Entry
from cluster.registry.overlay import MAX_BYTES, Malformed, merge, parse_overlay, refusal


@pytest.mark.parametrize(
    ("base", "over", "expected"),
    [
        ({"a": 1}, {}, {"a": 1}),
        ({"a": 1}, {"a": 2, "b": 3}, {"a": 2, "b": 3}),
        ({"a": 1, "b": 2}, {"a": None, "c": None}, {"b": 2}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"x": None, "z": 3}}, {"a": {"y": 2, "z": 3}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": 1}, {"a": {"x": {"y": None}}}, {"a": {"x": {}}}),
        ({"a": {"x": 1}}, {"a": 2}, {"a": 2}),
    ],
)
def test_mappings_merge_at_every_depth_and_null_removes(
    base: dict[str, object], over: dict[str, object], expected: object
) -> None:
    before = repr((base, over))
    assert merge(base, over) == expected
    assert repr((base, over)) == before


@pytest.mark.parametrize("raw", [b'{"a": {"b": [1, null]}}', b"a:\n  b: [1, null]\n", b"a: {b: [1, ~]}"])
def test_an_overlay_is_json_or_yaml(raw: bytes) -> None:
    assert parse_overlay(raw) == {"a": {"b": [1, None]}}


def test_yaml_means_what_it_means_in_the_files_of_an_application() -> None:
    raw = b"a: on\nb: no\nc: 010\nd: 1_000\ne: 12:30\nf: 2024-01-01\n1: y\n"
    document = parse_bytes(raw, "f.yaml")
    assert document.root is not None
    assert parse_overlay(raw) == document.root.plain()
    assert parse_overlay(raw) == {"a": "on", "b": "no", "c": 8, "d": "1_000", "e": "12:30", "f": "2024-01-01", "1": "y"}


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "expected a mapping, got nothing"),
        (b"[1]", "got a list"),
        (b"just words", "got a text"),
        (b'{"a": ', "neither JSON nor YAML"),
        (b"a: [", "neither JSON nor YAML"),
        (b"\xff\xfe", "line 1: expected UTF-8 text"),
        (b"a: 1\nb: 2\na: 3", "line 3: key 'a' is given twice, first on line 1"),
        (b"a: 1\n---\nb: 2", "expected one YAML document"),
        (b"a: 99999999999999999999", "does not fit 64 bits"),
        (b'{"a": 1e999}', "not a finite number"),
        (b"a: !!python/object/apply:os.system [id]", "line 1: tag .* is not supported"),
        (b"[" * 100_000, "neither JSON nor YAML"),
        (
            b"a: &a [x,x]\nb: &b [*a,*a]\n"
            + b"".join(
                b"k%d: &k%d [*%s,*%s]\n" % (i, i, p, p) for i, p in enumerate([b"b", *(b"k%d" % j for j in range(39))])
            ),
            "more than",
        ),
        (b"x" * (MAX_BYTES + 1), "over the limit"),
    ],
)
def test_a_malformed_overlay_is_refused_with_the_reason(raw: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        parse_overlay(raw)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (None, "no such entry"),
        (Entry("a:x", "process.lua"), "takes no overlay"),
        (Entry("a:x", "process.lua", {"overlay": "true"}), "takes no overlay"),
        (Entry("a:x", "registry.entry", {}, [1]), "not a mapping"),
    ],
)
def test_running_code_takes_no_overlay(entry: Entry | None, why: str) -> None:
    assert why in refusal(entry)


def test_plain_configuration_and_entries_that_ask_for_it_take_one() -> None:
    assert refusal(Entry("a:x", "registry.entry")) == ""
    assert refusal(Entry("a:x", "http.service", {"overlay": True})) == ""
