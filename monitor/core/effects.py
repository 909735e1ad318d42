"""What may follow from a step: facts to announce, each with its event name, its level and its keys.

The core decides that and what is announced; `monitor.report` only carries it out. An effect's fields are
the keys of its log line.
"""

from datetime import datetime, timedelta
from typing import ClassVar, Literal

import msgspec

from monitor.core.model import CalendarType, Direction, ErrorReason, FailureReason, Status

Level = Literal["debug", "info", "warning", "error"]


class Effect(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A fact worth telling; `event` names it in the log."""

    event: ClassVar[str]
    site: str

    @property
    def level(self) -> Level:
        """How loud the log line is."""
        return "info"


def level_of(status: Status, *, healthy: bool) -> Level:
    """How loud a change to this status is: what stops bookings is an error, other ill health a warning."""
    if status in (Status.ERROR, Status.NOT_FOUND):
        return "error"
    return "info" if healthy else "warning"


class ConnectionFirstSeen(Effect, frozen=True, kw_only=True, gc=False):
    """The first successful poll of a connection: the record that its history begins with."""

    event = "connection_first_seen"
    connection: str
    connection_id: str
    calendar_type: CalendarType
    status: Status
    reason: ErrorReason | None
    healthy: bool
    observed_at: datetime
    transition_id: str

    @property
    def level(self) -> Level:
        """As a transition to that status."""
        return level_of(self.status, healthy=self.healthy)


class Transition(Effect, frozen=True, kw_only=True, gc=False):
    """Status or error reason changed between two successive successful polls: the record we keep.

    `not_before` is the last successful poll before it, set with `observed_late` only where that is more
    than two intervals back: the change happened somewhere in between.
    """

    event = "connection_transition"
    connection: str
    connection_id: str
    calendar_type: CalendarType
    from_status: Status
    from_reason: ErrorReason | None
    to_status: Status
    to_reason: ErrorReason | None
    healthy: bool
    from_since: datetime
    duration: timedelta
    observed_at: datetime
    transition_id: str
    observed_late: bool = False
    not_before: datetime | None = None

    @property
    def level(self) -> Level:
        """Error to ERROR and NOT_FOUND, warning to another unhealthy status, else info."""
        return level_of(self.to_status, healthy=self.healthy)


class SyncSettingsChanged(Effect, frozen=True, kw_only=True, gc=False):
    """Somebody switched a direction of the sync on or off; None: the answer has no such half."""

    event = "connection_sync_settings_changed"
    connection: str
    connection_id: str
    direction: Direction
    was: bool | None
    now: bool | None

    @property
    def level(self) -> Level:
        """A direction that went off is a warning."""
        return "warning" if self.was and not self.now else "info"


class PollsFailing(Effect, frozen=True, kw_only=True, gc=False):
    """The first failure of a row for one connection, while its site answers."""

    event = "connection_polls_failing"
    connection: str
    connection_id: str
    reason: FailureReason
    detail: str
    http_status: int | None
    request_id: str
    failures: int

    @property
    def level(self) -> Level:
        """We went blind on one connection."""
        return "warning"


class PollsRecovered(Effect, frozen=True, kw_only=True, gc=False):
    """The end of a row of failures that was told."""

    event = "connection_polls_recovered"
    connection: str
    connection_id: str
    failures: int


class UnrecognizedValue(Effect, frozen=True, kw_only=True, gc=False):
    """Wix used a word that this version does not know; `value` has 100 characters at most."""

    event = "unrecognized_value"
    connection: str
    connection_id: str
    field: str
    value: str

    @property
    def level(self) -> Level:
        """An upgrade is due."""
        return "warning"


class SiteDown(Effect, frozen=True, kw_only=True, gc=False):
    """Wix does not answer us for this site: its breaker opened, or stays open for another reason."""

    event = "site_down"
    reason: FailureReason
    detail: str
    http_status: int | None
    request_id: str
    since: datetime
    next_trial_at: datetime
    connections: int

    @property
    def level(self) -> Level:
        """A whole site is blind."""
        return "error"


class SiteUp(Effect, frozen=True, kw_only=True, gc=False):
    """Wix answers again for this site: its breaker closed. Reason, status and id are those it was down by."""

    event = "site_up"
    reason: FailureReason
    http_status: int | None
    request_id: str
    since: datetime
    duration: timedelta
    connections: int


class RateLimited(Effect, frozen=True, kw_only=True, gc=False):
    """Wix told the site to wait: the first 429 of a row."""

    event = "rate_limited"
    wait: timedelta
    request_id: str

    @property
    def level(self) -> Level:
        """Somebody spends this site's quota: we, or another tool with the same credential."""
        return "warning"


class RateLimitLifted(Effect, frozen=True, kw_only=True, gc=False):
    """The first success after a row of 429s, which began at `since`."""

    event = "rate_limit_lifted"
    since: datetime
    duration: timedelta


class SecretReplaced(Effect, frozen=True, kw_only=True, gc=False):
    """The file of the site's secret has changed; the new one is used from now on."""

    event = "secret_replaced"
