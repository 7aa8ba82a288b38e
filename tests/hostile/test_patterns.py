"""Pattern calls made to hang: whatever the pattern and the text, a call gives way or ends within 100 ms of CPU time.

Each call is made on the guarded functions in a bare VM and watched: the longest stretch between two chances for
others is what a VM would stand still for. Looking for one match in up to a megabyte must end altogether within that
time; replacing many and going over more may take longer, like a loop.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any

import pytest

from tests.barepatterns import bare_lua, load_patterns

MEGABYTE = 1_000_000
LIMIT = 0.1
TRIES = 4
"""A time is the least of so many: what else runs on the machine slows a call down, nothing speeds it up."""

CALLS = b"""
    local make, charge = ...
    local G = make({ charge = charge })
    local function each(subject, pattern) return G.gmatch(subject, pattern)() end
    local function every(subject, pattern)
        local count = 0
        for _ in G.gmatch(subject, pattern) do
            charge()
            count = count + 1
            if count > 300 then break end
        end
    end
    local calls = {
        find = G.find,
        match = G.match,
        gmatch = each,
        gmatch_all = every,
        gsub = function(subject, pattern) return G.gsub(subject, pattern, "") end,
        gsub_references = function(subject, pattern) return G.gsub(subject, pattern, "%0-%0") end,
        gsub_function = function(subject, pattern) return G.gsub(subject, pattern, function() end) end,
        gsub_table = function(subject, pattern) return G.gsub(subject, pattern, { a = "b" }) end,
        plain = function(subject, pattern) return G.find(subject, pattern, 1, true) end,
    }
    return function(name, subject, pattern)
        local ok, problem = pcall(calls[name], subject, pattern)
        return ok, ok and "" or tostring(problem)
    end
"""
ONE_MATCH = ("find", "match", "gmatch", "plain")
ALL = (*ONE_MATCH, "gmatch_all", "gsub", "gsub_references", "gsub_function", "gsub_table")
REFUSALS = (
    "too costly",
    "malformed pattern",
    "pattern too complex",
    "is over the limit of",
    "too large",
    "capture index",
)


def must_end(name: str, subject: bytes) -> bool:
    return name in ONE_MATCH and len(subject) <= MEGABYTE + 2


@dataclass(frozen=True, slots=True)
class Took:
    longest: float
    total: float
    problem: str


class Watched:
    """The guarded functions, and how long they keep others from running."""

    def __init__(self) -> None:
        self.lua = bare_lua()
        self._last = self._longest = 0.0
        self._call: Any = self.lua.execute(CALLS, load_patterns(self.lua), self._charge)

    def _charge(self, *_: object) -> None:
        now = time.thread_time()
        self._longest = max(self._longest, now - self._last)
        self._last = now

    def call(self, name: str, subject: bytes, pattern: bytes) -> Took:
        took = self._once(name, subject, pattern)
        for _ in range(TRIES - 1):
            if took.longest < LIMIT and (took.total < LIMIT or not must_end(name, subject)):
                break
            again = self._once(name, subject, pattern)
            took = Took(min(took.longest, again.longest), min(took.total, again.total), again.problem)
        return took

    def _once(self, name: str, subject: bytes, pattern: bytes) -> Took:
        began = self._last = time.thread_time()
        self._longest = 0.0
        _, problem = self._call(name.encode(), subject, pattern)
        self._charge()
        return Took(self._longest, self._last - began, problem.decode("latin-1"))


@pytest.fixture(scope="module")
def watched() -> Watched:
    return Watched()


def check(watched: Watched, name: str, subject: bytes, pattern: bytes) -> None:
    took = watched.call(name, subject, pattern)
    about = f"{name}({subject[:12]!r}... of {len(subject)}, {pattern[:80]!r}): {took}"
    assert took.longest < LIMIT, about
    assert not must_end(name, subject) or took.total < LIMIT, about
    assert not took.problem or any(text in took.problem for text in REFUSALS), about


BLOW_UPS: dict[str, tuple[bytes, bytes]] = {
    "lazy repetitions in a row": (b"a" * 400, b".-" * 8 + b"b"),
    "greedy repetitions in a row": (b"a" * 400, b"a*" * 20 + b"b"),
    "as many as there may be": (b"a" * 1000, b"a*" * 190 + b"b"),
    "more than there may be": (b"a" * 1000, b"a*" * 1000 + b"b"),
    "optional items": (b"a" * 40, b"a?" * 40 + b"a" * 41),
    "optional items on a long text": (b"a" * MEGABYTE, b"a?" * 60 + b"b"),
    "unbalanced brackets": (b"(" * MEGABYTE, b"%b()"),
    "unbalanced brackets within repetitions": (b"(" * 100_000, b".-%b()"),
    "spaces before no end": (b" " * MEGABYTE + b"x", b"%s+$"),
    "trimming": (b"x" + b" " * MEGABYTE + b"x", b"^%s*(.-)%s*$"),
    "a back reference": (b"a" * MEGABYTE, b"(a+)%1b"),
    "two back references": (b"ab" * 200_000, b"(.*)(.*)%1%2c"),
    "captures that repeat": (b"a" * MEGABYTE, b"(a*)(a*)(a*)b"),
    "all captures there may be": (b"a" * MEGABYTE, b"(a-)" * 32 + b"b"),
    "a class of many members": (b"a" * MEGABYTE, b"[" + bytes(range(98, 122)) * 80 + b"]*b"),
    "many classes": (b"a" * MEGABYTE, b"".join(b"[ab%c]*" % code for code in range(65, 91)) + b"!"),
    "a frontier with a wide class": (b"a " * 500_000, b"%f[" + b"bcdefg" * 300 + b"]x"),
    "a frontier everywhere": (b"a " * 500_000, b"%f[%w]%w+%f[%z]"),
    "a long pattern": (b"a" * MEGABYTE, b"a" * 2000 + b".?b"),
    "a longer pattern": (b"a" * MEGABYTE, b"." * 100_000),
    "a long plain pattern": (b"a" * MEGABYTE, b"a" * 60_000 + b"b"),
    "half of the text sought in it": (b"a" * MEGABYTE, b"a" * 500_000 + b"b"),
    "matches of nothing": (b"a" * MEGABYTE, b"b*"),
    "a match for every byte": (b"a" * MEGABYTE, b"."),
    "positions": (b"a" * MEGABYTE, b"()a()"),
    "anything twice": (b"a" * MEGABYTE, b"^.*.*b"),
    "anything, lazily": (b"a" * MEGABYTE, b"^(.-)(.-)(.-)$x"),
    "words without an end": (b"a" * MEGABYTE, b"(%w+)=(%w+)"),
    "a line that does not end": (b"a" * MEGABYTE, b"(.-)\n"),
    "many megabytes": (b"a" * 8 * MEGABYTE, b"[%s%d]x"),
    "many megabytes of spaces": (b" " * 8 * MEGABYTE, b"^%s*(.-)%s*$"),
}


@pytest.mark.parametrize("what", BLOW_UPS)
def test_no_known_blow_up_keeps_others_waiting(watched: Watched, what: str) -> None:
    subject, pattern = BLOW_UPS[what]
    for name in ALL:
        check(watched, name, subject, pattern)


CLASSES = [b"a", b"b", b".", b"%a", b"%s", b"[ab]", b"[^a]", b"[^%s]", b"%w", b"[a-c%d]", b"%W", b"x", b"[^x]", b"%p"]
WIDE = [b"[" + b"xyzw1234" * 30 + b"a]", b"[" + b"a-bc-d" * 40 + b"]"]
WHOLE = [b"%b()", b"%bab", b"%baa", b"%f[a]", b"%f[^a]", b"()"]
UNITS = [b"a", b"ab", b"a ", b"hello world ", b"(", b"()", b"aaab", b"x", b"a=b\n", b"a" * 50 + b" ", b"((((a))))"]


def random_item(chance: random.Random) -> bytes:
    kind = chance.random()
    if kind < 0.06:
        return chance.choice(WHOLE)
    if kind < 0.16:
        return b"(" + random_item(chance) + random_item(chance) + b")"
    return chance.choice(CLASSES + WIDE) + chance.choice([b"", b"", b"*", b"*", b"+", b"-", b"-", b"?"])


def random_pattern(chance: random.Random) -> bytes:
    pattern = b"".join(random_item(chance) for _ in range(chance.choice([1, 2, 3, 4, 6, 10, 30, 80])))
    if chance.random() < 0.2:
        pattern = b"(" + pattern + b")" + chance.choice([b"%1", b"%1*x", b"%1%1b"])
    return chance.choice([b"", b"", b"", b"^"]) + pattern + chance.choice([b"", b"", b"$", b"b", b"x"])


def random_subject(chance: random.Random) -> bytes:
    size = chance.choice([10, 100, 1000, 3000, 10_000, 50_000, 200_000, MEGABYTE])
    unit = chance.choice(UNITS)
    return (unit * (size // len(unit) + 1))[:size] + chance.choice([b"", b"b", b"!"])


@pytest.mark.parametrize("seed", range(4))
def test_no_pattern_made_at_random_keeps_others_waiting(watched: Watched, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        subject, pattern = random_subject(chance), random_pattern(chance)
        for name in chance.sample(ALL, 2):
            check(watched, name, subject, pattern)


def test_the_watch_sees_what_keeps_others_waiting(watched: Watched) -> None:
    watched.lua.globals()[b"spin"] = watched.lua.eval(b"function() (('a'):rep(700)):find('a*a*b') end")
    watched._call = watched.lua.eval(b"function() spin() return true, '' end")
    try:
        assert watched._once("find", b"", b"").longest > LIMIT
    finally:
        watched._call = watched.lua.execute(CALLS, load_patterns(watched.lua), watched._charge)
