"""Raw answer in, observation out: the documented table row by row, then everything odd."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.classify import (
    VALUE_LIMIT,
    BreakerEffect,
    Heard,
    breaker_effect,
    classify,
    classify_refusal,
    read_retry_after,
)
from monitor.core.model import (
    Answer,
    CalendarType,
    ErrorReason,
    FailureReason,
    NoAnswer,
    NotFound,
    Observation,
    Observed,
    PollFailed,
    Status,
)

WALL = datetime(2026, 7, 1, 12, tzinfo=UTC)
ID = "4WnvD8QzxhkAjVPBKUCvLIMpbuuUCMID7rYhqOpIGDae9JYyQj0JS71sdJukve86"
ENVELOPE = b'{"message": "", "details": {}}'
PREMIUM = b'{"message": "", "details": {"applicationError": {"code": "PREMIUM_FEATURE_NOT_ENABLED"}}}'
OTHER_CODE = b'{"message": "", "details": {"applicationError": {"code": "PERMISSION_DENIED"}}}'
PAGE = b"<html><body>nginx</body></html>"
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def connection(**fields: object) -> bytes:
    return json.dumps({"connection": {"id": ID, **fields}}).encode()


def read(status: int, body: bytes = b"", retry_after: str = "") -> Observation:
    return classify(Answer(status, body, "req-1", retry_after), ID, WALL)


def observed(**fields: object) -> Observed:
    observation = read(200, connection(**fields))
    assert isinstance(observation, Observed)
    return observation


def reason_of(observation: Observation) -> str:
    return observation.reason.value if isinstance(observation, PollFailed) else type(observation).__name__


# One or more answers for each row of the table: (answer, observation).
ROWS: dict[Heard, list[tuple[Answer | NoAnswer, str]]] = {
    Heard.CONNECTION: [
        (Answer(200, connection()), "Observed"),
        (Answer(200, connection(status="NEW_WORD")), "Observed"),
    ],
    Heard.NO_SUCH_CONNECTION: [(Answer(404, ENVELOPE), "NotFound"), (Answer(404, OTHER_CODE), "NotFound")],
    Heard.UNAUTHORIZED: [(Answer(401, ENVELOPE), "unauthorized"), (Answer(401, PAGE), "unauthorized")],
    Heard.PREMIUM_REQUIRED: [(Answer(403, PREMIUM), "premium_required")],
    Heard.FORBIDDEN: [
        (Answer(403, ENVELOPE), "forbidden"),
        (Answer(403, b""), "forbidden"),
        (Answer(403, OTHER_CODE), "forbidden"),
    ],
    Heard.RATE_LIMITED: [(Answer(429, ENVELOPE), "rate_limited"), (Answer(429, PAGE), "rate_limited")],
    Heard.GATEWAY_404: [
        (Answer(404, PAGE), "bad_response"),
        (Answer(404, b""), "bad_response"),
        (Answer(404, b'{"message": "Not Found"}'), "bad_response"),
        (Answer(404, b'{"error": "not_found"}'), "bad_response"),
        (Answer(404, connection(status="SYNCED")), "bad_response"),
    ],
    Heard.REJECTED: [(Answer(status, OTHER_CODE), "rejected") for status in (400, 402, 409, 418, 428, 499)],
    Heard.SERVER_ERROR: [
        (Answer(status, PAGE), "server_error") for status in (500, 501, 502, 503, 504, 520, 599)
    ],
    Heard.TIMEOUT: [(NoAnswer(FailureReason.TIMEOUT), "timeout")],
    Heard.CONNECT: [(NoAnswer(FailureReason.CONNECT), "connect")],
    Heard.TLS: [(NoAnswer(FailureReason.TLS), "tls")],
    Heard.BAD_RESPONSE: [
        *[
            (Answer(status, connection(status="SYNCED")), "bad_response")
            for status in (100, 201, 202, 203, 204, 206, 301, 302, 304, 307, 308, 600, 999)
        ],
        (Answer(200, b'{"connection": {"id": "other", "status": "SYNCED"}}'), "bad_response"),
        (Answer(200, b'{"connection": {"status": "SYNCED"}}'), "bad_response"),
        (Answer(200, b'{"connection": null}'), "bad_response"),
        (Answer(200, b"{}"), "bad_response"),
        (Answer(200, ENVELOPE), "bad_response"),
        (Answer(200, PAGE), "bad_response"),
        (Answer(200, b""), "bad_response"),
        (NoAnswer(FailureReason.BAD_RESPONSE, "too large", 200), "bad_response"),
    ],
}
REFUSALS = [(status, body) for status in (400, 401, 403) for body in (ENVELOPE, PAGE, PREMIUM, b"")]


def test_every_row_of_the_table_is_tested() -> None:
    assert {*ROWS, Heard.CREDENTIAL_REFUSED} == set(Heard)


@pytest.mark.parametrize(
    ("row", "answer", "expected"),
    [(row, answer, expected) for row, answers in ROWS.items() for answer, expected in answers],
)
def test_an_answer_means_what_its_row_says(row: Heard, answer: Answer | NoAnswer, expected: str) -> None:
    observation = classify(answer, ID, WALL)
    assert reason_of(observation) == expected
    assert expected in (row.reason, "Observed", "NotFound")
    assert breaker_effect(observation) is row.breaker


@pytest.mark.parametrize(("status", "body"), REFUSALS)
def test_the_token_endpoints_refusal_opens_the_breaker(status: int, body: bytes) -> None:
    refusal = classify_refusal(Answer(status, body, "req-1"), WALL)
    assert (refusal.reason, refusal.refused) == (Heard.CREDENTIAL_REFUSED.reason, True)
    assert breaker_effect(refusal) is Heard.CREDENTIAL_REFUSED.breaker is BreakerEffect.OPENS


@pytest.mark.parametrize("reason", list(FailureReason))
def test_every_failure_reason_has_one_effect_and_none_where_another_poll_has_counted_it(
    reason: FailureReason,
) -> None:
    (effect,) = {row.breaker for row in Heard if row.reason is reason} - {BreakerEffect.OPENS}
    assert breaker_effect(PollFailed(reason)) is effect
    assert breaker_effect(PollFailed(reason, shared=True)) is BreakerEffect.NEUTRAL
    assert breaker_effect(PollFailed(reason, refused=True, shared=True)) is BreakerEffect.OPENS


@pytest.mark.parametrize("status", range(100, 600))
def test_every_http_status_is_some_observation_and_only_200_can_be_observed(status: int) -> None:
    observation = read(status, connection(status="SYNCED"))
    assert isinstance(observation, Observed) == (status == 200)
    if isinstance(observation, PollFailed):
        assert (observation.http_status, observation.request_id) == (status, "req-1")
        assert (observation.retry_after is not None) == (status == 429)
        assert not observation.refused


def test_a_failure_carries_what_support_asks_for() -> None:
    assert read(403, PREMIUM) == PollFailed(
        FailureReason.PREMIUM_REQUIRED, "PREMIUM_FEATURE_NOT_ENABLED", 403, "req-1"
    )
    assert read(404, ENVELOPE) == NotFound("req-1")
    missing = NoAnswer(FailureReason.BAD_RESPONSE, "more than 256 KiB", 200, "req-2")
    assert classify(missing, ID, WALL) == PollFailed(
        FailureReason.BAD_RESPONSE, "more than 256 KiB", 200, "req-2"
    )


def test_the_words_of_a_failure_are_ours_or_a_code_never_free_text() -> None:
    leak = b'{"message": "token eyJ", "details": {"applicationError": {"code": "no token eyJ"}}}'
    for status in (200, 302, 400, 401, 403, 404, 429, 500):
        assert "eyJ" not in repr(read(status, leak))


def test_the_premium_code_counts_on_a_403_only() -> None:
    assert reason_of(read(400, PREMIUM)) == "rejected"
    assert reason_of(read(401, PREMIUM)) == "unauthorized"


def test_the_token_endpoints_refusal_is_named_by_the_same_table() -> None:
    refusal = classify_refusal(Answer(429, b"", "req-1", "7"), WALL)
    assert refusal == PollFailed(
        FailureReason.RATE_LIMITED, "token: none given", 429, "req-1", timedelta(seconds=7)
    )
    assert classify_refusal(Answer(503, PAGE), WALL).reason is FailureReason.SERVER_ERROR
    assert classify_refusal(Answer(404, ENVELOPE), WALL).reason is FailureReason.REJECTED


# What a 200 may hold.


def test_the_apple_sample_of_the_documentation_is_observed() -> None:
    assert observed(
        providerId="9f084ae8-b3a6-4eb6-a29d-bc682c04b5fc",
        calendarType="I_CAL",
        scheduleId="a",
        userId="b",
        externalAccountEmail="anna@salon.example",
        status="CONNECTED",
        syncConfig={
            "listEventFromCalendars": {
                "calendars": {"calendars": [{"id": "1", "name": "Home"}]},
                "enabled": True,
            }
        },
    ) == Observed(Status.CONNECTED, None, CalendarType.I_CAL, import_enabled=True)


def test_the_google_sample_of_the_documentation_is_observed() -> None:
    assert observed(
        calendarType="GOOGLE",
        status="SYNCED",
        errorReason="UNDEFINED",
        syncConfig={
            "listEventFromCalendars": {"primaryCalendar": {}, "enabled": True},
            "syncToCalendar": {"primaryCalendar": {}, "enabled": True},
        },
    ) == Observed(Status.SYNCED, None, CalendarType.GOOGLE, import_enabled=True, export_enabled=True)


@pytest.mark.parametrize(
    "word", ["UNDEFINED", "CONNECTED", "SYNC_IN_PROGRESS", "SYNCED", "DISCONNECTED", "ERROR"]
)
def test_wixs_own_status_words_are_known(word: str) -> None:
    assert observed(status=word).status.value == word
    assert observed(status=word).unrecognized == ()


@pytest.mark.parametrize(
    "word",
    ["UNDEFINED", "TOKEN_REVOKED", "EXTERNAL_CALENDAR_CREATION_FAILED", "EXTERNAL_CALENDAR_DELETED"],
)
def test_wixs_own_error_reasons_are_known_and_exist_only_in_error(word: str) -> None:
    assert observed(status="ERROR", errorReason=word) == Observed(Status.ERROR, ErrorReason(word))
    assert observed(status="SYNCED", errorReason=word) == Observed(Status.SYNCED)


@pytest.mark.parametrize(
    ("word", "folded"),
    [
        ("UNDEFINED", CalendarType.UNDEFINED),
        ("GOOGLE", CalendarType.GOOGLE),
        ("I_CAL", CalendarType.I_CAL),
        ("OUTLOOK", CalendarType.MICROSOFT),
        ("OFFICE_365", CalendarType.MICROSOFT),
        ("MICROSOFT", CalendarType.MICROSOFT),
        ("OTHER", CalendarType.OTHER),
    ],
)
def test_wixs_calendar_types_are_known_and_the_deprecated_ones_folded(
    word: str, folded: CalendarType
) -> None:
    assert observed(calendarType=word) == Observed(Status.UNDEFINED, calendar_type=folded)


@pytest.mark.parametrize("nothing", [None, "", "UNDEFINED"])
def test_missing_null_empty_and_undefined_are_alike(nothing: object) -> None:
    assert observed(status=nothing, errorReason=nothing, calendarType=nothing) == observed()
    assert observed(status="ERROR", errorReason=nothing) == Observed(Status.ERROR, ErrorReason.UNDEFINED)
    assert observed(status="ERROR") == Observed(Status.ERROR, ErrorReason.UNDEFINED)


ODD: list[tuple[object, str]] = [
    ("PAUSED", "PAUSED"),
    ("synced", "synced"),
    (" SYNCED", " SYNCED"),
    ("NOT_FOUND", "NOT_FOUND"),
    ("UNRECOGNIZED", "UNRECOGNIZED"),
    ("W" * 300, "W" * VALUE_LIMIT),
    (0, "0"),
    (7, "7"),
    (10**400, "1" + "0" * (VALUE_LIMIT - 1)),
    (True, "True"),
    (False, "False"),
    ([], "an array"),
    (["SYNCED"], "an array"),
    ({"mail": "anna@salon.example"}, "an object"),
    ("anna@salon.example", "an address"),
]


@pytest.mark.parametrize(("odd", "told"), ODD)
def test_an_unknown_status_is_unrecognized_and_told(odd: object, told: str) -> None:
    assert observed(status=odd) == Observed(Status.UNRECOGNIZED, unrecognized=(("status", told),))


@pytest.mark.parametrize(("odd", "told"), ODD)
def test_an_unknown_error_reason_is_unrecognized_and_told(odd: object, told: str) -> None:
    expected = Observed(Status.ERROR, ErrorReason.UNRECOGNIZED, unrecognized=(("errorReason", told),))
    assert observed(status="ERROR", errorReason=odd) == expected


@pytest.mark.parametrize(("odd", "told"), ODD)
def test_an_unknown_calendar_type_is_unrecognized_and_told(odd: object, told: str) -> None:
    expected = Observed(
        Status.SYNCED, calendar_type=CalendarType.UNRECOGNIZED, unrecognized=(("calendarType", told),)
    )
    assert observed(status="SYNCED", calendarType=odd) == expected


def test_several_unknown_words_are_all_told_and_none_hides_the_status() -> None:
    assert observed(status="SYNCED", errorReason="A", calendarType="B") == Observed(
        Status.SYNCED,
        calendar_type=CalendarType.UNRECOGNIZED,
        unrecognized=(("errorReason", "A"), ("calendarType", "B")),
    )


@pytest.mark.parametrize("odd", [None, [], "on", 5, {"listEventFromCalendars": 5, "syncToCalendar": {}}])
def test_an_odd_sync_config_leaves_the_directions_open(odd: object) -> None:
    assert observed(status="SYNCED", syncConfig=odd) == Observed(Status.SYNCED)


@pytest.mark.parametrize("id_", [None, 5, "", ID.lower(), ID + " ", [ID]])
def test_an_answer_for_another_id_is_never_booked(id_: object) -> None:
    body = json.dumps({"connection": {"id": id_, "status": "SYNCED"}}).encode()
    assert reason_of(read(200, body)) == "bad_response"


def test_of_an_id_twice_the_last_is_compared() -> None:
    twice = f'{{"connection": {{"id": "{ID}", "id": "other"}}}}'.encode()
    assert reason_of(read(200, twice)) == "bad_response"


@pytest.mark.parametrize(
    "number", ["9" * 5000, "1e999", "-1e999", "[" * 100_000 + "]" * 100_000], ids=lambda text: text[:6]
)
def test_a_value_beyond_what_the_decoder_holds_is_a_bad_response_not_an_error(number: str) -> None:
    read_field = f'{{"connection": {{"id": "{ID}", "status": {number}}}}}'.encode()
    assert reason_of(read(200, read_field)) == "bad_response"


@pytest.mark.parametrize("number", ["9" * 5000, "1e999", "[" * 500 + "]" * 500], ids=lambda text: text[:6])
def test_such_a_value_in_a_field_we_do_not_read_is_skipped(number: str) -> None:
    other_field = f'{{"connection": {{"id": "{ID}", "status": "SYNCED", "new": {number}}}}}'.encode()
    assert read(200, other_field) == Observed(Status.SYNCED)


anything: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from([ID, *Status, *ErrorReason, *CalendarType, "OUTLOOK"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = ["id", "status", "errorReason", "calendarType", "syncConfig", "externalAccountEmail"]


@given(st.integers(100, 999), st.binary(max_size=100), st.text(max_size=40))
def test_arbitrary_bytes_never_raise(status: int, body: bytes, retry_after: str) -> None:
    for wrapped in (body, b'{"connection": {"status": ' + body + b"}}"):
        assert isinstance(read(status, wrapped, retry_after), Observed | NotFound | PollFailed)


@given(st.integers(100, 999), anything, st.text(max_size=40))
def test_arbitrary_json_never_raises(status: int, value: object, retry_after: str) -> None:
    body = json.dumps(value).encode()
    assert isinstance(read(status, body, retry_after), Observed | NotFound | PollFailed)


@given(st.dictionaries(st.sampled_from(FIELDS[1:]), anything))
def test_whatever_the_fields_hold_a_connection_of_the_asked_id_is_observed(fields: dict[str, Any]) -> None:
    seen = observed(**fields)
    assert (seen.reason is not None) == (seen.status is Status.ERROR)
    assert seen.status is not Status.NOT_FOUND
    assert all(len(value) <= VALUE_LIMIT for _, value in seen.unrecognized)
    told = {field for field, _ in seen.unrecognized}
    assert (seen.status is Status.UNRECOGNIZED) == ("status" in told)
    assert (seen.calendar_type is CalendarType.UNRECOGNIZED) == ("calendarType" in told)


# Retry-After.


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("0", timedelta(seconds=1)),  # the next 429 would come at once
        ("7", timedelta(seconds=7)),
        (" 7 ", timedelta(seconds=7)),
        ("007", timedelta(seconds=7)),
        ("000000000000000120", timedelta(minutes=2)),
        ("3600", HOUR),
        ("3601", HOUR),
        ("9" * 400, HOUR),
        ("Wed, 01 Jul 2026 12:00:30 GMT", timedelta(seconds=30)),
        ("Wed, 01 Jul 2026 14:00:30 +0200", timedelta(seconds=30)),
        ("Wednesday, 01-Jul-26 12:00:30 GMT", timedelta(seconds=30)),  # RFC 850
        ("Wed Jul  1 12:00:30 2026", timedelta(seconds=30)),  # asctime
        ("Wed, 01 Jul 2026 12:00:30 -0000", timedelta(seconds=30)),
        ("Wed, 01 Jul 2026 11:59:59 GMT", timedelta(seconds=1)),
        ("Thu, 01 Jan 1970 00:00:00 GMT", timedelta(seconds=1)),
        ("Wed, 01 Jul 2027 12:00:00 GMT", HOUR),
        ("Fri, 31 Dec 9999 23:59:59 -2359", HOUR),
        ("Mon, 01 Jan 0001 00:00:00 +2359", timedelta(seconds=1)),
    ],
)
def test_a_retry_after_is_read_in_either_form(text: str, wait: timedelta) -> None:
    assert read_retry_after(text, WALL) == wait


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-1",
        "+5",
        "1.5",
        "1e3",
        "nan",
        "soon",
        "5 s",
        "\u0663",
        "\u00b2",
        "\x00",
        "Wed, 99 Jul 2026 12:00:30 GMT",
        "Wed, 01 Jul 99999999999999999999 12:00:30 GMT",
        "Wed, 01 Jul 2026 12:00:30 +9999",
        "Wed, 01 Jul 2026 12:00:30 +" + "9" * 30,
    ],
)
def test_a_retry_after_that_is_neither_means_a_minute(text: str) -> None:
    assert read_retry_after(text, WALL) == MINUTE


def test_a_429_without_a_retry_after_waits_a_minute_and_one_with_it_as_told() -> None:
    plain, told = read(429), read(429, retry_after="Wed, 01 Jul 2026 12:05:00 GMT")
    assert isinstance(plain, PollFailed)
    assert isinstance(told, PollFailed)
    assert (plain.retry_after, told.retry_after) == (MINUTE, timedelta(minutes=5))


date_words = st.sampled_from(
    [
        "Wed",
        ",",
        " ",
        "01",
        "Jul",
        "2026",
        "12:00:30",
        "GMT",
        "+0200",
        "-",
        ":",
        ".",
        "9" * 25,
        "0",
        "PM",
        "(",
        ")",
    ]
)


@given(
    st.text(max_size=60) | st.lists(date_words, max_size=12).map(" ".join) | st.lists(date_words).map("".join)
)
def test_no_retry_after_raises_and_each_lies_between_a_second_and_an_hour(text: str) -> None:
    assert timedelta(seconds=1) <= read_retry_after(text, WALL) <= HOUR


@given(st.integers(-(10**6), 10**6))
def test_seconds_and_the_date_they_lead_to_mean_the_same(seconds: int) -> None:
    date = format_datetime(WALL + timedelta(seconds=seconds), usegmt=True)
    expected = timedelta(seconds=min(max(seconds, 1), 3600))
    assert read_retry_after(date, WALL) == expected
    if seconds >= 0:
        assert read_retry_after(str(seconds), WALL) == expected
