"""The JSON shapes, read from bodies good and hostile."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.model import Direction
from monitor.core.wire import (
    WireConnection,
    code_of,
    read_connection,
    read_error,
    read_token,
    read_token_error,
)

E_MAIL = "anna@salon.example"
# The fields of Get Connection's documentation, all of them, and one that is new.
FULL: dict[str, Any] = {
    "id": "4WnvD8QzxhkAjVPBKUCvLIMpbuuUCMID7rYhqOpIGDae9JYyQj0JS71sdJukve86",
    "providerId": "6c533722-f1f9-4847-95c7-d4c4922ae9b0",
    "calendarType": "GOOGLE",
    "scheduleId": "8c1b2f0a-0000-4000-8000-000000000001",
    "userId": "8c1b2f0a-0000-4000-8000-000000000002",
    "appId": "8c1b2f0a-0000-4000-8000-000000000003",
    "externalAccountEmail": E_MAIL,
    "status": "ERROR",
    "errorReason": "TOKEN_REVOKED",
    "syncConfig": {
        "listEventFromCalendars": {
            "calendars": {"calendars": [{"id": "c1", "name": "Primary"}, {"id": "c2", "name": "Birthdays"}]},
            "enabled": True,
        },
        "syncToCalendar": {"dedicatedCalendar": {}, "enabled": False},
    },
    "brandNew": {"deep": [1, {"er": None}]},
}
NOT_JSON = [
    b"",
    b" ",
    b"<html>502 Bad Gateway</html>",
    b'{"connection": {"id": "x"',
    b'{"connection": {"id": "x"}} and more',
    b'\xef\xbb\xbf{"connection": {"id": "x"}}',
    '{"connection": {"id": "x"}}'.encode("utf-16"),
    b"\x1f\x8b\x08\x00",
    b"[" * 100_000,
    b'{"connection": {"id": "x", "brandNew": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
]


def body(value: object) -> bytes:
    return json.dumps(value).encode()


def connection(**fields: object) -> WireConnection:
    found = read_connection(body({"connection": fields}))
    assert found is not None
    return found


def test_the_documented_connection_is_read() -> None:
    found = connection(**FULL)
    assert found.id == FULL["id"]
    assert found.status == "ERROR"
    assert found.error_reason == "TOKEN_REVOKED"
    assert found.calendar_type == "GOOGLE"
    assert found.enabled(Direction.IMPORT) is True
    assert found.enabled(Direction.EXPORT) is False


def test_the_e_mail_address_is_never_read() -> None:
    assert E_MAIL not in repr(connection(**FULL))


def test_absent_and_null_fields_are_alike() -> None:
    nulls = connection(id=None, status=None, errorReason=None, calendarType=None, syncConfig=None)
    assert connection() == nulls == WireConnection()


@pytest.mark.parametrize("wrong", NOT_JSON)
def test_what_is_no_json_is_no_connection_and_no_error_and_no_token(wrong: bytes) -> None:
    assert read_connection(wrong) is None
    assert read_error(wrong) is None
    assert read_token(wrong) is None
    assert read_token_error(wrong) == ""


@pytest.mark.parametrize(
    "shape", [{}, [], None, 5, "text", {"connection": None}, {"connection": []}, {"connection": "x"}]
)
def test_json_without_a_connection_object_holds_none(shape: object) -> None:
    assert read_connection(body(shape)) is None


@pytest.mark.parametrize("field", ["status", "externalAccountEmail", "new\\u0020one"])
def test_a_body_that_is_not_utf_8_is_no_json_whichever_field_it_hurts(field: str) -> None:
    assert read_connection(f'{{"connection": {{"id": "x", "{field}": "Z\xfcrich"}}}}'.encode()) is not None
    assert (
        read_connection(f'{{"connection": {{"id": "x", "{field}": "Z\xfcrich"}}}}'.encode("latin-1")) is None
    )


def test_an_envelope_that_is_not_utf_8_is_no_envelope() -> None:
    assert read_error('{"message": "Z\xfcrich", "details": {}}'.encode("latin-1")) is None


def test_of_a_key_twice_the_last_counts() -> None:
    found = read_connection(b'{"connection": {"id": "x", "status": "SYNCED", "status": "ERROR"}}')
    assert found is not None
    assert found.status == "ERROR"


@pytest.mark.parametrize(
    ("half", "enabled"),
    [
        ({"enabled": True, "primaryCalendar": {}}, True),
        ({"enabled": False}, False),
        ({"enabled": None}, None),
        ({"enabled": "true"}, None),
        ({"enabled": 1}, None),
        ({}, None),
        ([], None),
        ("on", None),
        (None, None),
        (True, None),
    ],
)
def test_a_direction_is_on_or_off_only_by_a_plain_boolean(half: object, enabled: bool | None) -> None:  # noqa: FBT001  the expectation
    found = connection(syncConfig={"listEventFromCalendars": half})
    assert found.enabled(Direction.IMPORT) is enabled
    assert found.enabled(Direction.EXPORT) is None
    found = connection(syncConfig={"syncToCalendar": half})
    assert found.enabled(Direction.EXPORT) is enabled
    assert found.enabled(Direction.IMPORT) is None


@pytest.mark.parametrize("odd", [None, [], "on", 5, True, {}])
def test_an_odd_sync_config_has_no_halves(odd: object) -> None:
    found = connection(syncConfig=odd)
    assert [found.enabled(direction) for direction in Direction] == [None, None]


@pytest.mark.parametrize(
    ("envelope", "code"),
    [
        ({"message": "", "details": {}}, ""),
        (
            {"message": "Entity not found", "details": {"applicationError": {"code": "NOT_FOUND"}}},
            "NOT_FOUND",
        ),
        ({"message": "", "details": {"validationError": {"fieldViolations": []}}}, ""),
        ({"message": "", "details": {"applicationError": None}}, ""),
        ({"message": "", "details": {"applicationError": {"code": 5}}}, ""),
        ({"message": "", "details": {"applicationError": {"code": "two words"}}}, ""),
        ({"message": "", "details": {"applicationError": {}}, "new": 1}, ""),
    ],
)
def test_wixs_error_envelope_is_known_by_its_two_members(envelope: object, code: str) -> None:
    error = read_error(body(envelope))
    assert error is not None
    assert error.code == code


@pytest.mark.parametrize(
    "other",
    [
        {},
        [],
        "Not Found",
        None,
        {"message": "Not Found"},
        {"details": {}},
        {"message": None, "details": {}},
        {"message": "", "details": None},
        {"message": "", "details": []},
        {"message": "", "details": "none"},
        {"error": "not_found"},
    ],
)
def test_other_json_is_no_error_envelope(other: object) -> None:
    assert read_error(body(other)) is None


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("invalid_client", "invalid_client"),
        ("A" * 64, "A" * 64),
        ("A" * 65, ""),
        ("", ""),
        ("no spaces", ""),
        ("line\n", ""),
        ("9LIVES", ""),
        ("\u00c4RGER", ""),
        (None, ""),
        (["invalid_client"], ""),
    ],
)
def test_only_what_looks_like_a_code_is_repeated(value: object, code: str) -> None:
    assert code_of(value) == code


def test_a_granted_token_is_read_and_its_repr_keeps_it_secret() -> None:
    token = read_token(body({"access_token": "OAUTH.canary", "token_type": "Bearer", "expires_in": 14400}))
    assert token is not None
    assert (token.access_token, token.expires_in) == ("OAUTH.canary", 14400)
    assert "canary" not in f"{token!r} {token}"


@pytest.mark.parametrize(
    ("given_", "kept"), [(0.5, 0.5), (86_400, 86_400), (86_401, 86_400), (1e300, 86_400)]
)
def test_a_token_lives_a_day_at_most(given_: float, kept: float) -> None:
    token = read_token(body({"access_token": "t", "expires_in": given_}))
    assert token is not None
    assert token.expires_in == kept


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"access_token": "t"},
        {"expires_in": 14400},
        {"access_token": None, "expires_in": 14400},
        {"access_token": "", "expires_in": 14400},
        {"access_token": " ", "expires_in": 14400},
        {"access_token": "t\r\nwix-site-id: other", "expires_in": 14400},
        {"access_token": "schl\u00fcssel", "expires_in": 14400},
        {"access_token": "t", "expires_in": 0},
        {"access_token": "t", "expires_in": -1},
        {"access_token": "t", "expires_in": "soon"},
        {"access_token": "t", "expires_in": None},
        [],
    ],
)
def test_a_token_that_cannot_be_sent_or_has_no_life_is_none(answer: object) -> None:
    assert read_token(body(answer)) is None


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        ({"error": "invalid_client", "error_description": "no such client"}, "invalid_client"),
        ({"message": "", "details": {"applicationError": {"code": "UNAUTHENTICATED"}}}, "UNAUTHENTICATED"),
        ({"message": "invalid_grant"}, "invalid_grant"),
        ({"message": "Something went wrong"}, ""),
        ({"error": {"code": 5}, "message": "invalid_grant"}, "invalid_grant"),
        ({"error": "has spaces", "details": [], "message": None}, ""),
        ({"details": {"applicationError": "x"}}, ""),
        ({}, ""),
        ([], ""),
    ],
)
def test_a_refusal_is_named_in_either_error_shape(refusal: object, code: str) -> None:
    assert read_token_error(body(refusal)) == code


@given(st.binary(max_size=200))
def test_no_bytes_upset_the_readers(raw: bytes) -> None:
    for wrapped in (raw, b'{"connection": ' + raw + b"}", b'{"message": "", "details": ' + raw + b"}"):
        read_connection(wrapped)
        read_error(wrapped)
        read_token(wrapped)
        read_token_error(wrapped)
