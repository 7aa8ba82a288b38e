"""What a move asks of etcd, each question once, and what became of it in the words of the core.

A transaction whose answer is lost is never sent again here: the core decides, and what it asks next comes after a
pause, so that etcd being away is not answered by a storm.
"""

from __future__ import annotations

import asyncio

import structlog

from cluster.errors import ClusterError
from cluster.etcd import Etcd, KeyValue, TxnResult
from cluster.migration.transactions import Answer, Found, Outcome, Read, Transact

log = structlog.get_logger("wippy.moving")

PAUSE = 0.25
"""Seconds until an outcome that is not known is told."""


async def ask(etcd: Etcd, request: Transact | Read) -> Answer:
    """The answer to the request; never raises for what etcd says or leaves unsaid."""
    try:
        if isinstance(request, Read):
            return Answer(request.request, Outcome.FAILED, found=found(await etcd.get(request.key)))
        result = await etcd.txn(request.compares, request.success, request.failure)
    except ClusterError as error:
        # also that the lease is gone: its loss is told by the lease keeper, and then the core decides
        log.debug("what etcd was asked about a move is not known", problem=str(error))
        await asyncio.sleep(PAUSE)
        return Answer(request.request, Outcome.UNKNOWN)
    if result.succeeded:
        return Answer(request.request, Outcome.DONE, result.revision)
    return Answer(request.request, Outcome.FAILED, found=_found_in(result))


def found(kv: KeyValue | None) -> Found | None:
    """Where the key says that the process is."""
    return None if kv is None else Found(kv.value.decode("utf-8", "surrogateescape"), kv.mod_revision)


def _found_in(result: TxnResult) -> Found | None:
    match result.responses:
        case [[KeyValue() as kv, *_]]:
            return found(kv)
        case _:
            return None
