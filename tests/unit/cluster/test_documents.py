from typing import Any

import pytest
import yaml

from cluster import documents
from cluster.documents import MAX_DEPTH, parse_bytes, parse_document


@pytest.fixture(params=["c", "python"], autouse=True)
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers of the library, because not every machine has the fast one."""
    if request.param == "c" and not yaml.__with_libyaml__:
        pytest.skip("this PyYAML has no libyaml; install its wheel to test the fast parser")
    monkeypatch.setattr(documents, "_READER", yaml.CSafeLoader if request.param == "c" else yaml.SafeLoader)


def plain(text: str) -> Any:
    document = parse_document(text, "f.yaml")
    assert document.problems == []
    assert document.root is not None
    return document.root.plain()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("yes", "yes"),
        ("~", None),
        ("", None),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("!!int 5", 5),
        ("-7", -7),
        ("0600", 384),
        ("0o600", 384),
        ("08", "08"),
        ("0x1f", 31),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        (".inf", ".inf"),
    ],
)
def test_scalars_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    found = plain(f"a: {text}\n")["a"]
    assert (found, type(found)) == (value, type(value))


def test_keys_are_texts_whatever_they_look_like() -> None:
    assert plain("1: a\ntrue: b\n~: c\n") == {"1": "a", "true": "b", "~": "c"}


def test_merge_keys_fill_in_what_is_not_there() -> None:
    assert plain("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n")["b"] == {"x": 1, "y": 3}


def test_a_syntax_error_has_its_line() -> None:
    document = parse_document("a: 1\nb: [1, 2\nc: 3\n", "f.yaml")
    assert document.broken
    assert (document.problems[0].file, document.problems[0].line) == ("f.yaml", 3)
    assert "not valid YAML" in document.problems[0].message


def test_a_repeated_key_is_a_problem_that_names_both_lines_and_does_not_stop_reading() -> None:
    document = parse_document("a: 1\nb: 2\na: 3\n", "f.yaml")
    assert document.root is not None
    assert document.root.plain() == {"a": 1, "b": 2}
    assert [(p.line, p.message) for p in document.problems] == [(3, "key 'a' is given twice, first on line 1")]


def test_tags_numbers_out_of_range_and_keys_that_are_lists_are_problems() -> None:
    document = parse_document("a: !python/object x\nb: 99999999999999999999\n? [1]\n: 2\nc: 1e999\nd: !foo {}\n", "f")
    assert [problem.line for problem in document.problems] == [1, 2, 3, 5, 6]


def test_a_yaml_bomb_is_refused_before_it_grows() -> None:
    bomb = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
    bomb += "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    document = parse_document(bomb, "f")
    assert document.broken
    assert "once aliases are expanded" in document.problems[0].message


def test_an_alias_inside_its_own_anchor_is_refused() -> None:
    assert parse_document("a: &a [*a]\n", "f").broken


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_nesting_is_refused_and_not_a_crash(opening: str) -> None:
    document = parse_document(opening * 5000, "f")
    assert document.broken
    assert "nested deeper" in document.problems[0].message


def test_nesting_within_the_limit_is_read() -> None:
    depth = MAX_DEPTH - 1
    assert parse_document("[" * depth + "]" * depth, "f").problems == []


@pytest.mark.parametrize(("content", "line"), [(b"a: 1\nb: \xff\n", 2), (b"a: 1\n\nb: \x00\n", 3), (b"a: \x01\n", 1)])
def test_bytes_that_are_no_text_have_their_line(content: bytes, line: int) -> None:
    document = parse_bytes(content, "f")
    assert document.broken
    assert document.problems[0].line == line


def test_a_file_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_FILE", 10)
    assert "over the limit" in parse_bytes(b"a: 123456789\n", "f").problems[0].message


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    document = parse_bytes("a: 1\n".encode("utf-8-sig"), "f")
    assert document.root is not None
    assert document.root.plain() == {"a": 1}


def test_only_the_first_document_is_read_and_the_rest_noticed() -> None:
    document = parse_document("a: 1\n---\nb: 2\n", "f")
    assert document.more
    assert document.root is not None
    assert document.root.plain() == {"a": 1}


def test_an_empty_file_holds_nothing() -> None:
    document = parse_document("# only a comment\n", "f")
    assert (document.root, document.problems, document.broken) == (None, [], False)


def test_lines_lead_to_values_and_to_the_nearest_thing_around_a_missing_one() -> None:
    root = parse_document("a:\n  b:\n    - 1\n    - x: 2\n  c: 3\n", "f").root
    assert root is not None
    assert [root.line_of(path) for path in ("a", "a.b.1.x", "a.c", "a.b.9", "a.nothing", "z")] == [1, 4, 5, 2, 1, 1]
