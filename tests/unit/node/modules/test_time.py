"""Named time zones: what Lua makes of them against Python's zoneinfo."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from node.modules.contract import LuaError
from node.modules.time import FIRST, LAST, TimeModule, zone_changes
from tests.luaworld import World

ZONES = ("America/New_York", "Europe/London", "Asia/Kolkata", "Africa/Casablanca", "Australia/Lord_Howe", "Etc/GMT+5")


@pytest.fixture
def world() -> World:
    world = World()
    world.handlers[b"time", b"zone"] = lambda name: [zone_changes(name.decode())]
    return world


@pytest.mark.parametrize("name", ZONES)
def test_instants_are_shown_as_zoneinfo_shows_them(world: World, name: str) -> None:
    zone, dice = ZoneInfo(name), random.Random(name)
    seconds = [dice.randrange(FIRST, LAST) for _ in range(150)]
    seconds += [at + by for at in zone_changes(name)[b"at"][1:60] for by in (-1, 0)]  # type: ignore[operator]
    shown = world.main(
        f"""local time = require("time")
        local zone, shown = assert(time.load_location("{name}")), {{}}
        for i, at in ipairs(...) do
            shown[i] = time.unix(at, 0):in_location(zone):format("2006-01-02 15:04:05 -07:00:00 MST")
        end
        return shown""",
        seconds,
        modules=["time"],
    )
    assert [text.decode() for text in shown] == [as_zoneinfo_says(zone, at) for at in seconds]


def as_zoneinfo_says(zone: ZoneInfo, at: int) -> str:
    there = datetime.fromtimestamp(at, zone)
    east = int((there.utcoffset() or timedelta()).total_seconds())
    sign, east = ("-", -east) if east < 0 else ("+", east)
    offset = f"{sign}{east // 3600:02d}:{east // 60 % 60:02d}:{east % 60:02d}"
    return f"{there.replace(tzinfo=None).isoformat(' ')} {offset} {there.tzname()}"


def test_a_wall_clock_is_read_in_its_zone_in_summer_and_in_winter(world: World) -> None:
    assert world.main(
        """local time = require("time")
        local ny = time.load_location("America/New_York")
        local winter = time.date(2024, time.JANUARY, 15, 14, 0, 0, 0, ny)
        local summer = time.parse("2006-01-02 15:04", "2024-07-15 14:00", ny)
        local day = time.date(2024, 3, 9, 12, 0, 0, 0, ny):add_date(0, 0, 1)
        return { winter:utc():format_rfc3339(), summer:utc():format_rfc3339(), day:format_rfc3339(), ny:string() }""",
        modules=["time"],
    ) == [b"2024-01-15T19:00:00Z", b"2024-07-15T18:00:00Z", b"2024-03-10T12:00:00-04:00", b"America/New_York"]


def test_a_zone_is_asked_for_once_per_vm(world: World) -> None:
    asked: list[bytes] = []

    def zone(name: bytes) -> list[object]:
        asked.append(name)
        return [zone_changes(name.decode())]

    world.handlers[b"time", b"zone"] = zone
    for _ in range(2):
        body = 'local t = require("time") return t.load_location("Asia/Tokyo") == t.load_location("Asia/Tokyo")'
        assert world.main(body, modules=["time"]) is True
    assert asked == [b"Asia/Tokyo"]


@pytest.mark.parametrize(
    "name", ["No/Where", "../etc/passwd", "/etc/localtime", "", "x" * 300, "Europe", "a\0b", "leapseconds"]
)
def test_what_is_no_zone_is_not_found(name: str) -> None:
    with pytest.raises(LuaError) as caught:
        zone_changes(name)
    assert caught.value.kind == "NotFound"


def test_without_a_database_it_is_unavailable_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.modules.time.available_timezones", set)
    with pytest.raises(LuaError, match="tzdata") as caught:
        zone_changes("No/Zone")
    assert caught.value.kind == "Unavailable"


async def test_the_node_answers_without_holding_up_its_loop(asking: Any) -> None:
    asker = await asking(TimeModule())
    changes = await asker.value("time", "zone", b"Europe/Paris")
    assert len(changes[b"at"]) == len(changes[b"offset"]) == len(changes[b"name"]) > 100
    assert (await asker.error("time", "zone", b"No/Where"))[b"kind"] == b"NotFound"
    assert (await asker.error("time", "zone", 5))[b"kind"] == b"Invalid"
    assert (await asker.error("time", "soon"))[b"kind"] == b"Invalid"
