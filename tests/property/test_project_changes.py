"""Laws of overriding, leaving out and linking, for any entries: the pure stages between files and registry."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.documents import Node
from cluster.registry.value import same
from node.project.draft import Draft
from node.project.linking import link
from node.project.overrides import Override, apply_overrides, disabled, parse_overrides
from node.project.paths import append, assign
from node.settings.schema import Disable

keys = st.sampled_from(["a", "b", "c", "0", "1"])
scalars = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "x", "1"]) | st.just(1.0)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)
maps = st.dictionaries(keys, values, max_size=4)
paths = st.lists(keys, min_size=1, max_size=4)


def draft(id: str = "a:x", kind: str = "registry.entry", data: Any = None, module: str = "") -> Draft:
    return Draft(id, kind, {}, {} if data is None else deepcopy(data), "f", Node({}, 1), module)


def at(value: Any, path: list[str]) -> Any:
    """What stands at a path; None when there is nothing."""
    for part in path:
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


def without(value: Any, path: list[str]) -> Any:
    """``value`` with a mark at the path, whatever stood there; maps on the way are made."""
    if not path:
        return "mark"
    if isinstance(value, list):
        return [without(item, path[1:]) if index == int(path[0]) else item for index, item in enumerate(value)]
    value = {} if value is None else value
    return {**value, path[0]: without(value.get(path[0]), path[1:])}


@given(maps, paths, values)
def test_an_override_changes_what_it_names_and_nothing_else(data: dict[str, Any], path: list[str], value: Any) -> None:
    one, given_value = draft(data=data), deepcopy(value)
    wrong = assign(one, ".".join(path), value, "here")
    if wrong:
        assert same(one.data, data)
        assert one.changed == {}
    else:
        assert same(at(one.data, path), value)
        assert same(without(one.data, path), without(data, path))
        assert one.is_changed(".".join(path))
        before = deepcopy(one.data)
        assert assign(one, ".".join(path), value, "here") == ""
        assert same(one.data, before), "doing it again changes nothing"
        if isinstance(value, dict):
            value["later"] = 1
        assert same(at(one.data, path), given_value), "the entry does not share the value"


@given(maps, paths, values)
def test_appending_adds_one_item_once(data: dict[str, Any], path: list[str], value: Any) -> None:
    one = draft(data=data)
    wrong = append(one, ".".join(path), value, "here")
    if wrong:
        assert same(one.data, data)
        return
    before, after = at(data, path) or [], at(one.data, path)
    known = any(same(item, value) for item in before)
    assert same(after, before if known else [*before, value])
    assert append(one, ".".join(path), value, "here") == ""
    assert same(at(one.data, path), after)


@given(st.lists(st.tuples(st.sampled_from(["x", "y", "gone"]), keys, scalars), max_size=6))
def test_of_several_overrides_the_last_wins_and_each_unknown_entry_is_told(asked: list[tuple[str, str, Any]]) -> None:
    drafts = {id: draft(id) for id in ("a:x", "a:y")}
    problems = list(apply_overrides(drafts, [Override(f"a:{name}", key, value, "o") for name, key, value in asked]))
    assert [problem.entry for problem in problems] == ["a:gone" for name, _, _ in asked if name == "gone"]
    for name in ("x", "y"):
        wanted = {key: value for entry, key, value in asked if entry == name}
        assert same(drafts[f"a:{name}"].data, wanted)


@given(st.text(max_size=30))
def test_any_option_is_an_override_or_one_problem(option: str) -> None:
    found, problems = parse_overrides({}, [option])
    assert len(found) + len(problems) == 1
    assert all(problem.file.startswith("-o ") for problem in problems)


words = st.sampled_from(["a", "b", "ab"])
namespaces = st.lists(words, min_size=1, max_size=3).map(".".join)
patterns = st.lists(words | st.sampled_from(["*", "**"]), min_size=1, max_size=3).map(".".join)


def matches(pattern: list[str], name: list[str]) -> bool:
    """The definition: ``*`` is one word, ``**`` any number of words."""
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(matches(pattern[1:], name[count:]) for count in range(len(name) + 1))
    return bool(name) and pattern[0] in ("*", name[0]) and matches(pattern[1:], name[1:])


@settings(max_examples=300)
@given(st.lists(namespaces, min_size=1, max_size=5, unique=True), st.lists(patterns, max_size=2))
def test_patterns_of_namespaces_mean_what_they_say(names: list[str], given_patterns: list[str]) -> None:
    drafts = {f"{name}:x": draft(f"{name}:x") for name in names}
    expected = {
        f"{name}:x" for name in names if any(matches(pattern.split("."), name.split(".")) for pattern in given_patterns)
    }
    assert disabled(drafts, Disable(namespaces=given_patterns)) == expected
    assert disabled(drafts, Disable(entries=[f"{pattern}:*" for pattern in given_patterns])) == expected


# what may be said of one requirement: by its default, by the project and by another module
nothing = object()
sayings = st.fixed_dictionaries(
    {
        "default": st.just(nothing) | scalars,
        "own": st.lists(scalars, max_size=2),
        "modules": st.lists(scalars, max_size=2),
        "full": st.booleans(),
    }
)


def wiring(said: dict[str, Any], count: int) -> list[Draft]:
    """Requirement ``m.n:r<count>``, its target, and the dependencies that give it values."""
    name = f"r{count}"
    data: dict[str, Any] = {
        "targets": [{"entry": f"c{count}", "path": ".v"}, {"entry": f"m.n:c{count}", "path": "l+="}]
    }
    if said["default"] is not nothing:
        data["default"] = said["default"]
    parameter = f"m.n:{name}" if said["full"] else name
    own = [
        draft(f"app:d{count}-{at}", "ns.dependency", {"component": f"x/{count}-{at}" if said["full"] else "m/n"})
        for at in range(len(said["own"]))
    ]
    theirs = [
        draft(f"o:d{count}-{at}", "ns.dependency", {"component": "m/n"}, "o/o") for at in range(len(said["modules"]))
    ]
    for dependency, value in zip([*own, *theirs], [*said["own"], *said["modules"]], strict=True):
        dependency.data["parameters"] = [{"name": parameter, "value": value}]
    return [draft(f"m.n:{name}", "ns.requirement", data, "m/n"), draft(f"m.n:c{count}", module="m/n"), *own, *theirs]


def expected(said: dict[str, Any]) -> Any:
    """The value, ``nothing`` for none, or the word conflict."""
    heard = said["own"] or said["modules"]
    if heard:
        return heard[0] if all(same(each, heard[0]) for each in heard) else "conflict"
    return nothing if said["default"] is None else said["default"]


@settings(max_examples=200, deadline=None)
@given(st.lists(sayings, min_size=1, max_size=3), st.booleans(), st.randoms(use_true_random=False))
def test_linking_gives_each_requirement_its_value_in_any_order(
    all_said: list[dict[str, Any]], strict: bool, random: Any
) -> None:
    parts = [part for count, said in enumerate(all_said) for part in wiring(said, count)]
    random.shuffle(parts)
    drafts = {part.id: part for part in parts}
    linked = link(drafts, strict=strict)
    told = {problem.entry for problem in linked.problems if problem.entry.startswith("m.n:")}
    warned = {warning.entry for warning in linked.warnings}
    for count, said in enumerate(all_said):
        value, id, data = expected(said), f"m.n:r{count}", drafts[f"m.n:c{count}"].data
        if isinstance(value, str) and value == "conflict":
            assert id in told
            assert data == {}
        elif value is nothing:
            assert id in (told if strict else warned)
            assert id not in (warned if strict else told)
            assert data == {}
        else:
            assert id not in told | warned
            assert same(data, {"v": value, "l": [value]})


@given(st.lists(st.sampled_from(["x/a", "x/b"]), max_size=4), st.lists(st.sampled_from(["x/a", "x/b"]), max_size=4))
def test_only_the_project_itself_may_not_name_a_component_twice(own: list[str], theirs: list[str]) -> None:
    parts = [draft(f"app:d{at}", "ns.dependency", {"component": component}) for at, component in enumerate(own)]
    parts += [draft(f"o:d{at}", "ns.dependency", {"component": each}, "o/o") for at, each in enumerate(theirs)]
    problems = link({part.id: part for part in parts}).problems
    assert len(problems) == len(own) - len(set(own))
