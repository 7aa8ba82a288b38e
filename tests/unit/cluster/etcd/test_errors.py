"""What an error of gRPC says about the request it answers."""

import grpc
import pytest

from cluster.errors import OutcomeUnknown, Unavailable
from cluster.etcd.errors import (
    Applied,
    Compacted,
    EtcdRefused,
    LeaseGone,
    NoSpace,
    PermissionDenied,
    TooLarge,
    answer_is_too_large,
    applied,
    explain,
    token_is_stale,
)

Code = grpc.StatusCode


def error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details)


@pytest.mark.parametrize(
    ("code", "details", "verdict"),
    [
        (Code.UNAVAILABLE, "Socket closed", Applied.UNKNOWN),
        (Code.UNAVAILABLE, "etcdserver: request timed out", Applied.UNKNOWN),
        (Code.UNAVAILABLE, "etcdserver: leader changed", Applied.UNKNOWN),
        (Code.UNAVAILABLE, "failed to connect to all addresses; last error: refused", Applied.NOT_YET),
        (Code.UNAVAILABLE, "etcdserver: no leader", Applied.NOT_YET),
        (Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests", Applied.NOT_YET),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", Applied.UNKNOWN),
        (Code.UNKNOWN, "Stream removed", Applied.UNKNOWN),
        (Code.INTERNAL, "Received RST_STREAM", Applied.UNKNOWN),
        (Code.INVALID_ARGUMENT, "etcdserver: request is too large", Applied.NO),
        (Code.PERMISSION_DENIED, "etcdserver: permission denied", Applied.NO),
        (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", Applied.NO),
        (Code.RESOURCE_EXHAUSTED, "grpc: received message larger than max (9 vs. 4)", Applied.NO),
        # the request was carried out; it is the answer that did not get through
        (Code.RESOURCE_EXHAUSTED, "CLIENT: Received message larger than max (9 vs. 4)", Applied.UNKNOWN),
    ],
)
def test_error_tells_whether_the_request_was_applied(code: grpc.StatusCode, details: str, verdict: Applied) -> None:
    assert applied(error(code, details)) is verdict


@pytest.mark.parametrize(
    ("code", "details", "kind", "remedy"),
    [
        (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted", Compacted, "read the current"),
        (Code.NOT_FOUND, "etcdserver: requested lease not found", LeaseGone, "grant a new one"),
        (Code.PERMISSION_DENIED, "etcdserver: permission denied", PermissionDenied, "grant-permission"),
        (Code.INVALID_ARGUMENT, "etcdserver: user name is empty", PermissionDenied, "give a user and password"),
        (Code.INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user", PermissionDenied, "password of"),
        (Code.INVALID_ARGUMENT, "etcdserver: too many operations in txn request", TooLarge, "--max-txn-ops"),
        (Code.INVALID_ARGUMENT, "etcdserver: request is too large", TooLarge, "--max-request-bytes"),
        (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", NoSpace, "defragment"),
        (Code.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request", EtcdRefused, "duplicate key"),
    ],
)
def test_refusal_says_what_where_and_what_next(
    code: grpc.StatusCode, details: str, kind: type[EtcdRefused], remedy: str
) -> None:
    told = explain(error(code, details), "put /a", "http://e:2379", is_write=True, user="node")
    assert type(told) is kind
    assert str(told).startswith("put /a at http://e:2379: ")
    assert remedy in str(told)


def test_lost_answer_of_a_write_is_an_unknown_outcome() -> None:
    lost = error(Code.UNAVAILABLE, "Socket closed")
    assert type(explain(lost, "put /a", "e", is_write=True, user=None)) is OutcomeUnknown
    assert type(explain(lost, "get /a", "e", is_write=False, user=None)) is Unavailable


def test_write_that_never_left_is_unavailable() -> None:
    refused = error(Code.UNAVAILABLE, "failed to connect to all addresses")
    assert type(explain(refused, "put /a", "e", is_write=True, user=None)) is Unavailable


def test_too_large_answer_is_told_from_a_too_large_request() -> None:
    ours = error(Code.RESOURCE_EXHAUSTED, "CLIENT: Received message larger than max (9 vs. 4)")
    theirs = error(Code.RESOURCE_EXHAUSTED, "grpc: received message larger than max (9 vs. 4)")
    assert answer_is_too_large(ours)
    assert not answer_is_too_large(theirs)
    assert "fewer keys" in str(explain(ours, "read", "e", is_write=False, user=None))
    assert type(explain(ours, "txn", "e", is_write=True, user=None)) is OutcomeUnknown


def test_stale_token_is_recognised() -> None:
    assert token_is_stale(error(Code.UNAUTHENTICATED, "etcdserver: invalid auth token"))
    assert not token_is_stale(error(Code.PERMISSION_DENIED, "etcdserver: permission denied"))
