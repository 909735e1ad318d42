"""Raw answer in, observation out: `Heard` is the one table of what each answer means for us and the breaker.

Sources: "About Errors" of the Wix API documentation; for the token endpoint RFC 6749, 5.2. That a gateway's
404 must not declare calendars gone is our own caution.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum
from http import HTTPStatus
from typing import Final, TypeVar

import msgspec

from monitor.core.model import (
    Answer,
    CalendarType,
    Direction,
    ErrorReason,
    FailureReason,
    NoAnswer,
    NotFound,
    Observation,
    Observed,
    PollFailed,
    Status,
)
from monitor.core.wire import WireConnection, read_connection, read_error, read_token_error

VALUE_LIMIT: Final = 100
"""Characters of an unrecognized value that we repeat."""

_DEFAULT_WAIT: Final = timedelta(seconds=60)  # Wix's 429 page: wait a minute, then try again
_SHORTEST_WAIT: Final = timedelta(seconds=1)
_LONGEST_WAIT: Final = timedelta(hours=1)  # a server's typo must not blind a site for a year
_PREMIUM_CODE: Final = "PREMIUM_FEATURE_NOT_ENABLED"
_FOLDED_TYPES: Final = {"OUTLOOK": CalendarType.MICROSOFT, "OFFICE_365": CalendarType.MICROSOFT}
_STATUSES: Final = {word.value: word for word in Status}
_REASONS: Final = {word.value: word for word in ErrorReason}
_TYPES: Final = {word.value: word for word in CalendarType}
_OURS: Final = {"NOT_FOUND", "UNRECOGNIZED"}
_KINDS: Final[dict[type, str]] = {list: "an array", dict: "an object"}  # may hold anything, at any depth

E = TypeVar("E", Status, ErrorReason, CalendarType)


class BreakerEffect(Enum):
    """What an observation means for its site's breaker."""

    CLOSES = "closes it"
    COUNTS = "counts"
    OPENS = "opens it at once"
    NEUTRAL = "nothing"


class Heard(Enum):
    """What can come of asking: in words, the failure that it is (None: a success), and what the breaker does.

    The first row that fits counts. `monitor/wix/README.md` shows this table to operators.
    """

    CONNECTION = "200 with a connection object of the asked id", None, BreakerEffect.CLOSES
    NO_SUCH_CONNECTION = "404 with Wix's JSON envelope", None, BreakerEffect.CLOSES
    CREDENTIAL_REFUSED = (
        "400, 401 or 403 of the token endpoint, or a secret that cannot be read",
        FailureReason.UNAUTHORIZED,
        BreakerEffect.OPENS,
    )
    UNAUTHORIZED = (
        "401, after one renewal of the token and one retry",
        FailureReason.UNAUTHORIZED,
        BreakerEffect.COUNTS,
    )
    PREMIUM_REQUIRED = (
        "403 with the code PREMIUM_FEATURE_NOT_ENABLED",
        FailureReason.PREMIUM_REQUIRED,
        BreakerEffect.COUNTS,
    )
    FORBIDDEN = "any other 403", FailureReason.FORBIDDEN, BreakerEffect.COUNTS
    RATE_LIMITED = "429", FailureReason.RATE_LIMITED, BreakerEffect.NEUTRAL
    GATEWAY_404 = "404 without the envelope", FailureReason.BAD_RESPONSE, BreakerEffect.NEUTRAL
    REJECTED = "any other 4xx", FailureReason.REJECTED, BreakerEffect.NEUTRAL
    SERVER_ERROR = "5xx", FailureReason.SERVER_ERROR, BreakerEffect.COUNTS
    TIMEOUT = "no whole answer before the deadline", FailureReason.TIMEOUT, BreakerEffect.COUNTS
    CONNECT = (
        "no way through: DNS, refused, reset, cut off, unreachable",
        FailureReason.CONNECT,
        BreakerEffect.COUNTS,
    )
    TLS = "no TLS: expired, untrusted, wrong name", FailureReason.TLS, BreakerEffect.COUNTS
    BAD_RESPONSE = (
        "anything else: 3xx, another 2xx, another id, no connection in it, not JSON, too large",
        FailureReason.BAD_RESPONSE,
        BreakerEffect.NEUTRAL,
    )

    def __init__(self, answer: str, reason: FailureReason | None, breaker: BreakerEffect) -> None:
        self.answer = answer
        self.reason = reason
        self.breaker = breaker


_EFFECTS: Final = {row.reason: row.breaker for row in Heard if row.breaker is not BreakerEffect.OPENS}
_BY_STATUS: Final[dict[int, Heard]] = {
    HTTPStatus.UNAUTHORIZED: Heard.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN: Heard.FORBIDDEN,
    HTTPStatus.NOT_FOUND: Heard.GATEWAY_404,
    HTTPStatus.TOO_MANY_REQUESTS: Heard.RATE_LIMITED,
}
_BY_CLASS: Final = {4: Heard.REJECTED, 5: Heard.SERVER_ERROR}
_CREDENTIAL_REFUSED: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


def breaker_effect(observation: Observation) -> BreakerEffect:
    """What this observation means for its site's breaker; a request that failed counts once."""
    if not isinstance(observation, PollFailed):
        return BreakerEffect.CLOSES
    if observation.refused:
        return BreakerEffect.OPENS
    return BreakerEffect.NEUTRAL if observation.shared else _EFFECTS[observation.reason]


def classify(answer: Answer | NoAnswer, connection_id: str, wall: datetime) -> Observation:
    """Say what one poll told us. `wall` is the machine's time, for a Retry-After that is a date."""
    if isinstance(answer, NoAnswer):
        return PollFailed(answer.reason, answer.detail, answer.http_status, answer.request_id)
    if answer.http_status == HTTPStatus.OK:
        return _read_200(answer, connection_id)
    if answer.http_status == HTTPStatus.NOT_FOUND and read_error(answer.body) is not None:
        return NotFound(answer.request_id)
    return _classify_failure(answer, wall)


def classify_refusal(answer: Answer, wall: datetime) -> PollFailed:
    """Say why the token endpoint gave no token: 400, 401 and 403 refuse the credential itself."""
    code = read_token_error(answer.body)
    if answer.http_status not in _CREDENTIAL_REFUSED:
        detail = f"token: {code or 'none given'}"
        return msgspec.structs.replace(_classify_failure(answer, wall), detail=detail)
    return msgspec.structs.replace(
        _failed(answer, Heard.CREDENTIAL_REFUSED, f"token: {code or 'refused'}"), refused=True
    )


def _classify_failure(answer: Answer, wall: datetime) -> PollFailed:
    error = read_error(answer.body)
    code = error.code if error is not None else ""
    by_class = _BY_CLASS.get(answer.http_status // 100, Heard.BAD_RESPONSE)
    row = _BY_STATUS.get(answer.http_status, by_class)
    if row is Heard.GATEWAY_404 and error is not None:  # the token endpoint's: it knows no connections
        row = Heard.REJECTED
    elif row is Heard.GATEWAY_404:
        return _failed(answer, row, "a 404 without Wix's error envelope")
    if row is Heard.FORBIDDEN and code == _PREMIUM_CODE:
        row = Heard.PREMIUM_REQUIRED
    wait = read_retry_after(answer.retry_after, wall) if row is Heard.RATE_LIMITED else None
    return _failed(answer, row, code, wait)


def read_retry_after(text: str, wall: datetime) -> timedelta:
    """Read a Retry-After in either form (RFC 9110, 10.2.3): seconds or a date; 60 s where it is neither.

    From a second to an hour, whatever it says: `0` would bring the next 429 at once.
    """
    return min(max(_read_wait(text.strip(), wall), _SHORTEST_WAIT), _LONGEST_WAIT)


def _read_wait(text: str, wall: datetime) -> timedelta:
    if text.isascii() and text.isdigit():
        return timedelta(seconds=int(text.lstrip("0")[:9] or "0"))
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the second for a year that no clock can hold
        return _DEFAULT_WAIT
    return (until if until.tzinfo is not None else until.replace(tzinfo=UTC)) - wall


def _failed(answer: Answer, row: Heard, detail: str = "", retry_after: timedelta | None = None) -> PollFailed:
    assert row.reason is not None, row  # noqa: S101  a success is no failure
    return PollFailed(row.reason, detail, answer.http_status, answer.request_id, retry_after)


def _read_200(answer: Answer, connection_id: str) -> Observation:
    found = read_connection(answer.body)
    if found is None:
        return _failed(answer, Heard.BAD_RESPONSE, "no JSON with a connection in it")
    if found.id != connection_id:  # a mixed-up answer must never be booked to the wrong calendar
        return _failed(answer, Heard.BAD_RESPONSE, "a connection of another id")
    return _observed(found)


def _observed(found: WireConnection) -> Observed:
    odd: list[tuple[str, str]] = []
    status = _word(found.status, _STATUSES, "status", odd)
    reason = _word(found.error_reason, _REASONS, "errorReason", odd)
    return Observed(
        status=status,
        reason=reason if status is Status.ERROR else None,
        calendar_type=_calendar_type(found.calendar_type, odd),
        import_enabled=found.enabled(Direction.IMPORT),
        export_enabled=found.enabled(Direction.EXPORT),
        unrecognized=tuple(odd),
    )


def _word(value: object, words: Mapping[str, E], field: str, odd: list[tuple[str, str]]) -> E:
    if value is None or value == "":
        return words["UNDEFINED"]
    if isinstance(value, str) and value not in _OURS and value in words:
        return words[value]
    odd.append((field, _repeated(value)))
    return words["UNRECOGNIZED"]


def _repeated(value: object) -> str:
    """It is logged: somebody's address is not."""
    told = _KINDS.get(type(value)) or str(value)
    return "an address" if "@" in told else told[:VALUE_LIMIT]


def _calendar_type(value: object, odd: list[tuple[str, str]]) -> CalendarType:
    folded = _FOLDED_TYPES.get(value) if isinstance(value, str) else None
    return folded if folded is not None else _word(value, _TYPES, "calendarType", odd)
