"""The vocabulary: one word per thing, as in the README's glossary. All values are frozen.

Moments (`*_at`, `*_since`) are aware UTC on the steady clock of `monitor.clock`; spans are timedeltas.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec


class Word(StrEnum):
    """One word of a vocabulary. Looked up by its text: an enum's own hash is Python code, of a hot path."""

    __hash__ = str.__hash__


class Status(Word):
    """Wix's words for a connection, and two of ours: NOT_FOUND and UNRECOGNIZED.

    Source: the enum `Status` of Get Connection, Wix External Calendar V2.
    """

    UNDEFINED = "UNDEFINED"
    CONNECTED = "CONNECTED"
    SYNC_IN_PROGRESS = "SYNC_IN_PROGRESS"
    SYNCED = "SYNCED"
    DISCONNECTED = "DISCONNECTED"
    ERROR = "ERROR"
    NOT_FOUND = "NOT_FOUND"
    UNRECOGNIZED = "UNRECOGNIZED"


class ErrorReason(Word):
    """Why a connection is in ERROR; UNDEFINED: none was given; UNRECOGNIZED: a word we do not know.

    Source: the enum `ErrorReason` of Get Connection, Wix External Calendar V2.
    """

    UNDEFINED = "UNDEFINED"
    TOKEN_REVOKED = "TOKEN_REVOKED"
    EXTERNAL_CALENDAR_CREATION_FAILED = "EXTERNAL_CALENDAR_CREATION_FAILED"
    EXTERNAL_CALENDAR_DELETED = "EXTERNAL_CALENDAR_DELETED"
    UNRECOGNIZED = "UNRECOGNIZED"


class CalendarType(Word):
    """The provider's kind; Wix's deprecated OUTLOOK and OFFICE_365 are folded to MICROSOFT."""

    UNDEFINED = "UNDEFINED"
    GOOGLE = "GOOGLE"
    I_CAL = "I_CAL"
    MICROSOFT = "MICROSOFT"
    OTHER = "OTHER"
    UNRECOGNIZED = "UNRECOGNIZED"


class Direction(Word):
    """A half of `syncConfig`: import is `listEventFromCalendars`, export is `syncToCalendar`."""

    IMPORT = "import"
    EXPORT = "export"


class FailureReason(Word):
    """Why we could not ask: never a word about the calendar."""

    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    PREMIUM_REQUIRED = "premium_required"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONNECT = "connect"
    TLS = "tls"
    BAD_RESPONSE = "bad_response"
    REJECTED = "rejected"


DEAD: Final = frozenset({Status.NOT_FOUND, Status.DISCONNECTED})
"""What a connection hardly comes back from: reconnecting a calendar makes a new id."""

DEAD_AFTER: Final = timedelta(days=1)
"""How long it must have been so until it may be asked less often."""

HEALTHY_BY_DEFAULT: Final = frozenset({Status.SYNCED, Status.SYNC_IN_PROGRESS, Status.CONNECTED})


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What came back over HTTP, unread. Header names are lower case; `body` was cut at no place."""

    http_status: int
    body: bytes
    request_id: str = ""
    retry_after: str = ""

    def __repr__(self) -> str:
        """Without the body: it may hold a token or somebody's e-mail address."""
        return f"Answer({self.http_status}, {len(self.body)} bytes, request_id={self.request_id!r})"


class NoAnswer(msgspec.Struct, frozen=True, gc=False):
    """No usable answer came: why, and in a few words of ours what happened."""

    reason: FailureReason
    detail: str = ""
    http_status: int | None = None
    request_id: str = ""


class Observed(msgspec.Struct, frozen=True, gc=False):
    """Wix told us the connection's status; `unrecognized` holds (field, value) pairs new to us."""

    status: Status
    reason: ErrorReason | None = None
    calendar_type: CalendarType = CalendarType.UNDEFINED
    import_enabled: bool | None = None
    export_enabled: bool | None = None
    unrecognized: tuple[tuple[str, str], ...] = ()


class NotFound(msgspec.Struct, frozen=True, gc=False):
    """Wix itself said that it knows no such connection."""

    request_id: str = ""


class PollFailed(msgspec.Struct, frozen=True, gc=False):
    """We could not ask.

    `refused`: the token endpoint itself turned our credential down. `shared`: the request that failed was
    another poll's, for which this one waited too.
    """

    reason: FailureReason
    detail: str = ""
    http_status: int | None = None
    request_id: str = ""
    retry_after: timedelta | None = None
    refused: bool = False
    shared: bool = False


Observation = Observed | NotFound | PollFailed


class Policy(msgspec.Struct, frozen=True, gc=False):
    """How a connection is polled and judged. `expected` None means the default.

    `interval` is the site's interval in force; a connection long dead is polled each `dead_every`-th time.
    """

    interval: timedelta
    stale_window: timedelta
    unsettled_interval: timedelta
    not_found_confirmations: int = 2
    expected: frozenset[Status] | None = None
    dead_every: int = 1

    def every(self, status: str | None, since: datetime | None, now: datetime) -> int:
        """At each how many-th interval a connection is polled that has had its status since then."""
        if status not in DEAD or since is None or now - since < DEAD_AFTER or status in (self.expected or ()):
            return 1
        return self.dead_every


class Connection(msgspec.Struct, frozen=True, gc=False):
    """One watched connection: whose it is, what we call it, and how it is judged."""

    site: str
    id: str
    name: str
    policy: Policy
    team: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    maintenance_until: datetime | None = None


class FailureRow(Word):
    """How asking goes: no row of failures, a row nobody was told of, one that was told."""

    NONE = "none"
    UNTOLD = "untold"
    TOLD = "told"


class ConnectionState(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """All we know of one connection. `status` is None until the first successful poll."""

    watched_since: datetime
    status: Status | None = None
    reason: ErrorReason | None = None
    status_since: datetime | None = None
    calendar_type: CalendarType | None = None
    import_enabled: bool | None = None
    export_enabled: bool | None = None
    last_poll_at: datetime | None = None
    last_success_at: datetime | None = None
    last_poll_succeeded: bool | None = None
    not_found_in_a_row: int = 0
    failures_in_a_row: int = 0
    failure_row: FailureRow = FailureRow.NONE
    transitions: int = 0
    unhealthy_for: timedelta = timedelta()

    def is_healthy(self, policy: Policy) -> bool:
        """Whether the status is one of the expected; False before the first."""
        if policy.expected is not None:
            return self.status in policy.expected
        if self.status is Status.CONNECTED:  # "connected, but sync has not started": fine without export
            return not self.export_enabled
        return self.status in HEALTHY_BY_DEFAULT

    def every(self, policy: Policy, now: datetime) -> int:
        """At each how many-th interval the connection is polled."""
        return 1 if policy.dead_every == 1 else policy.every(self.status, self.status_since, now)

    def interval(self, policy: Policy, now: datetime) -> timedelta:
        """The interval in force for this connection."""
        return policy.interval if policy.dead_every == 1 else policy.interval * self.every(policy, now)

    def is_stale(self, policy: Policy, now: datetime) -> bool:
        """Whether our knowledge is too old to pass for the present."""
        window = policy.stale_window if policy.dead_every == 1 else self._stale_window(policy, now)
        return now - (self.last_success_at or self.watched_since) > window

    def is_its_turn(self, policy: Policy, now: datetime) -> bool:
        """Whether this interval's poll is to be made: always, but for a connection long dead."""
        every = self.every(policy, now)
        if every == 1 or self.last_poll_at is None:
            return True
        return now - self.last_poll_at > policy.interval * (every - 0.5)

    def is_unsettled(self, policy: Policy, now: datetime) -> bool:
        """Whether a sooner look is worth a request: just changed, syncing, or a 404 to confirm."""
        if self.status is Status.SYNC_IN_PROGRESS:
            return True
        if 0 < self.not_found_in_a_row < policy.not_found_confirmations:
            return True
        return (
            bool(self.transitions)
            and self.status_since is not None
            and now - self.status_since < policy.interval
        )

    def unhealthy_by(self, policy: Policy, now: datetime) -> timedelta:
        """Time seen unhealthy up to now; blind time past the stale window is not counted as seen."""
        if self.last_success_at is None or self.is_healthy(policy):
            return self.unhealthy_for
        seen = max(now - self.last_success_at, timedelta())
        return self.unhealthy_for + min(seen, self._stale_window(policy, now))

    def _stale_window(self, policy: Policy, now: datetime) -> timedelta:
        return policy.stale_window * self.every(policy, now)
