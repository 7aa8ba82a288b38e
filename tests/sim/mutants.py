"""The product with one rule dropped: what the simulation must notice, or it proves nothing.

A mutant replaces a piece of one function's source, in this process and for as long as the context lasts; the product
has no hooks for it. A piece that is not there any more is an error: the mutant has to follow the code.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from cluster import owned
from cluster.fencing import FencingCore, Held
from cluster.link import LinkCore
from cluster.links import Links
from cluster.names import Names
from cluster.session import Session
from node.host import kernel
from node.lockholders import LockHolders
from node.ownership import Ownership
from node.router import Router
from tests import sendorder


@dataclass(frozen=True)
class Change:
    """In ``function`` of ``place`` (a class or module), ``old`` becomes ``new``; it must be there exactly once."""

    place: Any
    function: str
    old: str
    new: str


@dataclass(frozen=True)
class Text:
    """In the file ``file`` of the kernel in Lua, ``old`` becomes ``new``; it must be there exactly once."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """``rule`` is what it breaks, ``theme`` the kind of run that shows it. ``machine`` names the property
    test, or the case of ``test_regressions``, that does instead."""

    name: str
    rule: str
    changes: tuple[Change | Text, ...]
    theme: str = "links"
    machine: str = ""
    first: tuple[int, ...] = ()
    """Seeds to begin with, for one that is rare: several that show it, so that no single run decides."""

    def __str__(self) -> str:
        return self.name


def _mutated(change: Change) -> Any:
    function = vars(change.place)[change.function]
    module = sys.modules[function.__module__]
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(change.old) != 1:
        raise ValueError(f"{change.function} has {change.old!r} {source.count(change.old)} times, expected once")
    made: dict[str, Any] = {}
    text = "from __future__ import annotations\n" + source.replace(change.old, change.new)
    exec(compile(text, inspect.getfile(function), "exec"), vars(module), made)
    return made[change.function]


def _mutated_kernel(change: Text) -> Any:
    texts = dict(kernel.read_kernel())
    text, old = texts[change.file.encode()], change.old.encode()
    if text.count(old) != 1:
        raise ValueError(f"{change.file}.lua has {change.old!r} {text.count(old)} times, expected once")
    texts[change.file.encode()] = text.replace(old, change.new.encode())
    return lambda: tuple(texts.items())


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """The product is the mutant."""
    with ExitStack() as stack:
        for change in mutant.changes:
            if isinstance(change, Text):
                stack.enter_context(patch.object(kernel, "read_kernel", _mutated_kernel(change)))
            else:
                stack.enter_context(patch.object(change.place, change.function, _mutated(change)))
        yield


def one(
    name: str,
    rule: str,
    place: Any,
    function: str,
    old: str,
    new: str,
    theme: str = "links",
    machine: str = "",
    first: tuple[int, ...] = (),
) -> Mutant:
    return Mutant(name, rule, (Change(place, function, old, new),), theme, machine, first)


MUTANTS = (
    Mutant(
        "nothing is sent again",
        "L3",
        (
            Change(Session, "again", "self._again = len(self._unacked)", "pass"),
            Change(Session, "missing", "self._again = len(self._unacked)", "pass"),
            Change(Session, "retry", "return self._unacked[0].payload", "return None"),
        ),
    ),
    one("a doubled frame is taken twice", "L2", LinkCore, "_take", "frame.seq <= session.accepted", "False"),
    one("a frame is taken across a gap", "L2", LinkCore, "_take", "frame.seq > session.accepted + 1", "False"),
    one(
        "what is missing is skipped when sending again",
        "L3",
        Session,
        "missing",
        "self._again = len(self._unacked)",
        "self._unacked.popleft(); self._again = len(self._unacked)",
    ),
    one(
        "an ack of a former session counts in this one",
        "L2",
        LinkCore,
        "frame",
        "self.counters.ignored += 1\n        return [self._ack()]",
        "self._session.acknowledged(frame.ack, now)\n        return [self._ack()]",
        machine="acks",
    ),
    one("a close is not numbered", "L5", LinkCore, "close", "self.n + 1", "self.n"),
    one(
        "a close is told to nobody here", "L5", LinkCore, "close", "return [*told, self._ack()]", "return [self._ack()]"
    ),
    one(
        "a session that the peer closed goes on here",
        "L5",
        LinkCore,
        "frame",
        "self._start_session(frame.n, confirmed=True)",
        "self.n = frame.n",
    ),
    one(
        "a frame of an ended epoch of this node is taken",
        "L4",
        LinkCore,
        "frame",
        "if frame.dst_epoch < self.own_epoch:",
        "if frame.dst_epoch < 0:",
        machine="link",
    ),
    one(
        "a frame of an ended epoch of the peer is taken",
        "L4",
        LinkCore,
        "frame",
        "if frame.src_epoch != self.peer_epoch:",
        "if self.peer_epoch == 0:",
    ),
    one(
        "a late RESET closes the next pair",
        "L4",
        LinkCore,
        "reset",
        "reset != (self.own_epoch, self.peer_epoch)",
        "False",
        machine="link",
    ),
    one(
        "what this node does not know yet is rejected",
        "L4",
        LinkCore,
        "frame",
        "if frame.src_epoch > revision:",
        "if False:",
    ),
    one(
        "links close while the lease is in doubt",
        "L6",
        Ownership,
        "on_phase",
        'log.error("the lease may be over; nothing is owned until it answers", lease=f"{lease:x}")',
        'self._reach.end("the lease of this node is lost")',
    ),
    one(
        "n is forgotten while this node can't receive",
        "L2",
        LinkCore,
        "pair",
        "self._former[:2] != (own_epoch, peer_epoch)",
        "True",
        machine="link",
    ),
    one("nobody is probed", "L7", LinkCore, "tick", "if self._carried and", "if False and", theme="watches"),
    one("the peer's silence never closes", "L6", LinkCore, "tick", "if oldest is not None and", "if False and"),
    one(
        "EXIT overtakes what its process sent",
        "L9",
        Session,
        "add",
        "self._queue.append(packed)",
        "self._queue.insert(0 if packed[1] == 8 else len(self._queue), packed)",
    ),
    one(
        "senders held back are not let go",
        "L8",
        Links,
        "_on_frame",
        "if peer.congested:",
        "if False:",
    ),
    one(
        "a joining node takes requests and may not answer",
        "L2",
        Links,
        "open",
        "self._sending = True",
        "asyncio.get_running_loop().call_later(0.01, setattr, self, '_sending', True)",
        machine="opening",
    ),
    Mutant(
        "an owner acts on after its deadline",
        "F3",
        (
            Change(Held, "may_run", "now < self.deadline - KILL_BEFORE", "True"),
            Change(FencingCore, "_phase_at", "left = self.held.deadline - now", "left = 9.0"),
        ),
        theme="locks",
    ),
    one(
        "the deadline counts from the answer",
        "F1",
        FencingCore,
        "answered",
        "sent_at + ttl",
        "now + ttl",
        machine="fencing",
    ),
    one(
        "a new lease revives the work of the old one",
        "F4",
        Held,
        "may_run",
        "lease == self.lease and",
        "",
        machine="fencing",
    ),
    one(
        "a lock is given back when its holder is warned",
        "F5",
        LockHolders,
        "in_doubt",
        "self._warned.add(pid)",
        "self._locks.process_ended(pid)",
    ),
    one(
        "a lock is given back with another's token",
        "F5",
        owned,
        "delete",
        'Compare.mod(key, "=", token)',
        "Compare.present(key)",
        theme="locks",
    ),
    one(
        "a message by name is delivered to whoever had it",
        "F4",
        Router,
        "_holds_name",
        "self._refuse_stale(envelope, name)\n    return False",
        "return True",
        theme="by name",
    ),
    one(
        "a message by name goes back twice",
        "F4",
        Router,
        "_refuse_stale",
        "applied, number])",
        "applied, number])\n        self.route([RETURN, sender, to, 0, topic, payloads, envelope[6], applied, number])",
    ),
    one(
        "a message that comes back overtakes",
        "F4",
        sendorder,
        "source",
        'read_kernel())[b"sendorder"]',
        'read_kernel())[b"sendorder"].replace(b"last > number", b"false")',
    ),
    one(
        "a key under the own lease is somebody else's",
        "F6",
        owned,
        "create",
        "found.lease == lease and lease != 0",
        "False",
        theme="streams",
    ),
    one("nobody registers again", "F4", Ownership, "_begin_rejoin", "if self._serving and", "if False and"),
    one(
        "the names of an ended process stay",
        "names",
        Names,
        "release",
        "await self._releases.free(name, held)",
        "pass",
    ),
)
