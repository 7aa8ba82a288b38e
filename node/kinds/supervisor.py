"""The kind ``process.supervisor``: processes that are started in order and restarted by a strategy, on any nodes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from node.durations import Duration, PositiveDuration, parse_duration
from node.kinds.lifecycle import Delays, Lifecycle
from node.kinds.model import Int, Kind, KindModel, Model, Ref
from node.kinds.service import Placement
from node.scalars import PlainText

LOCAL, ANY = "local", "any"


def _time_to_end(value: Any) -> Any:
    if value in ("kill", "infinity") or isinstance(value, timedelta):
        return value
    try:
        time = parse_duration(value)
    except (ValueError, AttributeError):
        raise ValueError(f"expected kill, infinity or a duration such as 5s, got {value!r}") from None
    if time <= timedelta(0):
        raise ValueError(f"expected a time above 0, or kill, got {value!r}")
    return time


Shutdown = Annotated[Literal["kill", "infinity"] | timedelta, BeforeValidator(_time_to_end)]


class Backoff(Delays):
    """How long to wait before a child is started again."""

    initial_delay: Duration = timedelta(0)
    """The wait before the first restart; ``0s``: none, and none after it."""
    stable_threshold: Duration = timedelta(seconds=5)
    """Having run this long, the waits of a child begin anew."""


class Template(Model):
    """What a child runs, where, and how it is kept."""

    process: Ref
    """The ``process.lua`` entry to run, or a ``process.supervisor``."""
    host: Ref | None = None
    """The ``process.host`` it runs on; none for a supervisor."""
    node: str = Field(default=LOCAL, min_length=1)
    """``local``: the node of the supervisor. ``any``: a ready node of the cluster. Otherwise the name of a node."""
    labels: dict[str, PlainText] = Field(default_factory=dict)
    """Only nodes with all of these labels; ``node`` is left out, or ``any``, then."""
    input: list[Any] = Field(default_factory=list)
    """Arguments of the process; those given to ``supervisor.start_child`` follow them."""
    restart: Literal["permanent", "transient", "temporary"] = "permanent"
    """Which ends call for a restart: every end, an end with an error, none."""
    shutdown: Shutdown | None = None
    """How long it may take to end after CANCEL, before it is killed; ``kill``: it is killed at once; ``infinity``: as
    long as it takes. ``5s`` for a process, ``infinity`` for a supervisor."""
    significant: bool = False
    """Its end for good counts for ``auto_shutdown``; not for a permanent child."""

    @model_validator(mode="after")
    def _fits_together(self) -> Template:
        if self.significant and self.restart == "permanent":
            raise ValueError("a permanent child never ends for good; significant needs restart: transient or temporary")
        if self.labels and self.node not in (LOCAL, ANY):
            raise ValueError(f"expected labels or the name of a node, got both (node: {self.node})")
        if self.labels and self.node == LOCAL and "node" in self.model_fields_set:
            raise ValueError(
                "labels choose among all nodes, node: local is the one of the supervisor; leave out node, or labels"
            )
        return self

    @property
    def is_placed(self) -> bool:
        """Whether it may run on another node than its supervisor."""
        return self.node != LOCAL or bool(self.labels)


class Child(Template):
    """One child, started in the order of the list and stopped in reverse."""

    id: str = Field(min_length=1, max_length=200)
    """Its name among the children."""


class ProcessSupervisor(KindModel):
    """Starts its children in order and restarts them by its strategy. Not to be confused with the restarts of one
    ``process.service``, which stands alone."""

    strategy: Literal["one_for_one", "one_for_all", "rest_for_one", "dynamic"] = "one_for_one"
    """What the end of a child means for the others; ``dynamic``: children come at run time, from ``template``."""
    intensity: Int = Field(default=3, ge=0, le=1_000_000)
    """More restarts than this within ``period`` end the supervisor itself."""
    period: PositiveDuration = timedelta(seconds=5)
    """The time in which restarts are counted."""
    auto_shutdown: Literal["never", "any_significant", "all_significant"] = "never"
    """Whether the supervisor ends when one, or the last, of its significant children ended for good."""
    backoff: Backoff = Backoff()
    """Waits before restarts."""
    duplicates: Literal["forbidden", "allowed"] = "forbidden"
    """``forbidden``: a child on a node that can't be reached is started elsewhere only when its end is certain.
    ``allowed``: at once, and it may run twice for a while."""
    children: list[Child] = Field(default_factory=list)
    """The children."""
    template: Template | None = None
    """What the children of a dynamic supervisor are made from."""
    lifecycle: Lifecycle = Lifecycle()
    """When the supervisor itself starts, stops and is started again; without ``auto_start`` it runs only as the child
    of another, or when a process spawns it."""
    placement: Placement = Placement()
    """On which nodes it runs, when it starts by itself."""

    @model_validator(mode="after")
    def _children_fit_the_strategy(self) -> ProcessSupervisor:
        if self.strategy == "dynamic" and (self.children or self.template is None):
            raise ValueError("strategy dynamic needs a template and no children: they come at run time")
        if self.strategy != "dynamic" and self.template is not None:
            raise ValueError(f"template needs strategy: dynamic, got {self.strategy}")
        if self.lifecycle.handover == "start-first":
            raise ValueError("handover: start-first is for process.service; a supervisor stops with its children first")
        ids = [child.id for child in self.children]
        if twice := sorted({id for id in ids if ids.count(id) > 1}):
            raise ValueError(f"two children are named {twice[0]!r}")
        if self.auto_shutdown == "never" and any(made.significant for made in self.made()):
            raise ValueError("significant children need auto_shutdown: any_significant or all_significant")
        return self

    def made(self) -> Iterator[Template]:
        """Its children, or what they are made from."""
        yield from self.children
        if self.template is not None:
            yield self.template

    @property
    def code(self) -> tuple[str, ...]:
        """The entries its children run."""
        return tuple(made.process for made in self.made())

    @property
    def identity(self) -> object:
        """What can't change while it runs: everything can."""
        return self.lifecycle.security


KINDS = (Kind("process.supervisor", ProcessSupervisor),)
