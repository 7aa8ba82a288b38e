"""What programs ask of a supervisor: start_child, terminate_child, restart_child, delete_child, and to look.

A question comes as a CALL to the supervisor's PID and is answered once: with a value, or an error
of the kinds NotFound, AlreadyExists, Conflict, Invalid and Unavailable.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, TypeAlias

from cluster.envelope import MAX_MESSAGE, Status, error_map, pack, to_raw, to_text
from cluster.errors import Invalid, MessageTooBig, Problem
from cluster.supervision import AutoShutdown, Phase
from cluster.supervision.events import Answer, DeleteChild, Outcome, RestartChild, TerminateChild
from node.trees.definition import Definitions
from node.trees.overseer import Overseer

ROOM = MAX_MESSAGE - 1024
"""Bytes of an answer beside its envelope."""

Reply: TypeAlias = Callable[[Status, Any], None]


class Commands:
    """Runs commands on the supervisors of this node."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._names = count(1)
        self._commands: dict[str, Callable[[Overseer, list[Any], Reply], None]] = {
            "start_child": self._start_child,
            "terminate_child": self._terminate_child,
            "restart_child": self._restart_child,
            "delete_child": self._delete_child,
            "which_children": self._which_children,
            "count_children": self._count_children,
        }

    def run(self, overseer: Overseer, name: str, arguments: list[Any], reply: Reply) -> None:
        command = self._commands.get(name)
        if command is None:
            _refuse(reply, "Invalid", f"a supervisor knows no {name!r}; it knows: {', '.join(self._commands)}")
            return
        command(overseer, arguments, reply)

    def _start_child(self, overseer: Overseer, arguments: list[Any], reply: Reply) -> None:
        try:
            if overseer.core.is_dynamic:
                template = overseer.definition.template
                assert template is not None
                spec = self._definitions.child(str(next(self._names)), template, to_text(arguments))
            else:
                spec = self._definitions.added(overseer.entry, to_text(arguments[0]) if arguments else None)
                if spec.significant and overseer.core.spec.auto_shutdown is AutoShutdown.NEVER:
                    raise Invalid([Problem("needs a supervisor with auto_shutdown", field="significant")])
        except Invalid as error:
            _refuse(reply, "Invalid", f"can't start this child: {error}")
            return
        overseer.add(spec, lambda answer: _answer_start(overseer, spec.id, answer, reply))

    def _terminate_child(self, overseer: Overseer, arguments: list[Any], reply: Reply) -> None:
        id = _child(overseer, arguments)
        overseer.command(
            lambda ref: TerminateChild(ref, id), lambda answer: _answer(overseer, "terminated", id, answer, reply)
        )

    def _restart_child(self, overseer: Overseer, arguments: list[Any], reply: Reply) -> None:
        id = _child(overseer, arguments)
        overseer.command(lambda ref: RestartChild(ref, id), lambda answer: _answer_start(overseer, id, answer, reply))

    def _delete_child(self, overseer: Overseer, arguments: list[Any], reply: Reply) -> None:
        id = _child(overseer, arguments)
        overseer.command(
            lambda ref: DeleteChild(ref, id), lambda answer: _answer(overseer, "deleted", id, answer, reply)
        )

    def _which_children(self, overseer: Overseer, arguments: list[Any], reply: Reply) -> None:
        shown = [to_raw(overseer.shown_child(id)) for id in overseer.core.children]
        try:
            pack(shown, ROOM)
        except MessageTooBig as error:
            text = f"{len(shown)} children do not fit into one answer ({error}); count_children counts them"
            _refuse(reply, "Invalid", f"which_children: {text}", retryable=False)
            return
        reply(Status.OK, shown)

    def _count_children(self, overseer: Overseer, arguments: list[Any], reply: Reply) -> None:
        children = overseer.core.children.values()
        supervisors = sum(child.spec.is_supervisor for child in children)
        counts = {
            b"specs": 1 if overseer.core.is_dynamic else len(children),
            b"active": sum(child.phase is Phase.UP for child in children),
            b"supervisors": supervisors,
            b"workers": len(children) - supervisors,
        }
        reply(Status.OK, counts)


def _child(overseer: Overseer, arguments: list[Any]) -> str:
    """The id of the child that is meant, by it or by its PID."""
    named = arguments[0] if arguments else b""
    if not isinstance(named, bytes):
        return ""
    run = overseer.children.runs.of(named)
    return run.child if run is not None else named.decode("utf-8", "surrogateescape")


def _answer_start(overseer: Overseer, id: str, answer: Answer, reply: Reply) -> None:
    if answer.outcome is Outcome.STARTED:
        reply(Status.OK, overseer.children.pid_of(id))
    else:
        _answer(overseer, "started", id, answer, reply)


def _answer(overseer: Overseer, done: str, id: str, answer: Answer, reply: Reply) -> None:
    child = f"child {id!r} of supervisor {overseer.entry}"
    match answer.outcome:
        case Outcome.OK:
            reply(Status.OK, True)
        case Outcome.NOT_FOUND:
            _refuse(reply, "NotFound", f"there is no {child}")
        case Outcome.ALREADY_STARTED:
            pid = overseer.children.pid_of(id)
            _refuse(reply, "AlreadyExists", f"{child} was started already", details={b"pid": pid} if pid else None)
        case Outcome.ALREADY_PRESENT:
            _refuse(reply, "AlreadyExists", f"{child} is there, but does not run; restart_child starts it")
        case Outcome.RUNNING:
            _refuse(reply, "Conflict", f"{child} can't be {done} while it runs; terminate it first")
        case Outcome.RESTARTING:
            _refuse(reply, "Conflict", f"{child} can't be {done} while it is being restarted", retryable=True)
        case Outcome.FAILED:
            _refuse(reply, "Unavailable", f"{child} can't be started: {answer.error}")
        case Outcome.POSTPONED:
            text = f"{child} has no place now; it starts as soon as a node fits"
            _refuse(reply, "Unavailable", text, details={b"state": b"waiting for a place"})
        case Outcome.DYNAMIC:
            _refuse(reply, "Invalid", f"{child} can't be {done}: its children come from a template")
        case Outcome.BUSY:
            text = f"supervisor {overseer.entry} has too many commands to do; try again later"
            _refuse(reply, "Unavailable", text, retryable=True)
        case _:
            _refuse(reply, "Unavailable", f"supervisor {overseer.entry} is ending", retryable=True)


def _refuse(reply: Reply, kind: str, message: str, *, retryable: bool = False, details: Any = None) -> None:
    reply(Status.ERROR, error_map(kind, message, retryable=retryable, details=details))
