from __future__ import annotations

import pytest

from cluster.registry import Entry, creation_order, references


def node(name: str, *uses: str) -> Entry:
    return Entry(f"g:{name}", "registry.entry", {"depends_on": list(uses)})


@pytest.mark.parametrize(
    ("meta", "data"),
    [
        ({"server": "t"}, {}),
        ({"depends_on": ["other", "t"]}, {}),
        ({"temporal": {"workflow": {"worker": "t"}}}, {}),
        ({"db_env": "t"}, {}),
        ({}, {"process": "t"}),
        ({}, {"host": {"ns": "app", "name": "t"}}),
        ({}, {"imports": {"alias": "app:t"}}),
        ({}, {"dead_letter": {"queue": "t"}}),
        ({}, {"contracts": [{"contract": "t"}]}),
        ({}, {"contracts": {"c": {"methods": {"m": "t"}}}}),
        ({}, {"lifecycle": {"requires": ["t"]}}),
        ({}, {"lifecycle": {"security": {"groups": ["t"]}}}),
        ({}, {"tls": {"cert_env": "t"}}),
        ({}, {"text": ["x ${env:app:t|default} y"]}),
    ],
)
def test_a_reference_is_found_wherever_one_may_stand(meta: dict[str, object], data: dict[str, object]) -> None:
    assert "app:t" in references(Entry("app:user", "k", meta, data))


META_PATHS = (
    "server", "router", "parent", "groups[]", "depends_on[]", "db_env", "temporal.workflow.worker",
    "temporal.activity.worker",
)  # fmt: skip
DATA_PATHS = (
    "server", "router", "func", "process", "host", "queue", "driver", "dead_letter.queue", "store", "storage",
    "storages[]", "set", "fs", "env", "config", "bucket", "client", "network", "database", "imports.alias",
    "contracts[].contract", "contracts[].methods.call", "contracts.c.contract", "contracts.c.methods.call",
    "token_store", "security.policy", "security.groups[]", "middleware[]", "post_middleware[]", "groups[]",
    "lifecycle.requires[]", "lifecycle.depends_on[]", "lifecycle.security.policies[]", "lifecycle.security.groups[]",
    "db_env", "tls.cert_env", "tls.key_env",
)  # fmt: skip


def placed(path: str, value: object) -> object:
    """``value`` at a path: ``a.b[].c`` is ``{"a": {"b": [{"c": value}]}}``."""
    if not path:
        return value
    head, _, rest = path.partition(".")
    inner = placed(rest, value)
    return {head.removesuffix("[]"): [inner] if head.endswith("[]") else inner}


@pytest.mark.parametrize("reference", ["t", "app:t", {"name": "t"}, {"ns": "app", "name": "t"}], ids=str)
@pytest.mark.parametrize(
    ("part", "path"), [*(("meta", path) for path in META_PATHS), *(("data", path) for path in DATA_PATHS)]
)
def test_every_path_that_may_hold_a_reference_is_known(part: str, path: str, reference: object) -> None:
    """The paths of the original, all of them, in each of the ways a reference is written."""
    value = placed(path, reference)
    meta, data = (value, {}) if part == "meta" else ({}, value)
    assert "app:t" in references(Entry("app:user", "k", meta, data))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data", [{"title": "app:t"}, {"text": "$${env:app:t}"}, {"imports": "app:t"}, {"process": 3}, "app:t", ["app:t"]]
)
def test_other_places_hold_no_references(data: object) -> None:
    assert "app:t" not in references(Entry("app:user", "k", {}, data))


def test_what_is_used_comes_first_and_ties_go_by_id() -> None:
    assert creation_order([node("a", "c"), node("b"), node("c", "d"), node("d")]) == ["g:b", "g:d", "g:c", "g:a"]


def test_a_reference_that_leads_nowhere_or_to_itself_is_no_matter() -> None:
    assert creation_order([node("a", "gone", "a"), node("b", "other:x")]) == ["g:a", "g:b"]


def test_a_cycle_is_cut_at_its_smallest_id_not_at_its_user() -> None:
    assert creation_order([node("a", "c"), node("b", "c"), node("c", "b")]) == ["g:b", "g:c", "g:a"]


def test_two_cycles_and_a_long_chain_all_come_out_once() -> None:
    chain = [node(f"n{i:04}", f"n{i + 1:04}") for i in range(3000)]
    order = creation_order([*chain, node("x", "y"), node("y", "x"), node("p", "q"), node("q", "p")])
    assert len(order) == len(set(order)) == 3004
    assert order.index("g:n2999") < order.index("g:n0000")


def test_a_variable_is_found_by_its_public_name() -> None:
    user = Entry("a:a", "registry.entry", {}, {"addr": "${env:ADDR|:8080}"})
    variable = Entry("a:z", "env.variable", {}, {"variable": "ADDR"})
    assert creation_order([user, variable]) == ["a:z", "a:a"]
