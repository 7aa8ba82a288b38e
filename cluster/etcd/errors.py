"""What can go wrong with etcd, as few exceptions.

``cluster.errors.Unavailable`` and ``OutcomeUnknown`` are used for what they mean
everywhere; here are the refusals only etcd makes. ``explain`` turns an error of gRPC
into one of them; every message says what was asked, where, and what to do next.
"""

from __future__ import annotations

import enum
import re

import grpc

from cluster.errors import ClusterError, OutcomeUnknown, Unavailable


class EtcdRefused(ClusterError):
    """etcd refused the request and changed nothing."""


class PermissionDenied(EtcdRefused):
    """The user may not do this, or could not log in."""


class Compacted(EtcdRefused):
    """The history at that revision has been thrown away; read the current state instead."""


class TooLarge(EtcdRefused):
    """The request, or the answer to it, is over a limit; nothing was changed."""


class LeaseGone(EtcdRefused):
    """The lease ended or never existed, and with it its keys."""


class NoSpace(Unavailable):
    """etcd has raised its NOSPACE alarm: it answers reads and refuses writes until somebody makes room."""


class Applied(enum.Enum):
    """What an error says about the request it answers."""

    NO = "not applied: it was refused"
    NOT_YET = "not applied: etcd could not take it now"
    UNKNOWN = "may have been applied"


_REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.UNIMPLEMENTED,
}
_BEFORE_PROPOSING = ("no leader", "too many requests", "not capable", "failed to connect")
_STALE_TOKEN = ("invalid auth token", "revision of auth store is old")


def token_is_stale(error: grpc.aio.AioRpcError) -> bool:
    """Whether logging in again may help; the request was not applied."""
    return any(text in (error.details() or "") for text in _STALE_TOKEN)


def answer_is_too_large(error: grpc.aio.AioRpcError) -> bool:
    """Whether our own receive limit refused the answer (etcd's words for a request start in lower case)."""
    return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "Received message larger" in (error.details() or "")


def applied(error: grpc.aio.AioRpcError) -> Applied:
    """What became of the request that was answered so."""
    details = error.details() or ""
    if any(text in details for text in _BEFORE_PROPOSING):
        return Applied.NOT_YET
    if error.code() in _REFUSALS:
        return Applied.NO
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and not answer_is_too_large(error):
        return Applied.NO
    return Applied.UNKNOWN


def explain(error: grpc.aio.AioRpcError, what: str, where: str, *, is_write: bool, user: str | None) -> ClusterError:
    """The exception to raise for ``error`` in answer to ``what`` (such as ``put /a/b``) at ``where`` (the endpoint)."""
    details = _plain(error.details() or "")
    verdict = applied(error)
    if verdict is Applied.NO:
        return _refusal(error.code(), details, what, where, user)
    told = f"{what} at {where}: {details or error.code().name}"
    if answer_is_too_large(error) and not is_write:
        return TooLarge(f"{told}; ask for fewer keys at a time")
    if verdict is Applied.UNKNOWN and is_write:
        return OutcomeUnknown(
            f"{told}; the answer was lost and it may have been applied: read the keys before repeating it"
        )
    return Unavailable(f"{told}; check that etcd runs there and can be reached, then try again")


def _refusal(code: grpc.StatusCode, details: str, what: str, where: str, user: str | None) -> EtcdRefused | NoSpace:
    told = f"{what} at {where}: {details or code.name}"
    who = f"user {user!r}" if user else "a client without a user"
    if "compacted" in details:
        return Compacted(f"{told}; read the current state instead")
    if "lease not found" in details:
        return LeaseGone(f"{told}; its keys are gone with it, grant a new one")
    if "user name is empty" in details:
        return PermissionDenied(f"{told}; this etcd wants a login: give a user and password")
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return PermissionDenied(f"{told}; {who} needs a role with this prefix (etcdctl role grant-permission)")
    if code is grpc.StatusCode.UNAUTHENTICATED or "authentication failed" in details:
        return PermissionDenied(f"{told}; check the name and password of {who}")
    if "too many operations" in details:
        return TooLarge(f"{told}; split it, or start etcd with a higher --max-txn-ops")
    if "too large" in details or "larger than max" in details:
        return TooLarge(f"{told}; split it, or start etcd with a higher --max-request-bytes")
    if "space exceeded" in details:
        return NoSpace(
            f"{told}; etcd is full (alarm NOSPACE) and takes no writes, nothing was changed: compact and defragment it"
            " or raise its --quota-backend-bytes, then run `etcdctl alarm disarm`"
        )
    return EtcdRefused(told)


def _plain(details: str) -> str:
    """etcd's words without its prefixes."""
    return re.sub(r"^etcdserver: (mvcc: )?", "", details)
