"""Fixtures shared by all tests: real servers, unique cluster names, an etcd client.

``servers`` is one nats-server and one etcd for the whole run; tests that use them keep
apart by ``cluster_name``. A test that stops or kills a server takes ``own_servers``.
A machine without the programs skips these tests and says how to get them; with
WIPPY_NO_SKIPS=1 in the environment every skip is a failure.
"""

from __future__ import annotations

import gc
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import TypeVar

import pytest
import pytest_asyncio
import structlog

from cluster.embedded import EmbeddedServers, ServerMissing, etcd_binary, nats_binary
from cluster.etcd import Etcd

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def pytest_configure() -> None:
    """No garbage collection while test modules are compiled.

    A collection in the middle of it, when weak references of ours call back, can end CPython 3.11 in
    "AST constructor recursion depth mismatch".
    """
    gc.disable()


def pytest_collection_finish() -> None:
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With WIPPY_NO_SKIPS=1 a skipped test has failed."""
    return _without_skips((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself as a whole."""
    return _without_skips((yield))


def _without_skips(report: Report) -> Report:
    if os.environ.get("WIPPY_NO_SKIPS") == "1" and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skips are failures here (WIPPY_NO_SKIPS=1): {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A test that sets up logging sets it up for itself."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


def require(find_binary: Callable[[], object]) -> None:
    """Skip the test when the machine lacks the program, with the remedy."""
    try:
        find_binary()
    except ServerMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def binaries() -> None:
    require(nats_binary)
    require(etcd_binary)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def servers(binaries: None) -> AsyncIterator[EmbeddedServers]:
    """One nats-server and one etcd for the run. Don't stop them: take ``own_servers`` for that."""
    async with EmbeddedServers() as servers:
        yield servers


@pytest_asyncio.fixture
async def own_servers(binaries: None) -> AsyncIterator[EmbeddedServers]:
    """A fresh pair for one test, to stop, kill and restart."""
    async with EmbeddedServers(durable=True) as servers:
        yield servers


@pytest.fixture
def cluster_name() -> str:
    """A cluster of the test's own on the shared servers."""
    return f"test-{secrets.token_hex(5)}"


@pytest_asyncio.fixture
async def etcd(servers: EmbeddedServers) -> AsyncIterator[Etcd]:
    """A client of the shared etcd."""
    async with Etcd([servers.etcd_url]) as client:
        yield client
