"""The code of an entry is read and compiled once per VM and version; processes share it, not what it holds."""

from __future__ import annotations

from node.host.boundary import In
from tests.luaworld import World

PROCESSES = 50
FUNCTIONS = 1000


def big_source(answer: int) -> str:
    """Much code in the function that runs, of which nothing is ever made."""
    functions = "\n".join(f"f = function(a) return a + {number} end" for number in range(FUNCTIONS))
    return f"""return {{ main = function()
        process.inbox():receive()
        if never then local f {functions} end
        return {answer}
    end }}"""


def test_code_is_asked_for_once_however_many_processes_run_it(world: World) -> None:
    world.entry("app:big", big_source(1))
    for _ in range(PROCESSES):
        world.spawn("app:big")
    assert world.asked[b"app:big"] == 1


def test_processes_share_the_compiled_code(world: World) -> None:
    world.entry("app:big", big_source(1))
    world.spawn("app:big")
    before = world.kernel.memory
    for _ in range(PROCESSES):
        world.spawn("app:big")
    compiled = 100 * FUNCTIONS  # bytes of the functions' code, at the very least
    assert (world.kernel.memory - before) / PROCESSES < compiled / 2


def test_a_changed_entry_is_asked_for_once_more_and_running_processes_keep_what_they_started_with(world: World) -> None:
    world.entry("app:big", big_source(1))
    old = world.spawn("app:big")
    world.entry("app:big", big_source(2))
    world.run([int(In.CODE_CHANGED), [b"app:big"]])
    new = [world.spawn("app:big") for _ in range(PROCESSES)]
    assert world.asked[b"app:big"] == 2
    world.send(old, "end")
    world.send(new[0], "end")
    assert (world.exit_of(old)[5], world.exit_of(new[0])[5]) == (1, 2)
