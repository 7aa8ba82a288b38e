"""Keys, prefixes and the messages of compares and operations."""

import pytest

from cluster.etcd import Compare, Delete, Get, Put
from cluster.etcd import rpc_pb2 as rpc
from cluster.etcd.values import decode_key, encode_key, prefix_end


@pytest.mark.parametrize(
    ("prefix", "end"),
    [
        (b"/a/", b"/a0"),
        (b"a", b"b"),
        (b"a\xff", b"b"),
        (b"a\xff\xff", b"b"),
        (b"\xff\xff", b"\0"),
        (b"", b"\0"),
    ],
)
def test_prefix_end_is_the_first_key_after_all_with_the_prefix(prefix: bytes, end: bytes) -> None:
    assert prefix_end(prefix) == end


@pytest.mark.parametrize("key", [b"/plain", "/münchen".encode(), b"/not\xffutf8"])
def test_every_key_survives_the_way_to_text_and_back(key: bytes) -> None:
    assert encode_key(decode_key(key)) == key


def test_absent_compares_the_create_revision_with_zero() -> None:
    message = Compare.absent("/k").message()
    assert (message.target, message.result, message.create_revision) == (rpc.Compare.CREATE, rpc.Compare.EQUAL, 0)
    assert message.WhichOneof("target_union") == "create_revision"


def test_each_target_fills_its_own_field() -> None:
    compares = {
        "version": Compare.version("/k", "=", 1),
        "create_revision": Compare.create("/k", ">", 2),
        "mod_revision": Compare.mod("/k", "<", 3),
        "value": Compare.value("/k", "!=", b"v"),
        "lease": Compare.lease("/k", "=", 5),
    }
    for name, compare in compares.items():
        message = compare.message()
        assert message.WhichOneof("target_union") == name
        assert getattr(message, name) == compare.operand


def test_compare_of_a_prefix_covers_its_range() -> None:
    message = Compare.mod_prefix("/nodes/", "<", 7).message()
    assert (message.key, message.range_end, message.result) == (b"/nodes/", b"/nodes0", rpc.Compare.LESS)


def test_operand_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(ValueError, match="expected an operand for VALUE, got 3"):
        Compare.value("/k", "=", 3).message()  # type: ignore[arg-type]


def test_operations_carry_what_they_say() -> None:
    assert Put("/k", b"v", lease=9).message().request_put == rpc.PutRequest(key=b"/k", value=b"v", lease=9)
    assert Delete("/k/", whole_prefix=True).message().request_delete_range.range_end == b"/k0"
    assert Delete("/k").message().request_delete_range.range_end == b""
    assert Get("/k/", whole_prefix=True, limit=3).message().request_range.limit == 3
