"""process.registry: names in every scope, and what their callers are told."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.errors import CallTimeout, NameTaken, Unavailable
from cluster.heirs import Inherited
from cluster.names import Registered, Scope
from node.modules.names import NamesModule

OWN, OTHER = b"{node-1@app:processes|1-1}", b"{node-1@app:processes|1-2}"
LEASE = 77


class FakeNames:
    """A table of names in one scope each."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, Scope], tuple[str, int]] = {}
        self.raising: Exception | None = None

    def lookup(self, name: str) -> Registered | None:
        for scope in (Scope.CONSISTENT, Scope.LOCAL):
            if (name, scope) in self.held:
                return Registered(self.held[name, scope][0], 5, scope)
        return None

    async def register(self, name: str, pid: str, scope: Scope, lease: int = 0, timeout: float = 5.0) -> Registered:
        if self.raising is not None:
            raise self.raising
        if self.held.setdefault((name, scope), (pid, lease))[0] != pid:
            raise NameTaken(name, self.held[name, scope][0])
        return Registered(pid, 5, scope)

    async def unregister(self, name: str, pid: str, scope: Scope) -> bool:
        if self.held.get((name, scope), ("",))[0] != pid:
            return False
        del self.held[name, scope]
        return True


@pytest.fixture
def names() -> FakeNames:
    return FakeNames()


@pytest.fixture
async def asker(asking: Any, names: FakeNames) -> Any:
    return await asking(NamesModule(names, "node-1", lambda: LEASE))


class TestRegister:
    async def test_a_process_names_itself_in_the_default_scope(self, asker: Any, names: FakeNames) -> None:
        assert await asker.value("names", "register", b"room") is True
        assert names.held == {("room", Scope.LOCAL): (OWN.decode(), LEASE)}

    async def test_in_a_cluster_the_default_is_consistent(self, asking: Any, names: FakeNames) -> None:
        asker = await asking(NamesModule(names, "node-1", lambda: LEASE, default_scope=Scope.CONSISTENT))
        await asker.value("names", "register", b"room", OWN, None)
        assert names.held == {("room", Scope.CONSISTENT): (OWN.decode(), LEASE)}

    async def test_a_taken_name_already_exists_and_says_by_whom(self, asker: Any) -> None:
        await asker.value("names", "register", b"room", OWN, 2)
        error = await asker.error("names", "register", b"room", OTHER, 2, pid=OTHER)
        assert error[b"kind"] == b"AlreadyExists"
        assert error[b"details"] == {b"by": OWN}

    @pytest.mark.parametrize("inherited", list(Inherited))
    async def test_a_name_of_the_one_it_takes_over_from_is_waited_for(
        self, asking: Any, names: FakeNames, inherited: Inherited
    ) -> None:
        asked: list[tuple[str, str, Scope, str]] = []

        async def inherit(*question: Any) -> Inherited:
            asked.append(question)
            names.held.clear()
            return inherited

        asker = await asking(NamesModule(names, "node-1", lambda: LEASE, inherit=inherit))
        names.held["room", Scope.CONSISTENT] = (OTHER.decode(), LEASE)
        if inherited is Inherited.NO:
            assert (await asker.error("names", "register", b"room", OWN, 2))[b"kind"] == b"AlreadyExists"
        else:
            assert await asker.value("names", "register", b"room", OWN, 2) is True
        assert asked == [(OWN.decode(), "room", Scope.CONSISTENT, OTHER.decode())]
        assert bool(names.held) is (inherited is Inherited.AGAIN), "it is asked for again when it may be free"

    @pytest.mark.parametrize("scope", list(Scope))
    async def test_every_scope_is_served(self, asker: Any, names: FakeNames, scope: Scope) -> None:
        assert await asker.value("names", "register", b"room", OWN, int(scope)) is True
        assert names.held == {("room", scope): (OWN.decode(), LEASE)}

    async def test_a_strong_name_not_seen_everywhere_in_time_is_a_timeout(self, asker: Any, names: FakeNames) -> None:
        names.raising = CallTimeout("waiting for revision 7 on n2", 10)
        error = await asker.error("names", "register", b"room", OWN, int(Scope.STRONG))
        assert error[b"kind"] == b"Timeout"
        assert b"n2" in error[b"message"]

    @pytest.mark.parametrize("scope", [4, -1, True, b"LOCAL", 1.5])
    async def test_what_is_no_scope_is_invalid(self, asker: Any, scope: Any) -> None:
        assert (await asker.error("names", "register", b"room", OWN, scope))[b"kind"] == b"Invalid"

    @pytest.mark.parametrize("name", [b"", b"{node-1@app:processes|1-1}", b"x" * 256, 7, None])
    async def test_what_is_no_name_is_invalid(self, asker: Any, name: Any) -> None:
        assert (await asker.error("names", "register", name))[b"kind"] == b"Invalid"

    @pytest.mark.parametrize("pid", [b"{node-2@app:processes|1-1}", b"no pid"])
    async def test_a_process_elsewhere_is_named_there(self, asker: Any, pid: bytes) -> None:
        assert (await asker.error("names", "register", b"room", pid))[b"kind"] == b"Invalid"

    async def test_where_a_process_is_decides_not_where_it_was_born(self, asking: Any, names: FakeNames) -> None:
        came, left = b"{node-2@app:processes|1-7}", b"{node-1@app:processes|1-8}"
        places = {came.decode(): "node-1", left.decode(): "node-2"}
        asker = await asking(NamesModule(names, "node-1", lambda: LEASE, where=lambda pid: places[pid]))
        assert await asker.value("names", "register", b"room", came) is True
        error = await asker.error("names", "register", b"hall", left)
        assert error[b"kind"] == b"Invalid"
        assert b"lives on node node-2" in error[b"message"]
        assert await asker.value("names", "register", b"own", came, pid=came) is True

    async def test_without_etcd_it_is_unavailable(self, asker: Any, names: FakeNames) -> None:
        names.raising = Unavailable("etcd is away")
        error = await asker.error("names", "register", b"room", OWN, 2)
        assert (error[b"kind"], error[b"retryable"]) == (b"Unavailable", True)


class TestUnregister:
    async def test_only_the_owner_takes_a_name_back(self, asker: Any, names: FakeNames) -> None:
        await asker.value("names", "register", b"room", OWN, 2)
        assert await asker.value("names", "unregister", b"room", None, 2, pid=OTHER) is False
        assert await asker.value("names", "unregister", b"room", None, 2) is True
        assert names.held == {}

    async def test_without_a_scope_it_is_taken_back_wherever_it_is(self, asker: Any, names: FakeNames) -> None:
        await asker.value("names", "register", b"room", OWN, 2)
        assert await asker.value("names", "unregister", b"room") is True
        assert await asker.value("names", "unregister", b"room") is False


async def test_lookup_gives_the_pid_or_not_found(asker: Any) -> None:
    await asker.value("names", "register", b"room")
    assert await asker.value("names", "lookup", b"room") == OWN
    assert (await asker.error("names", "lookup", b"nobody"))[b"kind"] == b"NotFound"
