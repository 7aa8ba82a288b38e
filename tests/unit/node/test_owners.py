"""All that is owned as one: whoever runs for an owner is held to what that owns."""

from __future__ import annotations

from node.lasting import FORMER
from node.owners import Either, Owners

SERVICE, HOLDER, OTHER = b"{n1@app:processes|1-1}", b"{n1@app:processes|1-2}", b"{n1@app:processes|1-3}"
CALLED, CALLED_BY_IT = b"{n1@app:save|1-4}", b"{n1@app:log|1-5}"


class Part:
    """Some processes that own something, and those of them whose lease is over."""

    def __init__(self, *guarded: bytes) -> None:
        self.guarded = set(guarded)
        self.over: set[bytes] = set()
        self.told: list[str] = []

    def may_act(self, pid: bytes) -> bool:
        return pid not in self.over

    def in_doubt(self) -> None:
        self.told.append("in doubt")

    def kill_owned(self) -> None:
        self.told.append("kill")

    def sure(self) -> None:
        self.told.append("sure")

    def owns(self) -> bool:
        return bool(self.guarded)


def test_a_function_that_runs_for_an_owner_may_act_as_long_as_that_may() -> None:
    services, holders = Part(SERVICE), Part(HOLDER)
    owners = Owners(services, holders)
    owners.runs_for(CALLED, SERVICE)
    owners.runs_for(CALLED_BY_IT, CALLED)
    assert {SERVICE, HOLDER, CALLED, CALLED_BY_IT} == set(owners.guarded)
    assert OTHER not in owners.guarded
    assert all(map(owners.may_act, (SERVICE, HOLDER, CALLED, CALLED_BY_IT)))
    services.over.add(SERVICE)
    assert not any(map(owners.may_act, (SERVICE, CALLED, CALLED_BY_IT)))
    assert owners.may_act(HOLDER)
    assert list(owners.line(CALLED_BY_IT)) == [CALLED_BY_IT, CALLED, SERVICE]


def test_what_an_ended_function_left_to_write_is_held_to_it_and_forgotten_in_time() -> None:
    owners = Owners(Part(SERVICE), Part())
    for number in range(FORMER + 5):
        owners.runs_for(b"%d" % number, SERVICE)
        owners.process_ended(b"%d" % number)
    owners.process_ended(OTHER)
    assert list(owners.line(b"%d" % (FORMER + 4))) == [b"%d" % (FORMER + 4), SERVICE]
    assert len(owners.guarded) == FORMER + 1


def test_an_end_that_is_told_twice_is_one() -> None:
    owners = Owners(Part(SERVICE), Part())
    for number in range(FORMER + 5):
        owners.runs_for(b"%d" % number, SERVICE)
        for _ in range(2):
            owners.process_ended(b"%d" % number)
    assert len(owners.guarded) == FORMER + 1


def test_all_parts_are_told_and_names_are_in_doubt_until_the_lease_is_sure() -> None:
    services, holders = Part(), Part()
    in_doubt: list[bool] = []
    owners = Owners(services, holders, names_in_doubt=in_doubt.append)
    owners.in_doubt()
    assert in_doubt == []
    owners.kill_owned()
    owners.sure()
    assert in_doubt == [True, False]
    assert services.told == holders.told == ["in doubt", "kill", "sure"]
    assert not owners.owns()
    holders.guarded.add(HOLDER)
    assert owners.owns()


def test_collections_as_one_say_what_they_hold_now() -> None:
    first, second = {SERVICE}, {SERVICE, HOLDER}
    either = Either(first, second)
    assert (len(either), bool(either), OTHER in either) == (2, True, False)
    first.clear()
    second.clear()
    assert (len(either), bool(either), list(either)) == (0, False, [])
