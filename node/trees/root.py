"""A supervisor that starts by itself, as the supervisor of services keeps one: placed, claimed and restarted.

It is a replica whose process is the supervisor process of its own entry. What else the entry says
- strategy, children - is not its matter: that changes in place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from cluster.supervision import ServiceState
from node.kinds.service import ProcessService
from node.kinds.supervisor import ProcessSupervisor
from node.ports import Ports
from node.replica import Replica
from node.trees.contact import HOST


class Root(Replica):
    """A ``node.kept.Kept``; its arguments are those of ``node.kept.Make``."""

    def __init__(
        self,
        service: str,
        replica: int,
        spec: ProcessSupervisor,
        ports: Ports,
        node: str,
        *,
        may_start: Callable[[], bool],
        ready: Callable[[], Awaitable[None]],
        fence: Callable[[bytes], None],
        on_pid: Callable[[bytes | None], None],
        on_rest: Callable[[ServiceState], None],
    ) -> None:
        super().__init__(
            service,
            replica,
            _as_service(service, spec),
            ports,
            node,
            may_start=may_start,
            ready=ready,
            fence=fence,
            on_pid=on_pid,
            on_rest=on_rest,
        )

    def revise(self, spec: ProcessService | ProcessSupervisor) -> None:
        super().revise(_as_service(self.service, spec) if isinstance(spec, ProcessSupervisor) else spec)


def _as_service(id: str, spec: ProcessSupervisor) -> ProcessService:
    return ProcessService.model_construct(
        process=id, host=HOST, input=[], lifecycle=spec.lifecycle, placement=spec.placement
    )
