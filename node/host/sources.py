"""The Lua text a VM is made of: the kernel's files in their order, and the modules' Lua halves.

The kernel's own modules are trusted and run as they are. The other halves get yield points
like any user code: they work on data of users and must not hold up the VM.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources

from node.lua.dialect import transform

KERNEL_FILES = (
    "errors",
    "limits",
    "values",
    "turns",
    "codec",
    "guards",
    "arguments",
    "pattern_items",
    "pattern_costs",
    "pattern_matcher",
    "pattern_replacing",
    "patterns",
    "strings",
    "tables",
    "ostime",
    "libraries",
    "channels",
    "timers",
    "mailbox",
    "operations",
    "code",
    "clocks",
    "views",
    "types",
    "subscriptions",
    "sandbox",
    "sendorder",
    "processes",
    "places",
    "signals",
    "congestion",
    "delivery",
    "names",
    "workers",
    "spawning",
    "stopping",
    "luggage",
    "moving",
    "weights",
    "queries",
    "tracing",
    "memory",
    "garbage",
    "sentry",
    "intake",
    "kernel",
)
"""A file sees what the ones before it offer; what comes later it may only use when it runs."""

KERNEL_MODULES = ("channel", "coroutine", "ctx", "errors", "funcs", "logger", "payload", "process")
"""Modules made of the kernel itself."""

PLAIN_MODULES = ("json", "time")
"""Modules that come with the kernel and need nothing of it."""


@cache
def read_kernel() -> tuple[tuple[bytes, bytes], ...]:
    """(name, text) of the kernel's files, in the order they are run."""
    folder = resources.files("node.lua.kernel")
    return tuple((name.encode(), folder.joinpath(f"{name}.lua").read_bytes()) for name in KERNEL_FILES)


@cache
def read_boot() -> bytes:
    """The chunk that makes the kernel of its files."""
    return resources.files("node.lua.kernel").joinpath("boot.lua").read_bytes()


@cache
def read_modules() -> Mapping[str, bytes]:
    """The text of the modules every VM has."""
    folder = resources.files("node.modules")
    texts = {name: folder.joinpath(f"{name}.lua").read_bytes() for name in KERNEL_MODULES}
    for name in PLAIN_MODULES:
        texts[name] = with_points(name, folder.joinpath(f"{name}.lua").read_text(encoding="utf-8"))
    return texts


@cache
def with_points(name: str, source: str) -> bytes:
    """A Lua half with yield points. Raises LuaSyntaxError."""
    return transform(source, f"module/{name}").encode("utf-8", "surrogateescape")
