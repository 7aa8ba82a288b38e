"""``process.fence``: the token of the service a process is an instance of, as it is when asked. ``process.move``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from cluster.asking import Declined
from cluster.errors import CallTimeout
from cluster.registry import Entry
from node.modules.contract import Caller, LuaError
from node.modules.permits import MOVE, Permits
from node.modules.process import ProcessModule
from node.query import BadQuery, NotFound

OWNER, OTHER = b"{n1@app:processes|1-1}", b"{n1@app:processes|1-2}"


class Nobody:
    """A VM and its streams, which are not asked."""


def caller(pid: bytes) -> Caller:
    nobody = Nobody()
    return Caller(pid, "app:p", nobody, nobody)  # type: ignore[arg-type]


def test_an_owner_has_the_token_of_now_and_others_an_error() -> None:
    tokens = {OWNER: 41}
    module = module_of(tokens.get)
    assert module.call(caller(OWNER), "fence", []) == [41]
    tokens[OWNER] = 52
    assert module.call(caller(OWNER), "fence", []) == [52]
    with pytest.raises(LuaError, match="owns nothing") as refused:
        module.call(caller(OTHER), "fence", [])
    assert refused.value.kind == "NotFound"


def test_it_has_no_other_function() -> None:
    with pytest.raises(LuaError, match="no function"):
        module_of(lambda pid: 1).call(caller(OWNER), "claim", [])
    with pytest.raises(LuaError, match="wants an answer"):
        module_of(lambda pid: 1).cast(caller(OWNER), "fence", [])


PID, ELSEWHERE = "{n1@app:processes|1-2a}", "{n2@tools.web:processes|1-2a}"


class TestMove:
    def moving(self, told: dict[str, Any] | Exception, allowed: Sequence[str] = ("app",)) -> ProcessModule:
        async def move(pid: str, to: str, within: float) -> dict[str, Any]:
            self.asked = (pid, to)
            if isinstance(told, Exception):
                raise told
            return told

        self.asked: tuple[str, str] | None = None
        return module_of(lambda pid: None, move=move, allowed=allowed)

    @pytest.mark.parametrize("process", [PID, "worker"])
    async def test_gives_the_milliseconds_it_took(self, asking: Any, process: str) -> None:
        asker = await asking(self.moving(told("moved", seconds=0.0124)))
        assert await asker.value("process", "move", process.encode(), b"n2") == 12
        assert self.asked == (PID, "n2")

    async def test_one_that_is_there_already_takes_no_time(self, asking: Any) -> None:
        asker = await asking(self.moving(told("", seconds=0.0)))
        assert await asker.value("process", "move", PID.encode(), b"n2") == 0

    async def test_one_that_stays_is_an_error_that_says_where_it_is(self, asking: Any) -> None:
        asker = await asking(self.moving(told("stayed", "n2 is full")))
        error = await asker.error("process", "move", PID.encode(), b"n2")
        assert (error[b"kind"], error[b"message"]) == (b"Conflict", b"not moved: n2 is full")
        assert error[b"details"] == {b"verdict": b"stayed", b"node": b"n1"}

    @pytest.mark.parametrize(
        ("raised", "kind"),
        [
            (NotFound("no process"), b"NotFound"),
            (BadQuery("no node"), b"Invalid"),
            (CallTimeout("move", 1.0), b"Unavailable"),
            (Declined("NotFound", "no process", "noproc"), b"NotFound"),
        ],
    )
    async def test_what_goes_wrong_is_an_error(self, asking: Any, raised: Exception, kind: bytes) -> None:
        asker = await asking(self.moving(raised))
        assert (await asker.error("process", "move", PID.encode(), b"n2"))[b"kind"] == kind

    @pytest.mark.parametrize(
        ("arguments", "kind"),
        [
            (["nobody", "n2"], b"NotFound"),
            (["{x", "n2"], b"Invalid"),
            ([PID], b"Invalid"),
            ([], b"Invalid"),
            (["{node-1@app:processes|1-1}", "n2"], b"Invalid"),
        ],
    )
    async def test_what_makes_no_sense_is_refused(self, asking: Any, arguments: list[str], kind: bytes) -> None:
        asker = await asking(self.moving(told("moved")))
        error = await asker.error("process", "move", *(one.encode() for one in arguments))
        assert (error[b"kind"], self.asked) == (kind, None)

    @pytest.mark.parametrize("allowed", [(), ("app",), ("tools",), ("tools.*",), ("**",)])
    async def test_the_host_of_the_process_has_to_be_allowed(self, asking: Any, allowed: Sequence[str]) -> None:
        asker = await asking(self.moving(told("moved"), allowed))
        error, _ = await asker.ask("process", "move", ELSEWHERE.encode(), b"n2")
        if allowed in (("tools.*",), ("**",)):
            assert error is None
            return
        assert (error[b"kind"], self.asked) == (b"PermissionDenied", None)
        assert b"programs on app:processes may not move processes on hosts of tools.web" in error[b"message"]
        assert b"processes.move" in error[b"message"]

    async def test_what_the_entry_of_the_callers_host_says_goes_first(self, asking: Any) -> None:
        rule = {"processes": {"move": ["tools.web"]}}
        module = module_of(lambda pid: None, entry=Entry("app:processes", "process.host", {}, rule))
        asker = await asking(module)
        assert (await asker.ask("process", "move", ELSEWHERE.encode(), b"n2"))[0] is None
        error = await asker.error("process", "move", PID.encode(), b"n2")
        assert b"processes.move of the entry app:processes allows tools.web" in error[b"message"]


def told(verdict: str, reason: str = "", seconds: float = 0.0) -> dict[str, Any]:
    return {"pid": PID, "node": "n1", "verdict": verdict, "reason": reason, "seconds": seconds}


def module_of(
    token_of: Callable[[bytes], int | None],
    *,
    move: Callable[[str, str, float], Awaitable[dict[str, Any]]] | None = None,
    allowed: Sequence[str] = (),
    entry: Entry | None = None,
) -> ProcessModule:
    async def moved(pid: str, to: str, within: float) -> dict[str, Any]:
        return told("moved")

    permits = Permits(lambda id: entry, lambda name: None, allowed, MOVE)
    return ProcessModule(token_of, {"worker": PID}.get, move or moved, permits)
