"""What a supervisor has asked of others and was not answered when it ends."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from cluster.envelope import Envelope, Kind
from node.trees.requests import Requests


def test_only_spawns_are_looked_after_when_nobody_waits_any_more() -> None:
    """The answer to a spawn is a PID that has to be ended; that to a CANCEL or TERMINATE is none."""
    sent: list[Envelope] = []
    refs = count(1)
    abandoned: list[int] = []

    def abandon(ref: int, accept: Callable[[bytes], bool]) -> None:
        abandoned.append(ref)

    requests = Requests(b"{n1@node:supervisor|1-1s}", lambda: next(refs), sent.append)
    for kind in (Kind.CANCEL, Kind.SPAWN, Kind.TERMINATE):
        requests.ask(kind, b"{n2@app:processes|1-1t}", then=lambda status, value: None)
    requests.abandon(abandon)
    assert [envelope[0] for envelope in sent if envelope[3] in abandoned] == [int(Kind.SPAWN)]
