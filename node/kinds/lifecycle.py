"""The ``lifecycle`` block of entries that are started, stopped and restarted."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from pydantic import Field, model_validator

from node.durations import Duration, PositiveDuration
from node.kinds.model import Float, Int, Model, Ref


class Delays(Model):
    """How long to wait before something that failed is started again."""

    initial_delay: Duration = timedelta(seconds=1)
    """The wait before the first restart."""
    max_delay: Duration = timedelta(seconds=90)
    """The longest wait."""
    backoff_factor: Float = Field(default=2.0, ge=1.0, le=100.0)
    """What each wait is multiplied by to get the next."""
    jitter: Float = Field(default=0.1, ge=0.0, le=1.0)
    """The part of a wait that is random."""

    @model_validator(mode="after")
    def _delays_agree(self) -> Delays:
        if self.max_delay < self.initial_delay:
            raise ValueError("expected max_delay to be at least initial_delay")
        return self


class Restart(Delays):
    """When and how often something that failed is started again."""

    max_attempts: Int = Field(default=0, ge=0)
    """Starts in a row that may fail before it is given up; 0 = never. In a cluster another node tries then."""


class Actor(Model):
    """The identity a service runs as."""

    id: str
    meta: dict[str, Any] = Field(default_factory=dict)


class Security(Model):
    """Identity and policies of a service."""

    actor: Actor | None = None
    groups: list[Ref] = Field(default_factory=list)
    policies: list[Ref] = Field(default_factory=list)


class Lifecycle(Model):
    """Start, stop and restart of a service."""

    auto_start: bool = False
    """Start with the node; a service without it runs only while one that runs requires it."""
    startup: Literal["required", "optional"] = "required"
    """Accepted, without effect: every service is as ``optional``. One that can't start is tried again, here or on
    another node, and keeps no node from serving, for the others there could serve."""
    start_timeout: PositiveDuration = timedelta(seconds=10)
    """How long it may wait for what it requires, and how long its process may take to be there."""
    stop_timeout: PositiveDuration = timedelta(seconds=10)
    """How long it may take to end after CANCEL, before it is killed."""
    handover: Literal["stop-first", "start-first"] = "stop-first"
    """How it goes to another node when its own is drained or stops, and its process can't move: ``start-first`` lets it
    run twice for a moment, so that it is never away."""
    stable_threshold: Duration = timedelta(seconds=5)
    """Having run this long, the count of restarts begins anew."""
    requires: list[Ref] = Field(default_factory=list)
    """Services that must run first. They are started also without ``auto_start``."""
    depends_on: list[Ref] = Field(default_factory=list)
    """The older name of ``requires``; both count."""
    restart: Restart = Restart()
    security: Security | None = None
    """Accepted, without effect: permissions are not checked."""

    @property
    def required(self) -> tuple[str, ...]:
        """The ids of all services that must run first, each once."""
        return tuple(dict.fromkeys((*self.requires, *self.depends_on)))
