"""Module time: instants, durations, zones and layouts. Python's datetime is the referee of the calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.node.lua.conftest import Vm

NOW = 1735484645123456789  # 2024-12-29T15:04:05.123456789Z


@pytest.fixture(scope="module")
def module() -> Vm:
    vm = Vm()
    vm.lua.globals()[b"make"] = vm.load("node.modules", "time.lua")
    asked = "function(_, _, name) return nil, errors.new({ kind = 'NotFound', message = 'no time zone ' .. name }) end"
    vm.run(f"time = make({{ errors = errors, now_ns = function() return {NOW} end, call = {asked} }})")
    return vm


def text(vm: Vm, expression: str) -> str:
    """The results of an expression, each as Lua shows it."""
    shown = (
        f"local r = table.pack({expression}) for i = 1, r.n do r[i] = tostring(r[i]) end return table.concat(r, ' ')"
    )
    return str(vm.run(shown).decode())


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("time.date(2024, time.DECEMBER, 25, 10, 30, 0, 0, time.utc):format_rfc3339()", "2024-12-25T10:30:00Z"),
        ("time.now():utc():format(time.RFC3339NANO)", "2024-12-29T15:04:05.123456789Z"),
        ("time.unix(1703862245, 500000000):utc():format(time.RFC3339NANO)", "2023-12-29T15:04:05.5Z"),
        ("time.date(2024, 13, 0, 25, 0, 0, -1, time.utc):format(time.RFC3339NANO)", "2025-01-01T00:59:59.999999999Z"),
        ("time.date(2024, 1, 31, 0, 0, 0, 0, time.utc):add_date(0, 1, 0):format(time.DATE_ONLY)", "2024-03-02"),
        (
            "time.date(2024, 1, 15, 12, 0, 0, 0, time.fixed_zone('IST', 19800)):utc():format(time.DATE_TIME)",
            "2024-01-15 06:30:00",
        ),
        ("time.now():utc():date()", "2024 12 29"),
        ("time.now():utc():clock()", "15 4 5"),
        ("time.now():utc():year_day()", "364"),
        ("time.now():utc():weekday() == time.SUNDAY", "true"),
        ("time.now():nanosecond()", "123456789"),
        ("time.now():unix()", "1735484645"),
        ("time.now():unix_nano()", str(NOW)),
        ("time.date(1, 1, 1, 0, 0, 0, 0, time.utc):is_zero()", "true"),
        ("time.now():add('24h'):sub(time.now()):hours()", "24.0"),
        ("time.now():add(-time.HOUR):before(time.now())", "true"),
        ("time.now() < time.now():add(1)", "true"),
        ("time.now() == time.unix(1735484645, 123456789):utc()", "true"),
        ("time.now():location():string()", "Local"),
        ("time.now():in_location(time.fixed_zone('X', 3600)):location():string()", "X"),
        (
            "time.date(9999, 1, 1, 0, 0, 0, 0, time.utc):sub(time.date(1, 1, 1, 0, 0, 0, 0, time.utc)):nanoseconds()",
            str(2**63 - 1),
        ),
    ],
)
def test_an_instant_answers(module: Vm, expression: str, expected: str) -> None:
    assert text(module, expression) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("tostring(t:truncate(d('15m')))", "2024-01-31 10:30:00 +0000 UTC"),
        ("tostring(t:round(d('1h')))", "2024-01-31 11:00:00 +0000 UTC"),
        ("tostring(t:round(d('1s')))", "2024-01-31 10:44:32 +0000 UTC"),
        ("tostring(t:truncate(d('700ms')))", "2024-01-31 10:44:31.4 +0000 UTC"),
        ("tostring(t:truncate(d('0s')))", "2024-01-31 10:44:31.5 +0000 UTC"),
    ],
)
def test_rounding_counts_from_the_year_one(module: Vm, expression: str, expected: str) -> None:
    module.run("t = time.date(2024, 1, 31, 10, 44, 31, 500000000, time.utc) d = time.parse_duration")
    assert text(module, expression) == expected


@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)))
@settings(max_examples=200, deadline=None)
def test_the_calendar_is_pythons(module: Vm, at: datetime) -> None:
    parts = (at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond * 1000)
    seconds = (at.replace(tzinfo=UTC, microsecond=0) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    module.run(f"t = time.date({', '.join(map(str, parts))}, time.utc)")
    assert module.run("return t:unix()") == seconds
    assert module.run("return t:format('2006-01-02T15:04:05.000000')").decode() == at.isoformat(timespec="microseconds")
    assert module.run("return t:weekday(), t:year_day()") == (at.isoweekday() % 7, at.timetuple().tm_yday)
    assert module.run("return t == time.parse(time.RFC3339NANO, t:format(time.RFC3339NANO))") is True


class TestLayouts:
    @pytest.mark.parametrize(
        ("layout", "expected"),
        [
            ("Mon Jan _2 15:04:05.000 2006", "Fri Aug  2 05:06:07.089 2024"),
            ("Monday, 02-Jan-06 03:04:05 PM MST", "Friday, 02-Aug-24 05:06:07 AM EST"),
            ("January 2 2006 3:4:5pm", "August 2 2024 5:6:7am"),
            ("2006-01-02T15:04:05.999999999Z07:00", "2024-08-02T05:06:07.089-05:00"),
            ("-0700 -07:00 -07 Z0700 -07:00:00", "-0500 -05:00 -05 -0500 -05:00:00"),
            ("002 __2 06 1", "215 215 24 8"),
            (".000000 ,999 .00", ".089000 ,089 .08"),
            ("Janet Month _2006", "Janet Month _2024"),
            ("15h04 (at) %d", "05h06 (at) %d"),
        ],
    )
    def test_a_layout_shows_the_reference_instant(self, module: Vm, layout: str, expected: str) -> None:
        module.run("t = time.date(2024, 8, 2, 5, 6, 7, 89000000, time.fixed_zone('EST', -5 * 3600))")
        module.lua.globals()[b"layout"] = layout.encode()
        assert module.run("return t:format(layout)").decode() == expected

    @pytest.mark.parametrize(
        ("layout", "value", "expected"),
        [
            ("time.RFC3339", "2024-12-29T15:04:05Z", "2024-12-29 15:04:05 +0000 UTC"),
            ("time.RFC3339", "2024-12-29T15:04:05.25+05:30", "2024-12-29 15:04:05.25 +0530 +0530"),
            ("time.RFC1123Z", "Mon, 02 Jan 2006 15:04:05 -0700", "2006-01-02 15:04:05 -0700 -07"),
            ("time.KITCHEN", "12:04AM", "0000-01-01 00:04:00 +0000 UTC"),
            ("time.STAMP_MICRO", "Jan  5 01:02:03.000123", "0000-01-05 01:02:03.000123 +0000 UTC"),
            ("'2006-002'", "2024-366", "2024-12-31 00:00:00 +0000 UTC"),
            ("'2006-01-02 15:04:05 MST'", "2024-12-29 14:30:00 EST", "2024-12-29 14:30:00 +0000 EST"),
            ("'2006-01-02 15 MST'", "2024-12-29 14 GMT+3", "2024-12-29 14:00:00 +0300 GMT+3"),
            ("'06 JAN'", "70 JAN", "1970-01-01 00:00:00 +0000 UTC"),
            ("'2 january 2006'", "2 january 2006", "2006-01-02 00:00:00 +0000 UTC"),
        ],
    )
    def test_a_text_is_read_by_its_layout(self, module: Vm, layout: str, value: str, expected: str) -> None:
        assert text(module, f"tostring(time.parse({layout}, '{value}'))") == expected

    @pytest.mark.parametrize(
        ("layout", "value", "reason"),
        [
            ("time.RFC3339", "invalid", '"invalid" does not fit "2006"'),
            ("time.DATE_ONLY", "2023-02-29", "February has no day 29"),
            ("time.DATE_ONLY", "2023-13-01", '"13-01" does not fit "01"'),
            ("time.DATE_ONLY", "2023-01-01x", 'unexpected text "x"'),
            ("time.TIME_ONLY", "25:00:00", '"25:00:00" does not fit "15"'),
            ("time.TIME_ONLY", "10-00-00", 'expected ":"'),
        ],
    )
    def test_a_text_that_does_not_fit_is_invalid(self, module: Vm, layout: str, value: str, reason: str) -> None:
        kind, message = module.run(f"local t, e = time.parse({layout}, '{value}') return e:kind(), e:message()")
        assert kind == b"Invalid"
        assert reason in message.decode()


class TestDurations:
    @pytest.mark.parametrize(
        ("value", "nanoseconds"),
        [
            ("'1h30m'", 5_400_000_000_000),
            ("'2h30m45s500ms'", 9_045_500_000_000),
            ("'-1.5s'", -1_500_000_000),
            ("'2µs'", 2000),
            ("'+.5s'", 500_000_000),
            ("'1.000000001s'", 1_000_000_001),
            ("'0'", 0),
            ("5 * time.MINUTE", 300_000_000_000),
            ("1.9", 1),
            ("-1.9", -1),
            ("time.parse_duration('3ns')", 3),
            ("'2562047h47m16.854775807s'", 2**63 - 1),
        ],
    )
    def test_a_duration_is_read(self, module: Vm, value: str, nanoseconds: int) -> None:
        assert module.run(f"return time.to_ns({value})") == nanoseconds
        assert module.run(f"return time.parse_duration({value}):nanoseconds()") == nanoseconds

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("''", "it is empty"),
            ("'5'", "a number without a unit"),
            ("'s'", "expected a number with a unit"),
            ("'5x'", 'unknown unit "x"'),
            ("'1h 2m'", 'unknown unit "h "'),
            ("'2562047h47m16.854775808s'", "longer than 292 years"),
            ("('9'):rep(30) .. 'h'", "longer than 292 years"),
            ("0/0", "out of range"),
            ("2^63", "out of range"),
            ("{}", "expected a duration (nanoseconds, text or Duration), got table"),
            ("nil", "got nil"),
        ],
    )
    def test_what_is_none_is_invalid(self, module: Vm, value: str, reason: str) -> None:
        for verb in ("to_ns", "parse_duration"):
            kind, message = module.run(f"local d, e = time.{verb}({value}) return e:kind(), e:message()")
            assert kind == b"Invalid"
            assert reason in message.decode()

    @given(st.integers(-(2**63) + 1, 2**63 - 1))
    @settings(max_examples=150, deadline=None)
    def test_its_text_reads_back_as_the_same(self, module: Vm, nanoseconds: int) -> None:
        module.lua.globals()[b"ns"] = nanoseconds
        assert module.run("return time.to_ns(tostring(time.parse_duration(ns)))") == nanoseconds

    def test_units(self, module: Vm) -> None:
        module.run("d = time.parse_duration('1h30m45s500ms')")
        assert module.run("return d:hours(), d:minutes(), d:seconds()") == (
            1.5126388888888889,
            90.75833333333334,
            5445.5,
        )
        assert module.run("return d:milliseconds(), d:microseconds(), d:nanoseconds()") == (
            5_445_500,
            5_445_500_000,
            5_445_500_000_000,
        )
        assert module.run("return time.parse_duration('-1ns'):microseconds()") == 0
        assert module.run("return time.parse_duration('1s') < time.parse_duration('2s')") is True


class TestLocations:
    def test_utc_local_and_offsets_are_known(self, module: Vm) -> None:
        assert text(module, "time.load_location('UTC') == time.utc") == "true"
        assert text(module, "time.load_location('Local') == time.localtz") == "true"
        assert (
            text(module, "time.now():in_location(time.load_location('UTC+02:00')):format('15:04 -07:00')")
            == "17:04 +02:00"
        )

    @pytest.mark.parametrize(("name", "kind"), [("No/Where", b"NotFound"), ("", b"Invalid")])
    def test_others_are_refused_by_name(self, module: Vm, name: str, kind: bytes) -> None:
        found, message = module.run(f"local l, e = time.load_location('{name}') return e:kind(), e:message()")
        assert found == kind
        assert name.encode() in message


class TestMisuse:
    @pytest.mark.parametrize(
        ("code", "message"),
        [
            ("time.now():add('soon')", 'invalid duration "soon"'),
            ("time.now():sub(5)", "sub: expected a Time, got number"),
            ("time.now():round('1h')", "round: expected a Duration"),
            ("time.date('x')", "year: expected a number"),
            ("time.date(1e300, 1, 1)", "year out of range"),
            ("time.now():format()", "format: expected a layout, got nil"),
            ("time.now():in_location({})", "in_location: expected a Location, got table"),
            ("time.parse(1, 2)", "parse: expected a layout and a text"),
            ("time.now().x = 1", "a time can't be changed"),
            ("time.utc.name = 'x'", "a location can't be changed"),
        ],
    )
    def test_it_raises_at_the_callers_line(self, module: Vm, code: str, message: str) -> None:
        error = module.error(f"\n\n{code}")
        assert ":3: " in error
        assert message in error


def test_objects_show_nothing_of_the_inside(module: Vm) -> None:
    for value in ("time.now()", "time.utc", "time.parse_duration('1s')"):
        assert module.run(f"return getmetatable({value})") is False
        assert module.run(f"local o = {value} return o.__index, o.__newindex, o.__metatable") == (None, None, None)


def test_a_shared_location_can_not_be_forged(module: Vm) -> None:
    module.run("rawset(time.utc, 'name', 'Mars') rawset(time.utc, 'offset', 5)")
    assert text(module, "time.unix(0, 0):utc():format('15:04 MST')") == "00:00 UTC"


def test_a_forged_duration_is_no_duration(module: Vm) -> None:
    forged: Any = "local d = time.parse_duration('1s') d._ns = 'x' local ns, e = time.to_ns(d) return e:kind()"
    assert module.run(forged) == b"Invalid"
