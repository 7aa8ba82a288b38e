from datetime import timedelta

import pytest

from node.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("500ms", 0.5),
        ("1.5s", 1.5),
        ("1h30m", 5400),
        ("2m0.5s", 120.5),
        (".5s", 0.5),
        ("-3s", -3),
        ("7us", 7e-6),
    ],
)
def test_durations_are_read_as_go_writes_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "1 h", "h", "1d", "1s2", "--1s", "1e3s", "99999999999999999999h"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "shown"), [("5400s", "1h30m"), ("90s", "1m30s"), ("1.25s", "1.25s"), ("1500us", "1.5ms"), ("0", "0s")]
)
def test_durations_are_shown_in_the_same_notation(text: str, shown: str) -> None:
    assert format_duration(parse_duration(text)) == shown
