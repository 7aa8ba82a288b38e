"""The router: where an envelope goes next.

To a VM of this node (the PID's counter names its slot), to one of the node's own ports
(slot 0), or to another node over the link; for a process that has moved, to ``node.moving``,
which knows where it is. What can't be delivered is never dropped in
silence: a request is answered (noproc, noconnection, an error), a message becomes a dead
letter with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from cluster.envelope import Envelope, Kind, Status, error_map, unfold
from cluster.errors import BadPid, ClusterError, MessageTooBig, NodeDown, NotConnected, Unavailable
from cluster.names import Names
from cluster.pid import Pid, node_of, slot_of, uniq_of
from node.deadletters import DeadLetters, shown
from node.ports import Ports

log = structlog.get_logger("wippy.router")

ANSWERED = frozenset(
    {Kind.SPAWN, Kind.CALL, Kind.MONITOR, Kind.UNMONITOR, Kind.LINK, Kind.UNLINK, Kind.CANCEL, Kind.TERMINATE}
)
"""Kinds that are requests whenever their ref is not 0. A MESSAGE is one too, but leaves a dead letter."""
MESSAGE, MESSAGES, RETURN, EXIT = int(Kind.MESSAGE), int(Kind.MESSAGES), int(Kind.RETURN), int(Kind.EXIT)
HOSTED = frozenset({Kind.SPAWN, Kind.CALL})
LENGTHS = {1: 8, 2: 7, 3: 6, 4: 4, 5: 4, 6: 4, 7: 4, 8: 7, 9: 5, 10: 4, 11: 7, 12: 9, 13: 6}
"""Items of an envelope by its kind; from another node come only these."""
NUMBERED = 9
"""Items of a MESSAGE that its sender takes back when its name is another's."""
FORWARD = int(Kind.FORWARD)
"""From here on the kinds are those between nodes about processes that move."""
PAYING = frozenset({MESSAGE, RETURN})
"""Kinds with a list of payloads and a revision."""
NODES_KNOWN = 4096
CLIENT = b"{client@door|"
"""How the PIDs of clients of the side door begin."""


class Inbox(Protocol):
    """What the router needs of a VM, and of a host with its workers."""

    host_id: str

    def post(self, item: Envelope) -> None: ...


class Home(Inbox, Protocol):
    """A VM, where processes live."""

    slot: int


class Links(Protocol):
    """What the router needs of the links."""

    def send(self, node: str, envelope: Envelope) -> None: ...


class Router:
    """Routes envelopes of one node. Runs on the event loop only."""

    def __init__(
        self, node: str, incarnation: int, links: Links, names: Names, dead_letters: DeadLetters | None = None
    ) -> None:
        self._own = node.encode()
        self._incarnation = incarnation
        self._links = links
        self._names = names
        self._texts: dict[bytes, str] = {}
        self.ports = Ports(node, incarnation, self.route)
        self.slots: dict[int, Home] = {}
        self.hosts: dict[str, Inbox] = {}
        self.closing: set[int] = set()
        """Slots of workers that end: nothing starts there any more."""
        self._congested: set[str] = set()
        self.nodes: frozenset[str] | None = None
        """The nodes of the cluster; None until somebody has told."""
        self.dead_letters = dead_letters or DeadLetters()
        self.messages_in = 0
        """Messages from other nodes, so far."""
        self.messages_elsewhere = 0
        """Those among them that no Lua process got: for the node itself, or by a name that was another's."""
        self.messages_out = 0
        self.malformed = 0
        """Envelopes from other nodes that were none, so far."""
        self.by_name_allowed: Callable[[int], bool] = lambda lease: True
        """Whether a process may be reached by a name it holds under this lease; 0: under one not known here yet."""
        self.applied: Callable[[], int] = lambda: 0
        """The revision up to which the names here are complete."""
        self.on_client_reply: Callable[[Envelope], None] = lambda envelope: None
        self.on_return: Callable[[Envelope], None] = self.give_back
        """A message by name came back to its sender here: ``give_back`` has it when the names here are new enough."""
        self.is_handed_on: Callable[[bytes, int], bool] = lambda pid, revision: False
        """Whether the process gave a name it had to another, at this revision, and takes what comes by it until it has
        ended."""
        self.on_nameless: Callable[[bytes], None] = lambda pid: None
        """A process whose VM is gone has got a name: its registration came too late."""
        self.moves: Mapping[bytes, object] = {}
        """Processes that have moved, or are about to, by the last part of their PID."""
        self.on_moved: Callable[[Envelope], None] = self.no_process
        """An envelope of this node is for one of them."""
        self.on_moved_from: Callable[[str, Envelope], None] = lambda node, envelope: self.no_process(envelope)
        """An envelope that came over the link from this node is."""
        self.on_about_moved: Callable[[str, Envelope], bool] = lambda node, envelope: False
        """A node says something about one, in a kind that is not looked at here; False: it makes no sense."""
        self.on_exit_of_moved: Callable[[Envelope], None] = lambda envelope: None
        """An EXIT of one of them is about to be delivered."""
        self.find_moved: Callable[[bytes], Home | None] = lambda pid: None
        """The VM such a process lives in, if it lives here."""
        self._in_doubt = False

    def route(self, envelope: Envelope) -> None:
        """Send an envelope on its way, wherever it came from."""
        if self.moves and uniq_of(envelope[1]) in self.moves:
            self.on_moved(envelope)
            return
        node = node_of(envelope[1])
        if node == self._own:
            self.deliver(envelope)
            return
        if envelope[0] == Kind.REPLY and envelope[1].startswith(CLIENT):
            self.on_client_reply(envelope)
            return
        text = self._texts.get(node)
        if text is None:
            if len(self._texts) >= NODES_KNOWN:  # anybody may make up nodes to send to
                self._texts.clear()
            text = self._texts[node] = node.decode("utf-8", "surrogateescape")
        try:
            self._links.send(text, envelope)
            if envelope[0] == MESSAGE:
                self.messages_out += 1
            elif envelope[0] == MESSAGES:
                self.messages_out += envelope[4]
        except MessageTooBig as error:
            self._unsendable(envelope, str(error), "too_big")
        except (Unavailable, NodeDown, NotConnected) as error:
            unreachable = error_map("Unavailable", str(error), retryable=True)
            self.refuse(envelope, Status.NOCONNECTION, unreachable, "noconnection")
        except (ValueError, TypeError, OverflowError) as error:
            self._unsendable(envelope, f"can't be sent: {error}", "invalid")

    def deliver(self, envelope: Envelope) -> None:
        """Hand an envelope to a process of this node."""
        kind = envelope[0]
        if kind in HOSTED:
            self._deliver_to_host(envelope)
            return
        slot = slot_of(envelope[1])
        if slot == 0:
            if kind == MESSAGES:
                self._one_by_one(envelope, self.deliver)
                return
            if kind == MESSAGE and node_of(envelope[2]) != self._own:
                self.messages_elsewhere += 1
            if not self.ports.deliver(envelope):
                self.no_process(envelope)
            return
        self.deliver_to(self.slots.get(slot), envelope)

    def deliver_to(self, inbox: Inbox | None, envelope: Envelope) -> None:
        """Hand an envelope to the process in the VM behind ``inbox``."""
        kind = envelope[0]
        if kind == MESSAGE and envelope[6] and not self._holds_name(envelope):
            return
        if kind == EXIT and self.moves and uniq_of(envelope[2]) in self.moves:
            self.on_exit_of_moved(envelope)
        if inbox is None:
            self.no_process(envelope)
        elif kind == RETURN:
            self.on_return(envelope)
        else:
            inbox.post(envelope)

    def inbox_of(self, pid: bytes) -> Home | None:
        """The VM a process of this node lives in; None when there is none."""
        return self.find_moved(pid) if uniq_of(pid) in self.moves else self.slots.get(slot_of(pid))

    def _one_by_one(self, envelope: Envelope, take: Callable[[Envelope], None]) -> None:
        """The messages of a MESSAGES, for whoever wants them apart."""
        try:
            messages = unfold(envelope)
        except ValueError:
            self._refuse_malformed(shown(node_of(envelope[2])), envelope)
            return
        for message in messages:
            take(message)

    def give_back(self, envelope: Envelope) -> None:
        """A RETURN for the VM of its sender: to be sent once more, or a dead letter."""
        inbox = self.inbox_of(envelope[1])
        if inbox is None:
            self.dead_letters.add(envelope, "stale_name")
        else:
            inbox.post(envelope)

    def from_link(self, node: str, envelopes: list[Envelope]) -> None:
        """Envelopes from another node, in their order."""
        own = self._own
        for envelope in envelopes:
            if not _is_wellformed(envelope):
                if not (_is_about_moved(envelope) and self.on_about_moved(node, envelope)):
                    self._refuse_malformed(node, envelope)
                continue
            if envelope[0] == MESSAGE:
                self.messages_in += 1
            elif envelope[0] == MESSAGES:
                self.messages_in += envelope[4]
            if self.moves and uniq_of(envelope[1]) in self.moves:
                self.on_moved_from(node, envelope)
            elif node_of(envelope[1]) == own:
                self.deliver(envelope)
            else:
                log.warning("envelope for another node dropped", peer=node, to=str(envelope[1]))
                self.no_process(envelope)

    def _refuse_malformed(self, node: str, envelope: Envelope) -> None:
        self.malformed += 1
        if self.malformed & (self.malformed - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
            log.error("malformed envelope dropped", peer=node, envelope=repr(envelope)[:200], count=self.malformed)

    def node_down(self, node: str, reason: str) -> None:
        """A node's epoch ended or its link closed: tell everyone here who waits for or watches it."""
        name = node.encode()
        self.ports.node_down(name, reason)
        for inbox in self.slots.values():
            inbox.post([45, name, reason.encode()])

    def congestion(self, node: str, congested: bool) -> None:
        """Too much waits for the node, or there is room again: the VMs hold their senders back, or let them go on."""
        if congested:
            self._congested.add(node)
        else:
            self._congested.discard(node)
        for inbox in self.slots.values():
            inbox.post([37, node.encode(), congested])

    def is_congested(self, node: str) -> bool:
        """Whether too much waits for the node."""
        return node in self._congested

    def nodes_changed(self, nodes: frozenset[str]) -> None:
        """Every VM knows which nodes there are, so that a send to any other is refused at once."""
        if nodes != self.nodes:
            self.nodes = nodes
            for inbox in self.slots.values():
                inbox.post(self._nodes_item())

    def greet(self, inbox: Inbox) -> None:
        """Tell a VM that begins what the others were told."""
        if self.nodes is not None:
            inbox.post(self._nodes_item())
        for node in sorted(self._congested):
            inbox.post([37, node.encode(), True])
        if self._in_doubt:
            inbox.post([39, True])

    def _nodes_item(self) -> Envelope:
        return [47, sorted(node.encode() for node in self.nodes or ())]

    def name_changed(self, name: str, pid: str | None, revision: int) -> None:
        """Every VM keeps the table of names, so that a look-up and a send by name never wait."""
        item: Envelope = [43, name.encode(), (pid or "").encode(), revision]
        for inbox in self.slots.values():
            inbox.post(item)
        if pid is not None and self._is_of_gone_vm(item[2]):
            self.on_nameless(item[2])

    def _is_of_gone_vm(self, pid: bytes) -> bool:
        """Whether a process lived here in a VM that is not there any more."""
        if node_of(pid) != self._own or slot_of(pid) in self.slots or uniq_of(pid) in self.moves:
            return False
        try:
            return Pid.parse(shown(pid)).incarnation == self._incarnation
        except BadPid:
            return False

    def names_in_doubt(self, in_doubt: bool) -> None:
        """The lease under which processes here hold names may be over, or is sure again: nobody in a VM sends to a
        process beside it by such a name meanwhile. For all that passes here there is ``by_name_allowed``."""
        if in_doubt != self._in_doubt:
            self._in_doubt = in_doubt
            for inbox in self.slots.values():
                inbox.post([39, in_doubt])

    def host_in(self, slot: int) -> str:
        """The host whose VM has this slot; empty when none has."""
        inbox = self.slots.get(slot)
        return inbox.host_id if inbox is not None else ""

    def no_process(self, envelope: Envelope) -> None:
        message = f"no process {shown(envelope[1])}: it ended or never was"
        self.refuse(envelope, Status.NOPROC, error_map("NotFound", message), "noproc")

    def refuse(self, envelope: Envelope, status: Status, error: dict[bytes, object], reason: str) -> None:
        """Answer a request that can't be delivered; keep a message as a dead letter."""
        kind, ref = envelope[0], envelope[3]
        if kind == MESSAGE:
            self.dead_letters.add(envelope, reason)
        elif kind == MESSAGES:
            self._one_by_one(envelope, lambda message: self.dead_letters.add(message, reason))
        elif kind == RETURN:
            self.dead_letters.add(envelope, "stale_name")
        elif kind not in ANSWERED:
            return
        if ref:
            self.route([int(Kind.REPLY), envelope[2], envelope[1], ref, int(status), error])

    def _unsendable(self, envelope: Envelope, problem: str, reason: str) -> None:
        """No other node can have this. Whoever waits for an answer or an end gets the error in place of the value."""
        match envelope[0]:
            case Kind.EXIT:
                error = error_map("Invalid", f"the outcome of {shown(envelope[2])} can't be passed on: {problem}")
                self._route_small([*envelope[:5], None, error])
            case Kind.REPLY:
                self._route_small([*envelope[:4], int(Status.ERROR), error_map("Invalid", f"the answer: {problem}")])
            case _:
                self.refuse(envelope, Status.ERROR, error_map("Invalid", problem), reason)

    def _route_small(self, envelope: Envelope) -> None:
        try:
            self._links.send(shown(node_of(envelope[1])), envelope)
        except (ClusterError, ValueError, TypeError, OverflowError) as error:
            log.warning("an answer is lost", to=shown(envelope[1]), kind=Kind(envelope[0]).name, problem=str(error))

    def _deliver_to_host(self, envelope: Envelope) -> None:
        to = shown(envelope[1])
        host = to[to.find("@") + 1 : to.rfind("|")]
        slot = slot_of(envelope[1])  # of one worker, where the address names one
        inbox: Inbox | None = self.slots.get(slot)
        if inbox is None or inbox.host_id != host or slot in self.closing:
            inbox = self.hosts.get(host)
        if inbox is None:
            known = ", ".join(sorted(self.hosts)) or "none"
            message = f"no host {host!r} on node {self._own.decode()}; its hosts are: {known}"
            self.refuse(envelope, Status.ERROR, error_map("NotFound", message), "no_host")
            return
        inbox.post(envelope)

    def _holds_name(self, envelope: Envelope) -> bool:
        """A message by name is for whoever holds the name now, under the revision the sender resolved.

        A sender whose watch is ahead of ours knows more than we do: what it resolved holds, while our lease does.
        Revision 0 is of this node: a LOCAL name, or one that has got into etcd since.
        """
        name, revision = shown(envelope[6]), envelope[7]
        held = self._names.lookup(name)
        if held is not None and held.pid.encode() == envelope[1] and revision in (held.revision, 0):
            if held.revision == 0 or self.by_name_allowed(held.lease):
                return True
        elif revision > self.applied():
            if self.by_name_allowed(0):
                return True
        elif held is not None and self._had_name(envelope[1], revision, held.revision):
            return True
        self._refuse_stale(envelope, name)
        return False

    def _had_name(self, pid: bytes, revision: int, now: int) -> bool:
        """Whether the process had the name when it was resolved, and gave it to the one that has it ``now``."""
        return 0 < revision < now and self.by_name_allowed(0) and self.is_handed_on(pid, now)

    def _refuse_stale(self, envelope: Envelope, name: str) -> None:
        """Back to a sender that takes it back; the answer to one that waits for one. Both carry the revision we are
        at: whoever has seen it too knows who holds the name."""
        applied = self.applied()
        if node_of(envelope[2]) != self._own:
            self.messages_elsewhere += 1
        if len(envelope) == NUMBERED:
            _, to, sender, _, topic, payloads, _, _, number = envelope
            self.route([RETURN, sender, to, 0, topic, payloads, envelope[6], applied, number])
            return
        text = f"name {name!r} is no longer held by {shown(envelope[1])}"
        stale = error_map("Unavailable", text, retryable=True, details={b"applied": applied})
        self.refuse(envelope, Status.STALE_NAME, stale, "stale_name")


def _is_about_moved(envelope: Envelope) -> bool:
    """Whether an envelope is of the kinds of ``node.moving``, as far as the first four items tell."""
    if len(envelope) < 4:
        return False
    kind, to, sender, ref = envelope[:4]
    return type(kind) is int and kind >= FORWARD and type(to) is bytes and type(sender) is bytes and type(ref) is int


def _is_wellformed(envelope: Envelope) -> bool:
    """Whether the items every part of the node relies on are there and of their types."""
    kind, to, sender, ref = envelope[:4]
    length = len(envelope)
    return (
        (length == LENGTHS.get(kind) or (kind == MESSAGE and length == NUMBERED))
        and type(to) is bytes
        and type(sender) is bytes
        and type(ref) is int
        and (kind not in PAYING or (type(envelope[5]) is list and type(envelope[7]) is int))
        and (length != NUMBERED or type(envelope[8]) is int)
        and (kind != MESSAGES or (type(envelope[4]) is int and type(envelope[5]) is bytes))
    )
