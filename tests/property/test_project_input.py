"""Whatever stands in a file: a result or problems, never another exception, never silence."""

import json
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.documents import parse_bytes, parse_document
from cluster.errors import Invalid, Problem
from cluster.registry.entry import Entry
from node.durations import format_duration, parse_duration
from node.envfile import EnvFile
from node.kinds import KINDS, LATER, check_state, decode
from node.project import load_project
from node.project.overrides import namespace_matcher
from node.project.versions import satisfies

scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    scalars | st.text(max_size=12) | st.sampled_from(["${env:X}", "${env:X|5}", "$${", "app:x", "1s", ":json"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
fields = sorted({name for kind in KINDS.values() for name in kind.model.model_fields} | {"host_env", "x"})


@given(st.binary(max_size=300))
def test_any_bytes_are_a_document_or_problems(content: bytes) -> None:
    document = parse_bytes(content, "f")
    assert document.root is None or document.root.line >= 1
    assert not (document.broken and not document.problems)


@given(st.text(alphabet="ab:-[]{}&*!|>\n \t'\"#?,%@<1.", max_size=120))
def test_any_yaml_like_text_is_a_document_or_problems(text: str) -> None:
    document = parse_document(text, "f")
    if document.root is not None:
        document.root.plain()
    assert all(problem.file == "f" for problem in document.problems)


@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=3), st.integers(-(2**63), 2**63 - 1) | st.booleans(), max_size=5
    )
)
def test_plain_mappings_are_read_as_written(mapping: dict[str, Any]) -> None:
    text = "".join(f"{key}: {str(value).lower()}\n" for key, value in mapping.items())
    document = parse_document(text, "f")
    assert ({} if document.root is None else document.root.plain()) == mapping


@given(
    st.lists(
        st.builds(
            Entry,
            st.sampled_from(["app:a", "app:b", "app:c", "x.y:d"]),
            st.sampled_from(sorted(KINDS)) | st.sampled_from(sorted(LATER)) | st.text(max_size=5),
            st.dictionaries(st.sampled_from(["command", "type", "depends_on"]), values, max_size=2),
            st.dictionaries(st.sampled_from(fields), values, max_size=4) | values,
        ),
        max_size=4,
        unique_by=lambda entry: entry.id,
    )
)
def test_any_entries_are_fine_or_have_problems_and_what_is_fine_decodes(entries: list[Entry]) -> None:
    problems = check_state(entries, modules={"json"})
    assert not [problem for problem in problems if "should" in problem.message], "what was expected, in our words"
    wrong = {problem.entry for problem in problems}
    for entry in entries:
        refused = _decoding_problems(entry)
        # what only the value of a variable makes wrong can't be known beforehand
        known_before = "${env:X" not in repr(entry.data) and "_env" not in repr(entry.data)
        assert entry.id in wrong or not (refused and known_before), refused


def _decoding_problems(entry: Entry) -> list[Problem]:
    try:
        decode(entry, {"X": "5"}.get)
    except Invalid as error:
        return error.problems
    return []


documents = st.dictionaries(
    st.sampled_from(["namespace", "entries", "name", "kind", "meta", "version", "x"]),
    values
    | st.lists(
        st.dictionaries(
            st.sampled_from(["name", "kind", "meta", "source", "targets", "parameters", "component", "default"]),
            values | st.sampled_from([*KINDS, "file://x.lua", "file://../../x"]),
            max_size=5,
        ),
        max_size=4,
    )
    | st.sampled_from(["app", "app.x", *KINDS]),
    max_size=5,
)


@settings(deadline=None, max_examples=150)
@given(document=documents, override=st.text(alphabet="app:xname.=1", max_size=15))
def test_any_definition_file_loads_or_is_refused_with_problems(document: dict[str, Any], override: str) -> None:
    with TemporaryDirectory() as directory:
        source = Path(directory, "src")
        source.mkdir()
        (source / "_index.yaml").write_text(json.dumps(document))
        try:
            load_project(Path(directory), overrides=[override] if override else [])
        except Invalid as error:
            problems = error.problems
        else:
            problems = None
    assert problems is None or all(problem.message and problem.file for problem in problems)


@given(st.integers(-(10**15), 10**15))
def test_durations_survive_being_shown(microseconds: int) -> None:
    duration = timedelta(microseconds=microseconds)
    assert abs(parse_duration(format_duration(duration)) - duration) <= timedelta(microseconds=1)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_any_lua_string_survives_an_env_file(raw: bytes) -> None:
    value = raw.decode("utf-8", "surrogateescape")
    with TemporaryDirectory() as directory:
        path = Path(directory, ".env")
        EnvFile(path).set("NAME", value)
        EnvFile(path).set("OTHER", "1")
        assert EnvFile(path).get("NAME") == value


@given(st.text(max_size=20), st.text(max_size=20))
def test_patterns_never_crash(left: str, right: str) -> None:
    assert namespace_matcher(left)(right) in (True, False)


@given(st.text(alphabet="v0123456789.^~<>=*, x-", max_size=20))
def test_any_constraint_is_understood_or_refused(constraint: str) -> None:
    try:
        understood = satisfies("1.2.3", constraint) in (True, False)
    except ValueError as error:
        understood = str(error).startswith("expected a version")
    assert understood
