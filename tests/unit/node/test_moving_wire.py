"""What another node says of a process that moves is looked at before anybody relies on it."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from node.moving.wire import is_wellformed, parcel_of

PID = b"{n1@app:host|a-1}"
MESSAGE = [1, PID, b"{n2@app:host|b-1}", 0, b"topic", [], b"", 0]


def forward(inner: Any, to: bytes = PID) -> list[Any]:
    return [14, to, b"", 0, [], b"", 1, inner]


def parcel(**parts: Any) -> bytes:
    body = [PID, b"app:host", b"app:entry", b"text", None]
    whole = {"attempt": 1, "revision": 2, "epoch": 3, "body": body, "holdings": [], "accepted": {}, "former": []}
    packed: bytes = msgpack.packb({**whole, "watchers": [], "held": [], **parts}, use_bin_type=False)
    return packed


@pytest.mark.parametrize(
    "inner",
    [MESSAGE, [*MESSAGE, 7], [9, PID, b"", 0, b"why"], [9, PID, b"", 0, b"why", 1], [13, PID, b"", 0, 1, b""]],
)
def test_what_is_for_a_process_may_be_forwarded(inner: list[Any]) -> None:
    assert is_wellformed(forward(inner))


@pytest.mark.parametrize(
    "inner",
    [
        MESSAGE[:4],
        [*MESSAGE[:5], b"", b"", 0],
        [*MESSAGE[:7], b"0"],
        [[], *MESSAGE[1:]],
        [2, PID, b"", 0, b"entry", [], {}],
        forward(MESSAGE),
        [13, PID, b"", 0, b"1", b""],
        {},
    ],
)
def test_what_the_router_or_the_kernel_could_not_handle_is_not(inner: Any) -> None:
    assert not is_wellformed(forward(inner))


@pytest.mark.parametrize("kind", [[15, b"", 1, []], [19, b"", 1, {}], [23, b"", 1, 1, [], b""]])
@pytest.mark.parametrize("to", [b"{|}", b"{n1@app:host|}", b"{|\xff-1}"])
def test_the_address_of_a_host_is_no_process_that_moves(kind: list[Any], to: bytes) -> None:
    assert not is_wellformed([kind[0], to, *kind[1:]])


def test_a_link_is_flushed_for_nobody_in_particular() -> None:
    assert is_wellformed([17, b"{|}", b"", 1, []])


def test_a_state_is_read_with_what_waits_for_the_process() -> None:
    read = parcel_of(parcel(watchers=[[b"n2", b"1{n2@app:host|b-1}"]], held=[[b"n2", 1, MESSAGE]]))
    assert read.held[0].envelope == MESSAGE


@pytest.mark.parametrize(
    "parts", [{"watchers": [[b"n2", b"x"]]}, {"held": [[b"n2", 1, MESSAGE[:4]]]}, {"held": [[b"n2", 1, [2, PID]]]}]
)
def test_a_state_with_anything_else_in_it_is_refused(parts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not the state of a process"):
        parcel_of(parcel(**parts))
