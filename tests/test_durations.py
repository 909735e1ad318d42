"""Durations as Prometheus writes them, both ways."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.durations import format_age, format_duration, parse_duration

MILLISECONDS = st.integers(0, 10**12).map(lambda n: timedelta(milliseconds=n))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("1m500ms", 60.5),
        ("1d", 86_400),
        ("1w", 604_800),
        ("1y", 31_536_000),
        ("1y2w3d4h5m6s7ms", 31_536_000 + 1_209_600 + 259_200 + 14_400 + 300 + 6.007),
        ("007s", 7),
    ],
)
def test_a_duration_is_whole_numbers_with_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "5",
        "00",
        "s",
        "5 m",
        " 5m",
        "5m ",
        "5m\n",
        "1.5h",
        "-5s",
        "+5s",
        "5M",
        "30m1h",
        "5s5s",
        "5sec",
        "\u0665s",
        "1h-5m",
    ],
)
def test_anything_else_is_none_and_the_message_says_what_one_looks_like(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write for example 90s, 5m or 1h30m"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["99999999999y", "3000000y", "9" * 400 + "ms"])
def test_a_duration_that_no_clock_can_hold_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is longer than any duration can be"):
        parse_duration(text)


@given(MILLISECONDS)
def test_what_is_written_is_read_back(span: timedelta) -> None:
    assert parse_duration(format_duration(span)) == span


@given(st.text("0123456789ywdhms", max_size=12))
def test_no_text_raises_anything_but_value_error(text: str) -> None:
    try:
        span = parse_duration(text)
    except ValueError:
        return
    assert parse_duration(format_duration(span)) == span


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(), "0s"),
        (timedelta(seconds=60), "1m"),
        (timedelta(days=90), "90d"),
        (timedelta(hours=1, minutes=30), "1h30m"),
        (timedelta(seconds=-90), "-1m30s"),
        (timedelta(microseconds=1_400), "1ms"),
        (timedelta(microseconds=1_600), "2ms"),
    ],
)
def test_the_largest_unit_comes_first_and_milliseconds_are_the_finest(span: timedelta, text: str) -> None:
    assert format_duration(span) == text


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(), "0s"),
        (timedelta(seconds=-5), "0s"),
        (timedelta(milliseconds=400), "0s"),
        (timedelta(seconds=59.6), "1m"),
        (timedelta(minutes=2, seconds=5), "2m5s"),
        (timedelta(days=1, hours=23, minutes=59, seconds=59), "1d23h"),
        (timedelta(days=1, minutes=5), "1d5m"),
        (timedelta(days=400), "400d"),
    ],
)
def test_an_age_is_its_two_largest_units_and_never_negative(span: timedelta, text: str) -> None:
    assert format_age(span) == text
