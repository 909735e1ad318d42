"""Raw answer in, observation out: the one table of what each answer means for us and for the breaker.

| answer | observation | counts for the breaker |
|---|---|---|
| 200 with a connection object of the asked id | observed | closes it |
| 404 with Wix's JSON envelope | not found | closes it |
| 401 | failed `unauthorized` (the client has renewed and retried once by then) | yes |
| 403 | failed `forbidden`, `premium_required` by its code | yes |
| 429 | failed `rate_limited` | no |
| 5xx | failed `server_error` | yes |
| any other 4xx | failed `rejected` | no |
| everything else: 3xx, other 2xx, another id, no connection, not JSON | failed `bad_response` | no |
| no answer: deadline, network, TLS | failed `timeout`, `connect`, `tls` | yes |

Source: "About Errors" of the Wix API documentation. That a gateway's 404 must not declare calendars gone
is our own caution.
"""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum
from http import HTTPStatus
from typing import Final, TypeVar

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
from monitor.core.wire import WireConnection, read_connection, read_error

VALUE_LIMIT: Final = 100
"""Characters of an unrecognized value that we repeat."""

_DEFAULT_WAIT: Final = timedelta(seconds=60)  # Wix's 429 page: wait a minute, then try again
_LONGEST_WAIT: Final = timedelta(hours=1)  # a server's typo must not blind a site for a year
_PREMIUM_CODE: Final = "PREMIUM_FEATURE_NOT_ENABLED"
_FOLDED_TYPES: Final = {"OUTLOOK": CalendarType.MICROSOFT, "OFFICE_365": CalendarType.MICROSOFT}
_OURS: Final = {"NOT_FOUND", "UNRECOGNIZED"}
_KINDS: Final[dict[type, str]] = {list: "an array", dict: "an object"}  # may hold anything, at any depth

E = TypeVar("E", Status, ErrorReason, CalendarType)


class BreakerEffect(Enum):
    """What an observation means for its site's breaker."""

    CLOSES = "closes"
    COUNTS = "counts"
    NEUTRAL = "neutral"


BREAKER: Final[dict[FailureReason, BreakerEffect]] = {
    FailureReason.UNAUTHORIZED: BreakerEffect.COUNTS,
    FailureReason.FORBIDDEN: BreakerEffect.COUNTS,
    FailureReason.PREMIUM_REQUIRED: BreakerEffect.COUNTS,
    FailureReason.RATE_LIMITED: BreakerEffect.NEUTRAL,
    FailureReason.SERVER_ERROR: BreakerEffect.COUNTS,
    FailureReason.TIMEOUT: BreakerEffect.COUNTS,
    FailureReason.CONNECT: BreakerEffect.COUNTS,
    FailureReason.TLS: BreakerEffect.COUNTS,
    FailureReason.BAD_RESPONSE: BreakerEffect.NEUTRAL,
    FailureReason.REJECTED: BreakerEffect.NEUTRAL,
}

_BY_STATUS: Final[dict[int, FailureReason]] = {
    HTTPStatus.UNAUTHORIZED: FailureReason.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN: FailureReason.FORBIDDEN,
    HTTPStatus.TOO_MANY_REQUESTS: FailureReason.RATE_LIMITED,
}
_BY_CLASS: Final[dict[int, FailureReason]] = {4: FailureReason.REJECTED, 5: FailureReason.SERVER_ERROR}


def breaker_effect(observation: Observation) -> BreakerEffect:
    """What this observation means for its site's breaker."""
    return BREAKER[observation.reason] if isinstance(observation, PollFailed) else BreakerEffect.CLOSES


def classify(answer: Answer | NoAnswer, connection_id: str, wall: datetime) -> Observation:
    """Say what one poll told us. `wall` is the machine's time, for a Retry-After that is a date."""
    if isinstance(answer, NoAnswer):
        return PollFailed(answer.reason, answer.detail, answer.http_status, answer.request_id)
    if answer.http_status == HTTPStatus.OK:
        return _read_200(answer, connection_id)
    if answer.http_status == HTTPStatus.NOT_FOUND:
        if read_error(answer.body) is not None:
            return NotFound(answer.request_id)
        return _failed(answer, FailureReason.BAD_RESPONSE, "a 404 without Wix's error envelope")
    return classify_refusal(answer, wall)


def classify_refusal(answer: Answer, wall: datetime) -> PollFailed:
    """Name the failure in an answer that is neither a 200 nor a 404; the token endpoint's too."""
    error = read_error(answer.body)
    code = error.code if error is not None else ""
    by_class = _BY_CLASS.get(answer.http_status // 100, FailureReason.BAD_RESPONSE)
    reason = _BY_STATUS.get(answer.http_status, by_class)
    if reason is FailureReason.FORBIDDEN and code == _PREMIUM_CODE:
        reason = FailureReason.PREMIUM_REQUIRED
    wait = read_retry_after(answer.retry_after, wall) if reason is FailureReason.RATE_LIMITED else None
    return _failed(answer, reason, code, wait)


def read_retry_after(text: str, wall: datetime) -> timedelta:
    """Read a Retry-After in either form (RFC 9110, 10.2.3): seconds or a date; 60 s where it is neither."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        seconds = int(text.lstrip("0")[:9] or "0")
        return min(timedelta(seconds=seconds), _LONGEST_WAIT)
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the second for a year that no clock can hold
        return _DEFAULT_WAIT
    until = until if until.tzinfo is not None else until.replace(tzinfo=UTC)
    return min(max(until - wall, timedelta()), _LONGEST_WAIT)


def _failed(
    answer: Answer, reason: FailureReason, detail: str = "", retry_after: timedelta | None = None
) -> PollFailed:
    return PollFailed(reason, detail, answer.http_status, answer.request_id, retry_after)


def _read_200(answer: Answer, connection_id: str) -> Observation:
    found = read_connection(answer.body)
    if found is None:
        return _failed(answer, FailureReason.BAD_RESPONSE, "no JSON with a connection in it")
    if found.id != connection_id:  # a mixed-up answer must never be booked to the wrong calendar
        return _failed(answer, FailureReason.BAD_RESPONSE, "a connection of another id")
    return _observed(found)


def _observed(found: WireConnection) -> Observed:
    odd: list[tuple[str, str]] = []
    status = _word(found.status, Status, "status", odd)
    reason = _word(found.error_reason, ErrorReason, "errorReason", odd)
    return Observed(
        status=status,
        reason=reason if status is Status.ERROR else None,
        calendar_type=_calendar_type(found.calendar_type, odd),
        import_enabled=found.enabled(Direction.IMPORT),
        export_enabled=found.enabled(Direction.EXPORT),
        unrecognized=tuple(odd),
    )


def _word(value: object, words: type[E], field: str, odd: list[tuple[str, str]]) -> E:
    if value is None or value == "":
        return words("UNDEFINED")
    if isinstance(value, str) and value not in _OURS:
        try:
            return words(value)
        except ValueError:
            pass
    odd.append((field, _KINDS.get(type(value)) or str(value)[:VALUE_LIMIT]))
    return words("UNRECOGNIZED")


def _calendar_type(value: object, odd: list[tuple[str, str]]) -> CalendarType:
    folded = _FOLDED_TYPES.get(value) if isinstance(value, str) else None
    return folded if folded is not None else _word(value, CalendarType, "calendarType", odd)
