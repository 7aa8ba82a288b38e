"""The kind ``process.service``: a process that is kept running, and where in the cluster."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from node.kinds.lifecycle import Lifecycle
from node.kinds.model import Int, Kind, KindModel, Model, Ref
from node.scalars import PlainText


class Placement(Model):
    """On which nodes a service runs."""

    mode: Literal["cluster", "every_node"] = "cluster"
    """``cluster``: ``replicas`` instances in the whole cluster. ``every_node``: one on each node."""
    replicas: Int = Field(default=1, ge=1, le=1000)
    """How many instances the cluster runs, 1 to 1000."""
    labels: dict[str, PlainText] = Field(default_factory=dict)
    """Only nodes with all of these labels."""
    spread: str | None = None
    """A node label; replicas prefer nodes whose values of it differ."""
    on_lease_loss: Literal["stop", "keep"] = "stop"
    """``keep`` lets an instance go on when its node lost the lease, for services that may run twice."""

    @model_validator(mode="after")
    def _replicas_only_in_cluster(self) -> Placement:
        if self.mode == "every_node" and self.replicas != 1:
            raise ValueError("replicas needs mode: cluster; every_node runs exactly one on each node")
        return self


class ProcessService(KindModel):
    """Runs ``process`` on ``host`` and restarts it when it fails."""

    process: Ref
    """The ``process.lua`` entry to run."""
    host: Ref
    """The ``process.host`` it runs on."""
    input: list[Any] = Field(default_factory=list)
    """Arguments of the process."""
    lifecycle: Lifecycle = Lifecycle()
    """When it starts, stops and is started again."""
    placement: Placement = Placement()
    """On which nodes it runs."""

    @property
    def code(self) -> tuple[str, ...]:
        """The entry whose code it runs."""
        return (self.process,)

    @property
    def identity(self) -> object:
        """What can't change while it runs."""
        return (self.process, self.host, repr(self.input), self.lifecycle.security)

    @field_validator("host")
    @classmethod
    def _not_the_node_itself(cls, host: str) -> str:
        if host == "node:control":
            raise ValueError("node:control is the node itself and runs no processes; name a process.host entry")
        return host


KINDS = (Kind("process.service", ProcessService),)
