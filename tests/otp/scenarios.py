"""Scenarios for a supervisor: made from a number, written for Erlang, kept with what Erlang made of them.

A scenario is a supervisor with children and steps that happen to it; everything in it is plain
data. ``fails`` of a child says which of its starts fail, in turn; ``stop`` whether it ends when
it is asked to, or has to be killed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

RECORDED = Path(__file__).parent / "recorded.jsonl"
COUNT = 320
PERIOD = 2
"""Seconds. What happens without a wait in between happens within one."""
WAIT = 3200
"""Milliseconds: more than a period, also for a supervisor that counts in whole seconds."""

Scenario: TypeAlias = dict[str, Any]
Told: TypeAlias = list[Any]
"""What was answered, what was started (+), failed to (!), asked to end (-) and killed (x), the children and their
states, the counts of specs, active, supervisors and workers, and how the supervisor ended."""


def make(number: int) -> Scenario:
    """The scenario of this number: always the same."""
    dice = random.Random(number)
    strategy = dice.choice(["one_for_one", "one_for_all", "rest_for_one", "simple_one_for_one"])
    auto = dice.choice(["never", "never", "never", "any_significant", "all_significant"])
    dynamic = strategy == "simple_one_for_one"
    names = ["a"] if dynamic else list("abcd")[: dice.randint(1, 4)]
    children = [_child(dice, name, auto) for name in names]
    scenario = {
        "strategy": strategy,
        "intensity": dice.choice([0, 1, 1, 2, 3, 3, 10]),
        "period": PERIOD,
        "auto": auto,
        "children": children,
    }
    if dynamic:
        children[0] |= {"template": True, "fails": []}
        grown: list[Any] = [["add", _instance(dice, name)] for name in list("abc")[: dice.randint(1, 3)]]
        return scenario | {"steps": _apart(grown + list(_steps(dice, "abcd", auto, dynamic)))}
    return scenario | {"steps": list(_steps(dice, "".join(names) + "ef", auto, dynamic))}


def _apart(steps: list[list[Any]]) -> list[list[Any]]:
    """Each dynamic child under a name of its own: Erlang knows them by their PIDs only."""
    added = 0
    for step in steps:
        if step[0] == "add":
            step[1]["id"] = "abcdefghijklm"[added]
            added += 1
    return steps


def _child(dice: random.Random, name: str, auto: str) -> dict[str, Any]:
    restart = dice.choice(["permanent", "permanent", "transient", "temporary"])
    shutdown, stop = dice.choice([(1000, "obey"), (1000, "obey"), ("infinity", "obey"), ("brutal_kill", "obey"),
                                  (40, "ignore")])  # fmt: skip
    fails = dice.choice([[], [], [], [], [], [False, True], [False, True, True], [False] + [True] * 12, [True]])
    if fails == [True] and dice.random() < 0.6:
        fails = []
    return {
        "id": name,
        "restart": restart,
        "shutdown": shutdown,
        "stop": stop,
        "significant": auto != "never" and restart != "permanent" and dice.random() < 0.6,
        "type": dice.choice(["worker", "worker", "worker", "supervisor"]),
        "fails": fails,
    }


def _instance(dice: random.Random, name: str) -> dict[str, Any]:
    return {"id": name, "fails": dice.choice([[], [], [], [], [False, True], [True]])}


def _steps(dice: random.Random, names: str, auto: str, dynamic: bool) -> Iterator[list[Any]]:
    waited = 0
    for _ in range(dice.randint(3, 9)):
        name, reason = dice.choice(names), dice.choice(["normal", "shutdown", "failed", "failed", "failed"])
        verb = dice.choice(["exit"] * 6 + ["together", "add", "terminate", "restart", "delete", "wait", "stop"])
        match verb:
            case "exit":
                yield ["exit", name, reason]
            case "together":
                both = dice.sample(names, 2)
                yield ["together", [[one, dice.choice(["normal", "failed", "failed"])] for one in both]]
            case "add":
                yield ["add", _instance(dice, name) if dynamic else _child(dice, name, auto)]
            case "wait" if waited < 2:
                waited += 1
                yield ["wait", WAIT]
            case "wait":
                yield ["exit", name, reason]
            case "stop" if dice.random() < 0.7:
                yield ["exit", name, reason]
            case "stop":
                yield ["stop"]
            case _:
                yield [verb, name]


def as_erlang(scenario: Scenario) -> str:
    """The scenario as a term for ``file:consult``."""
    return _term(scenario) + ".\n"


NAMES = frozenset("abcdefghijklm")
"""What is a text for Erlang; any other word is an atom."""


def _term(value: Any) -> str:
    match value:
        case bool() | int():
            return str(value).lower()
        case str():
            return f'<<"{value}">>' if value in NAMES else value
        case ["stop"]:
            return "stop"
        case [str(), *_]:
            return "{" + ", ".join(map(_term, value)) + "}"
        case list():
            return "[" + ", ".join(map(_term, value)) + "]"
        case dict():
            return "#{" + ", ".join(f"{key} => {_term(one)}" for key, one in value.items()) + "}"
    raise TypeError(f"{value!r} has no form in a scenario")


def recorded() -> list[tuple[Scenario, list[Told]]]:
    """What Erlang made of the scenarios, as stored."""
    return [tuple(json.loads(line)) for line in RECORDED.read_text().splitlines()]
