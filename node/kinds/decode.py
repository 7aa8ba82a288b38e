"""From an entry to the model of its kind.

``decode`` is for use: placeholders are resolved against the env registry and everything wrong
is raised at once. ``examine`` is for checking before the values of variables are known: it
takes the defaults, and overlooks fields whose value only the env registry can tell.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, get_origin

from pydantic import ValidationError, create_model

from cluster.errors import Invalid, Problem
from cluster.registry.entry import Entry
from node.explain import explain
from node.kinds.model import KindModel
from node.kinds.placeholders import Lookup, malformed, resolve_data, unresolved_fields
from node.kinds.table import KINDS, refused_kind

_LEGACY = "_env"


def decode(entry: Entry, env: Lookup) -> KindModel:
    """The data of ``entry`` as the model of its kind, placeholders resolved by ``env``.

    Raises Invalid with every problem: an unknown kind, a variable without value, a wrong field.
    """
    if refused := refused_kind(entry.kind):
        raise Invalid([Problem(refused, entry=entry.id, field="kind")])
    model = KINDS[entry.kind].model
    data, problems = resolve_data(_fields(entry, model), env, model.raw_fields)
    problems += _malformed(entry, model)
    unset = _drop_legacy(data, model)
    try:
        decoded = _validate(entry, model, data)
    except ValidationError as error:
        known = {problem.field for problem in problems} | unset
        problems += [problem for problem in explain(error, model) if problem.field not in known]
        decoded = None
    if decoded is None or problems:
        raise Invalid([_placed(problem, entry) for problem in problems] or [_unset(entry, unset)])
    return decoded


def examine(entry: Entry) -> tuple[KindModel | None, list[Problem]]:
    """The model as far as it can be known without variables, and everything wrong with the data.

    Fields that are wrong, or known only to the env registry, are left out of the model, so that the
    others can be judged; of those that must be there it then has None, or an empty list.
    """
    model = KINDS[entry.kind].model
    if not (model.free_form or isinstance(entry.data, dict)):
        return None, [Problem(f"expected a map of fields, got {type(entry.data).__name__}", entry.id, "data")]
    unknown = unresolved_fields(_fields(entry, model), model.raw_fields)
    data, _ = resolve_data(_fields(entry, model), lambda _: None, model.raw_fields)
    unknown |= _drop_legacy(data, model)
    wrong = [_placed(problem, entry) for problem in _malformed(entry, model)]
    try:
        return _validate(entry, model, data), wrong
    except ValidationError as error:
        known = unknown | {problem.field for problem in wrong}
        found = wrong + [_placed(problem, entry) for problem in explain(error, model) if problem.field not in known]
        return _partial(
            entry, model, data, {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
        ), found


def _fields(entry: Entry, model: type[KindModel]) -> dict[str, Any]:
    if model.free_form:
        return {"data": entry.data}
    return entry.data if isinstance(entry.data, dict) else {}


def _malformed(entry: Entry, model: type[KindModel]) -> list[Problem]:
    if model.free_form:
        return []
    fields = _fields(entry, model)
    if KINDS[entry.kind].code:
        message = "a variable can't stand here: code is the same on every node; read it with the env module"
        return [Problem(message, field=path) for path in sorted(unresolved_fields(fields, model.raw_fields))]
    return malformed(fields, model.raw_fields)


def _validate(entry: Entry, model: type[KindModel], data: dict[str, Any]) -> KindModel:
    return model.model_validate(data, context={"namespace": entry.ns})


def _partial(entry: Entry, model: type[KindModel], data: dict[str, Any], wrong: set[str]) -> KindModel | None:
    try:
        return _validate(entry, _lenient(model), {key: value for key, value in data.items() if key not in wrong})
    except ValidationError:
        return None


@cache
def _lenient(model: type[KindModel]) -> type[KindModel]:
    """``model`` with no field required."""
    fields: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        if info.is_required():
            annotation = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
            fields[name] = (annotation, [] if get_origin(info.annotation) is list else None)
    made: type[KindModel] = create_model(model.__name__, __base__=model, **fields)
    return made


def _drop_legacy(data: dict[str, Any], model: type[KindModel]) -> set[str]:
    """Remove ``<field>_env`` keys that named no known variable; returns the fields they were for."""
    dropped = {
        key.removesuffix(_LEGACY)
        for key in data
        if key.endswith(_LEGACY) and key not in model.model_fields and key.removesuffix(_LEGACY) in model.model_fields
    }
    for field in dropped:
        del data[field + _LEGACY]
    return dropped


def _unset(entry: Entry, fields: set[str]) -> Problem:
    field = min(fields)
    return Problem(
        f"{field}{_LEGACY} names a variable that is not registered, and there is no {field}", entry.id, field
    )


def _placed(problem: Problem, entry: Entry) -> Problem:
    return Problem(problem.message, entry.id, problem.field)
