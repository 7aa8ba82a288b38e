"""The kind ``pg.scope``: a space of process groups, the same on every node."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from node.durations import Duration
from node.kinds.lifecycle import Lifecycle
from node.kinds.model import Int, Kind, KindModel


class GroupScope(KindModel):
    """Groups that processes of all nodes join; those of another scope are others."""

    anti_entropy_interval: Duration = timedelta(seconds=30)
    """How often nodes compare what they know of each other; 0 = only when they meet."""
    max_groups: Int = Field(default=0, ge=0)
    """Groups at most, 0 = as many as are joined."""
    max_members_per_group: Int = Field(default=0, ge=0)
    """Memberships of one group at most, each time a process joined; 0 = no limit."""
    protocol_timeout: Duration = timedelta(seconds=5)
    """No effect: what nodes tell each other goes over their link, which loses nothing."""
    broadcast_timeout: Duration = timedelta(seconds=5)
    """No effect, as above."""
    circuit_breaker_failures: Int = Field(default=3, ge=0)
    """No effect, as above."""
    circuit_breaker_reset_time: Duration = timedelta(seconds=10)
    """No effect, as above."""
    max_retries: Int = Field(default=3, ge=0)
    """No effect, as above."""
    retry_base_delay: Duration = timedelta(milliseconds=100)
    """No effect, as above."""
    retry_max_delay: Duration = timedelta(seconds=1)
    """No effect, as above."""
    action_queue_size: Int = Field(default=256, ge=0)
    """No effect: nothing waits in a queue."""
    action_queue_max_size: Int = Field(default=1024, ge=0)
    """No effect, as above."""
    monitor_buffer: Int = Field(default=64, ge=0)
    """No effect: events that wait are kept until they are received."""
    lifecycle: Lifecycle = Lifecycle()
    """A scope is there on every node whatever this says."""


KINDS = (Kind("pg.scope", GroupScope),)
