"""``process.fence``: the token of the service a process is an instance of, as it is when asked."""

from __future__ import annotations

import pytest

from node.modules.contract import Caller, LuaError
from node.modules.process import ProcessModule

OWNER, OTHER = b"{n1@app:processes|1-1}", b"{n1@app:processes|1-2}"


class Nobody:
    """A VM and its streams, which are not asked."""


def caller(pid: bytes) -> Caller:
    nobody = Nobody()
    return Caller(pid, "app:p", nobody, nobody)  # type: ignore[arg-type]


def test_an_owner_has_the_token_of_now_and_others_an_error() -> None:
    tokens = {OWNER: 41}
    module = ProcessModule(tokens.get)
    assert module.call(caller(OWNER), "fence", []) == [41]
    tokens[OWNER] = 52
    assert module.call(caller(OWNER), "fence", []) == [52]
    with pytest.raises(LuaError, match="owns nothing") as refused:
        module.call(caller(OTHER), "fence", [])
    assert refused.value.kind == "NotFound"


def test_it_has_no_other_function() -> None:
    with pytest.raises(LuaError, match="no function"):
        ProcessModule(lambda pid: 1).call(caller(OWNER), "claim", [])
    with pytest.raises(LuaError, match="wants an answer"):
        ProcessModule(lambda pid: 1).cast(caller(OWNER), "fence", [])
