"""An etcd client whose answers get lost."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.errors import OutcomeUnknown, Unavailable
from cluster.etcd import Compare, Etcd, TxnResult
from cluster.etcd.values import Operation


class Forgetful(Etcd):
    """Loses the answer of the next transactions: ``lost`` says of each, the last first, whether it was applied."""

    lost: list[bool] | None = None
    away = False
    """No transaction reaches etcd."""

    async def txn(
        self,
        compares: Sequence[Compare],
        success: Sequence[Operation],
        failure: Sequence[Operation] = (),
    ) -> TxnResult:
        if self.away:
            raise Unavailable("etcd is away")
        if not self.lost:
            return await super().txn(compares, success, failure)
        if self.lost.pop():
            await super().txn(compares, success, failure)
        raise OutcomeUnknown("the answer was lost")
