"""Keys that belong to one owner: created only if absent on a lease, never updated, deleted only by compare.

The way names, claims and registrations are owned (fencing rule F5): the mod_revision of the key is the fencing
token, and it changes with every change of owner. An answer that was lost is not a failure here: creating is
repeated, and a key found under the own lease is our own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.errors import OutcomeUnknown, Unavailable
from cluster.etcd import Compare, Delete, Etcd, Get, KeyValue, Put, TxnResult

WITHIN = 10.0
"""Seconds in which a lost answer is asked for again."""

PAUSE = 0.1


@dataclass(frozen=True)
class Holding:
    """The key as it is now, and whether it is ours."""

    ours: bool
    kv: KeyValue

    @property
    def token(self) -> int:
        """The fencing token of the owner."""
        return self.kv.mod_revision


@dataclass(frozen=True)
class Deletion:
    """Whether the key was deleted by us, and a revision at which that shows."""

    done: bool
    revision: int


async def create(etcd: Etcd, key: str, value: bytes, lease: int) -> Holding:
    """Create ``key`` on ``lease`` unless somebody has it; who has it now.

    Raises Unavailable when nothing was written, OutcomeUnknown when etcd did not say for too long.
    """
    result = await _repeat(etcd, [Compare.absent(key)], [Put(key, value, lease)], [Get(key)])
    if result.result.succeeded:
        revision = result.result.revision
        return Holding(True, KeyValue(key, value, revision, revision, 1, lease))
    found = _found(result.result)
    if found is None:  # it ended between the compare and now, which one transaction rules out
        raise AssertionError(f"{key} was neither absent nor there")
    return Holding(found.lease == lease and lease != 0, found)


async def delete(etcd: Etcd, key: str, token: int, *also: str, puts: Sequence[Put] = ()) -> Deletion:
    """Delete ``key``, and the keys ``also``, if its mod_revision still is ``token``; ``puts`` are written with it.

    Raises as ``create`` does.
    """
    changes: list[Put | Delete] = [*(Delete(one) for one in (key, *also)), *puts]
    repeated = await _repeat(etcd, [Compare.mod(key, "=", token)], changes, [Get(key)])
    result = repeated.result
    # After a lost answer a key that is gone, or another's, was deleted by the earlier try (or with the lease).
    return Deletion(result.succeeded or repeated.lost_answer, result.revision)


@dataclass(frozen=True)
class _Repeated:
    result: TxnResult
    lost_answer: bool


async def _repeat(
    etcd: Etcd, compares: Sequence[Compare], success: Sequence[Put | Delete], failure: Sequence[Get]
) -> _Repeated:
    """Run a transaction that is safe to run again until etcd says what became of it."""
    lost: OutcomeUnknown | None = None
    try:
        async with asyncio.timeout(WITHIN):
            while True:
                try:
                    result = await etcd.txn(compares, success, failure)
                    return _Repeated(result, lost is not None)
                except OutcomeUnknown as error:
                    lost = error
                except Unavailable:
                    if lost is None:
                        raise
                await asyncio.sleep(PAUSE)
    except TimeoutError:
        raise lost or Unavailable(f"etcd did not answer within {WITHIN:g} s; try again") from None


def _found(result: TxnResult) -> KeyValue | None:
    match result.responses:
        case [[KeyValue() as kv, *_]]:
            return kv
        case _:
            return None
