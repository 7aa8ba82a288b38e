"""Nodes that break a promise, to see that the checkers find it: ``python -m tests.chaos.mutants NAME FILE run ...``.

Each mutant changes one deed of a node of ``tests.chaos.recorded``, now and then or always.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import sys
from collections.abc import Callable
from typing import Any

from cluster import owned
from cluster.envelope import Envelope, Kind
from cluster.etcd import Batch, Etcd, KeyValue, Put
from cluster.names import Names
from node.cli.app import main
from node.lockholders import LockHolders
from node.modules.store import StoreModule
from node.router import Router
from tests.chaos.recorded import record_to

MUTANTS: dict[str, Callable[[], None]] = {}


def mutant(change: Callable[[], None]) -> Callable[[], None]:
    MUTANTS[change.__name__] = change
    return change


def on_arrival(spoil: Callable[[list[Envelope]], list[Envelope]]) -> None:
    """Spoil what comes from other nodes."""
    take = Router.from_link

    def spoilt(self: Router, node: str, envelopes: list[Envelope]) -> None:
        take(self, node, spoil(envelopes))

    Router.from_link = spoilt  # type: ignore[method-assign]


@mutant
def a_message_is_lost() -> None:
    on_arrival(lambda envelopes: [one for one in envelopes if random.random() > 0.0005])


@mutant
def a_message_comes_twice() -> None:
    on_arrival(lambda envelopes: [*envelopes, *envelopes] if random.random() < 0.002 else envelopes)


@mutant
def an_end_overtakes_what_was_said_before_it() -> None:
    take = Router.from_link

    def spoilt(self: Router, node: str, envelopes: list[Envelope]) -> None:
        at_once = [one for one in envelopes if one[0] == Kind.EXIT]
        take(self, node, at_once)
        rest = [one for one in envelopes if one[0] != Kind.EXIT]
        asyncio.get_running_loop().call_later(0.02, take, self, node, rest)

    Router.from_link = spoilt  # type: ignore[method-assign]


@mutant
def nobody_is_told_of_a_link_that_closed() -> None:
    Router.node_down = lambda self, node, reason: None  # type: ignore[method-assign]


@mutant
def a_store_does_not_compare_the_fence() -> None:
    begin = StoreModule.__init__
    StoreModule.__init__ = lambda self, stores, fences: begin(self, stores, lambda pid: [])  # type: ignore[method-assign]


@mutant
def holders_of_locks_go_on_when_the_lease_is_over() -> None:
    LockHolders.may_act = lambda self, pid: True  # type: ignore[method-assign]
    LockHolders.in_doubt = LockHolders.kill_owned = lambda self: None  # type: ignore[method-assign]


@mutant
def a_lock_is_taken_from_its_holder() -> None:
    create = owned.create

    async def takes(etcd: Etcd, key: str, value: bytes, lease: int) -> owned.Holding:
        if "/locks/" not in key or random.random() > 0.02:
            return await create(etcd, key, value, lease)
        revision = (await etcd.txn([], [Put(key, value, lease)])).revision
        return owned.Holding(True, KeyValue(key, value, revision, revision, 1, lease))

    owned.create = takes


@mutant
def names_outlive_their_node() -> None:
    create = owned.create

    async def keeps(etcd: Etcd, key: str, value: bytes, lease: int) -> owned.Holding:
        if "/names/" not in key:
            return await create(etcd, key, value, lease)
        return dataclasses.replace(await create(etcd, key, value, 0), ours=True)

    owned.create = keeps


@mutant
def a_copy_of_the_names_misses_changes() -> None:
    apply = Names._apply

    def misses(self: Names, batch: Batch) -> None:
        if batch.relist or random.random() > 0.02:
            apply(self, batch)

    Names._apply = misses  # type: ignore[method-assign]


def run(name: str, history: str, arguments: list[str]) -> Any:
    MUTANTS[name]()
    record_to(history)
    return main(arguments)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2], sys.argv[3:]))
