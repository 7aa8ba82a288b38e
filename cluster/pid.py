"""Process identifiers: ``{node@host|uniq}``, uniq = ``<incarnation>-<counter>`` in base 36.

The incarnation is drawn from etcd at every start of a node and the counter never goes
back, so a PID is never reused and a stale one is recognised. A host on a node is written
the same way without the braces: ``node-b@app:processes``.

The counter is shared by all VMs of a node: ``counter % VM_SLOTS`` is the VM that holds the
process, slot 0 the node itself (replies to clients, the supervisor). So a message finds
its VM from the PID alone, and nobody keeps a table of all processes.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.errors import BadPid

VM_SLOTS = 64
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def base36(number: int) -> str:
    """``number`` (>= 0) in lower-case base 36."""
    if number < 0:
        raise ValueError(f"expected a number >= 0, got {number}")
    if number < 36:
        return _DIGITS[number]
    digits = ""
    while number:
        number, rest = divmod(number, 36)
        digits = _DIGITS[rest] + digits
    return digits


@dataclass(frozen=True, slots=True)
class Pid:
    """A parsed PID. ``str()`` gives the text form back."""

    node: str
    host: str
    incarnation: int
    counter: int

    @classmethod
    def parse(cls, text: str) -> Pid:
        """The PID in ``text``. Raises BadPid (a ValueError) when it is none."""
        try:
            if text[0] != "{" or text[-1] != "}":
                raise ValueError
            place, uniq = text[1:-1].rsplit("|", 1)
            node, host = place.split("@", 1)
            incarnation, counter = uniq.split("-")
            if not node or not host:
                raise ValueError
            return cls(node, host, int(incarnation, 36), int(counter, 36))
        except (ValueError, IndexError):
            raise BadPid(f"expected a PID like {{node@ns:host|1-2a}}, got {text!r}") from None

    @property
    def uniq(self) -> str:
        return f"{base36(self.incarnation)}-{base36(self.counter)}"

    @property
    def slot(self) -> int:
        """Which VM of the node holds it; 0 = the node itself."""
        return self.counter % VM_SLOTS

    def __str__(self) -> str:
        return f"{{{self.node}@{self.host}|{self.uniq}}}"


def is_pid(text: str) -> bool:
    """Whether ``text`` has the shape of a PID (names never start with a brace)."""
    return text.startswith("{")


def host_address(node: str, host: str) -> str:
    """The ``to`` of an envelope for a host rather than a process (spawn, call): a PID with no uniq."""
    return f"{{{node}@{host}|}}"


def node_of(address: bytes) -> bytes:
    """The node in the ``to`` of an envelope, as bytes: the hot path of routing. Empty when malformed."""
    at = address.find(b"@")
    return address[1:at] if at > 0 else b""


def uniq_of(address: bytes) -> bytes:
    """What stands behind the bar of a PID as bytes, which no other process has; empty in the address of a host."""
    return address[address.rfind(b"|") + 1 : -1]


def slot_of(address: bytes) -> int:
    """The VM slot in a PID as bytes; -1 for the address of a host or a malformed text."""
    dash = address.rfind(b"-")
    if dash < 0:
        return -1
    try:
        return int(address[dash + 1 : -1], 36) % VM_SLOTS
    except ValueError:
        return -1
