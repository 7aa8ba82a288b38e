"""The Hypothesis state machine of the registry: any rules in any order, on the scene of a subclass."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.sim.registry_model import Commit, Intent, Push
from tests.sim.registry_scene import Node, Scene

IDS = ["a:x", "a:y", "b:z", "b:w"]
NODES = 3

numbers = st.integers(0, 7)
kinds = st.sampled_from(["registry.entry", "registry.entry", "process.lua"])
contents = st.tuples(
    kinds, st.sampled_from([{}, {"overlay": True}]), st.builds(lambda n: {"n": n, "s": {"t": n}}, numbers)
)
runtime = st.tuples(kinds, st.just({}), st.builds(lambda n: {"n": n}, numbers), st.just("runtime"))
ids = st.sampled_from(IDS)
writes = st.lists(st.tuples(ids, st.none() | runtime), min_size=1, max_size=3, unique_by=lambda each: each[0])
files = st.dictionaries(ids, contents, max_size=4)
takes = st.sampled_from([None, "files", "cluster"])
mappings = st.sampled_from([{"n": 50}, {"s": None, "u": 1}, {"s": {"t": 9}}, {}, None])


class RegistryMachine(RuleBasedStateMachine):
    """``run`` runs a coroutine to its end; ``make`` makes the scene."""

    scene: Scene

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        raise NotImplementedError

    def make(self, seed: int) -> Scene:
        raise NotImplementedError

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.scene = self.make(seed)
        self.run(self.scene.open(NODES))
        self.run(self.scene.push(self.scene.nodes[0], {"a:x": ("registry.entry", {}, {"n": 0})}, None, False))

    def teardown(self) -> None:
        if hasattr(self, "scene"):
            try:
                self.run(self.scene.check_end())
            finally:
                self.run(self.scene.close())

    def node(self, number: int) -> Node:
        return self.scene.connected[number % len(self.scene.connected)]

    def changes(self, wanted: list[Any], *, wrong: bool = False) -> list[Any]:
        """``wanted`` as operations that fit what is there, or just not."""
        there = self.scene.now.entries
        found = [
            ("delete" if e is None else "update" if (id in there) != wrong else "create", id, e) for id, e in wanted
        ]
        return [each for each in found if each[0] != "delete" or each[1] in there or wrong]

    def intent(self, wanted: list[Any]) -> Intent | None:
        changes = self.changes(wanted)
        return Commit(tuple(changes), self.scene.now) if changes else None

    @rule(number=numbers, wanted=writes, wrong=st.booleans(), back=st.integers(0, 2))
    def commit(self, number: int, wanted: list[Any], wrong: bool, back: int) -> None:
        if changes := self.changes(wanted, wrong=wrong and back == 0):
            self.run(self.scene.commit(self.node(number), changes, back))

    @rule(number=numbers, files=files, take=takes, prune=st.booleans())
    def push(self, number: int, files: Any, take: str | None, prune: bool) -> None:
        self.run(self.scene.push(self.node(number), files, take, prune))

    @rule(number=numbers, version=st.integers(0, 1000))
    def rollback(self, number: int, version: int) -> None:
        self.run(self.scene.rollback(self.node(number), version))

    @rule(wanted=st.lists(st.tuples(numbers, writes | files), min_size=2, max_size=4), collecting=st.booleans())
    def together(self, wanted: list[Any], collecting: bool) -> None:
        works: list[tuple[Node, Intent]] = []
        for number, what in wanted:
            intent = Push(what, "files", False) if isinstance(what, dict) else self.intent(what)
            if intent is not None:
                works.append((self.node(number), intent))

        async def all_of_it() -> None:
            collector = self.scene.throw_nothing_away() if collecting else asyncio.sleep(0)
            await asyncio.gather(self.scene.together(works), collector)

        self.run(all_of_it())

    @rule(number=numbers, wanted=writes, steps=st.integers(0, 16))
    def crash(self, number: int, wanted: list[Any], steps: int) -> None:
        if intent := self.intent(wanted):
            self.run(self.scene.crash(self.node(number), intent, steps))

    @rule(number=numbers, wanted=writes, expire_at=st.integers(-1, 16))
    def harass(self, number: int, wanted: list[Any], expire_at: int) -> None:
        if intent := self.intent(wanted):
            self.run(self.scene.harass(self.node(number), intent, expire_at=expire_at))

    @rule(number=numbers)
    def restart(self, number: int) -> None:
        self.run(self.scene.restart(self.node(number)))

    @precondition(lambda self: len(self.scene.connected) > 1)
    @rule(number=numbers)
    def cut_off(self, number: int) -> None:
        self.node(number).gate.cut()

    @precondition(lambda self: len(self.scene.connected) < NODES)
    @rule(relist=st.booleans())
    def come_back(self, relist: bool) -> None:
        node = next(node for node in self.scene.nodes if node.gate.is_cut)
        self.run(self.scene.heal(node, relist=relist))

    @rule(id=ids, mapping=mappings)
    def lay_over(self, id: str, mapping: Any) -> None:
        value = b"[broken" if mapping is None else json.dumps(mapping).encode()
        self.run(self.scene.overlay(id, value, mapping))

    @rule(id=ids)
    def take_away(self, id: str) -> None:
        self.run(self.scene.overlay(id, None, None))

    @rule(number=numbers)
    def snapshot(self, number: int) -> None:
        self.run(self.scene.snapshot(self.node(number)))

    @rule(versions=st.integers(1, 6))
    def throw_history_away(self, versions: int) -> None:
        self.run(self.scene.throw_history_away(versions))

    @rule(number=numbers, version=st.integers(0, 1000))
    def look_back(self, number: int, version: int) -> None:
        self.run(self.scene.check_history(self.node(number), version))
