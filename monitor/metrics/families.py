"""The one table of metric families: README, rules, dashboard and tests are compared with it.

`process_*` and `python_*` are not in it: they are as prometheus_client gives them.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Type(StrEnum):
    """What Prometheus may do with a family's samples."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Group(StrEnum):
    """What a family tells about: one connection, one site, or the monitor itself."""

    CONNECTION = "connection"
    SITE = "site"
    MONITOR = "monitor"


GAUGE, COUNTER, HISTOGRAM = Type
CONNECTION, SITE, MONITOR = Group


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family; `labels` are those every sample has, `absent` says when there is no sample."""

    name: str
    group: Group
    type: Type
    help: str
    labels: tuple[str, ...] = ()
    absent: str = "never"


_CONNECTION: Final = ("site", "connection")
_SITE: Final = ("site",)
_BEFORE_SUCCESS: Final = "before the first successful poll"

FAMILIES: Final = (
    Family(
        "wix_calendar_connection_info",
        CONNECTION,
        GAUGE,
        "What a connection is, as labels, the configured ones too; always 1.",
        labels=(*_CONNECTION, "connection_id", "calendar_type", "team"),
    ),
    Family(
        "wix_calendar_connection_status",
        CONNECTION,
        GAUGE,
        "Whether this is the connection's last known status: 1 for exactly one of the eight, else 0.",
        labels=(*_CONNECTION, "status"),
        absent=_BEFORE_SUCCESS,
    ),
    Family(
        "wix_calendar_connection_error_reason",
        CONNECTION,
        GAUGE,
        "Why the connection is in ERROR; 1 for the present reason, the others are absent.",
        labels=(*_CONNECTION, "reason"),
        absent="unless the status is ERROR",
    ),
    Family(
        "wix_calendar_connection_healthy",
        CONNECTION,
        GAUGE,
        "Whether the status is one of the connection's expected ones.",
        labels=_CONNECTION,
        absent=f"{_BEFORE_SUCCESS}, and while stale",
    ),
    Family(
        "wix_calendar_connection_stale",
        CONNECTION,
        GAUGE,
        "Whether the last successful poll is too old for the status to pass for the present one.",
        labels=_CONNECTION,
    ),
    Family(
        "wix_calendar_connection_maintenance",
        CONNECTION,
        GAUGE,
        "1 while the connection is in maintenance: polled and recorded, its alerts inhibited.",
        labels=_CONNECTION,
        absent="outside maintenance",
    ),
    Family(
        "wix_calendar_connection_status_since_timestamp_seconds",
        CONNECTION,
        GAUGE,
        "When the present status and error reason were first seen; survives restarts.",
        labels=_CONNECTION,
        absent=_BEFORE_SUCCESS,
    ),
    Family(
        "wix_calendar_connection_transitions_total",
        CONNECTION,
        COUNTER,
        "Changes of status or error reason between successive successful polls; survives restarts.",
        labels=_CONNECTION,
    ),
    Family(
        "wix_calendar_connection_unhealthy_seconds_total",
        CONNECTION,
        COUNTER,
        "Time the connection was seen unhealthy; survives restarts.",
        labels=_CONNECTION,
    ),
    Family(
        "wix_calendar_connection_sync_enabled",
        CONNECTION,
        GAUGE,
        "Whether this direction of the sync is switched on, from Wix's syncConfig.",
        labels=(*_CONNECTION, "direction"),
        absent="where Wix's answer has no such half",
    ),
    Family(
        "wix_calendar_connection_poll_success",
        CONNECTION,
        GAUGE,
        "Whether the last poll succeeded; an unconfirmed not-found leaves it as it was.",
        labels=_CONNECTION,
        absent="before the first poll that succeeded or failed",
    ),
    Family(
        "wix_calendar_connection_last_poll_timestamp_seconds",
        CONNECTION,
        GAUGE,
        "When the connection was last polled, successfully or not.",
        labels=_CONNECTION,
        absent="before the first poll",
    ),
    Family(
        "wix_calendar_connection_last_success_timestamp_seconds",
        CONNECTION,
        GAUGE,
        "When the connection was last polled successfully.",
        labels=_CONNECTION,
        absent=_BEFORE_SUCCESS,
    ),
    Family(
        "wix_calendar_connection_poll_interval_seconds",
        CONNECTION,
        GAUGE,
        "The polling interval in force, as planned; breaker and Retry-After do not change it.",
        labels=_CONNECTION,
    ),
    Family(
        "wix_calendar_site_up",
        SITE,
        GAUGE,
        "Whether Wix answers us for this site at all; 0 exactly while its breaker is open.",
        labels=_SITE,
        absent="before the first answer",
    ),
    Family(
        "wix_calendar_site_down_reason",
        SITE,
        GAUGE,
        "Why the site is down; 1 for the present reason, the others are absent.",
        labels=(*_SITE, "reason"),
        absent="unless the site is down",
    ),
    Family(
        "wix_calendar_site_requests_total",
        SITE,
        COUNTER,
        "HTTP requests sent to Wix: polls, retries, trials and tokens.",
        labels=_SITE,
    ),
    Family(
        "wix_calendar_site_request_failures_total",
        SITE,
        COUNTER,
        "HTTP requests to Wix that failed, by reason.",
        labels=(*_SITE, "reason"),
    ),
    Family(
        "wix_calendar_site_rate_limit_requests_per_minute",
        SITE,
        GAUGE,
        "The budget: requests that the site may send in any rolling 60 s.",
        labels=_SITE,
    ),
    Family(
        "wix_calendar_site_throttled_seconds_total",
        SITE,
        COUNTER,
        "Time in which the site's budget or a Retry-After of Wix held requests back.",
        labels=_SITE,
    ),
    Family(
        "wix_calendar_site_polls_waiting",
        SITE,
        GAUGE,
        "Polls that are due and wait for the site's budget, its slots or its token.",
        labels=_SITE,
    ),
    Family(
        "wix_calendar_site_breaker_open",
        SITE,
        GAUGE,
        "Whether single trial polls are sent in place of all polls.",
        labels=_SITE,
    ),
    Family(
        "wix_calendar_site_maintenance",
        SITE,
        GAUGE,
        "1 while the whole site is in maintenance.",
        labels=_SITE,
        absent="outside maintenance",
    ),
    Family(
        "wix_calendar_api_request_duration_seconds",
        MONITOR,
        HISTOGRAM,
        "How long whole HTTP requests to Wix took.",
    ),
    Family(
        "wix_calendar_monitor_poll_lag_seconds",
        MONITOR,
        HISTOGRAM,
        "How long after its due instant a poll was started.",
    ),
    Family(
        "wix_calendar_monitor_polls_missed_total",
        MONITOR,
        COUNTER,
        "Polls that were due and never started; waiting for a breaker or Retry-After is not missed.",
        labels=("reason",),
    ),
    Family(
        "wix_calendar_monitor_last_tick_timestamp_seconds",
        MONITOR,
        GAUGE,
        "When the scheduler last ticked.",
        absent="before the first tick",
    ),
    Family(
        "wix_calendar_monitor_connections",
        MONITOR,
        GAUGE,
        "Connections watched.",
        labels=_SITE,
    ),
    Family(
        "wix_calendar_monitor_unrecognized_values_total",
        MONITOR,
        COUNTER,
        "Words in Wix's answers that this version does not know.",
        labels=("field",),
    ),
    Family(
        "wix_calendar_monitor_config_last_reload_successful",
        MONITOR,
        GAUGE,
        "Whether the last loading of the configuration, the one at start too, succeeded.",
        absent="before the first",
    ),
    Family(
        "wix_calendar_monitor_config_last_reload_success_timestamp_seconds",
        MONITOR,
        GAUGE,
        "When the configuration was last loaded with success.",
        absent="before the first",
    ),
    Family(
        "wix_calendar_monitor_feed_up",
        MONITOR,
        GAUGE,
        "Whether a list of connections could be had from this URL, and used, at the last look.",
        labels=("site", "feed"),
        absent="before the first look, and where there is no feed",
    ),
    Family(
        "wix_calendar_monitor_feed_last_success_timestamp_seconds",
        MONITOR,
        GAUGE,
        "When that was so last.",
        labels=("site", "feed"),
        absent="never since the start",
    ),
    Family(
        "wix_calendar_monitor_store_failures_total",
        MONITOR,
        COUNTER,
        "Times the state store could not be read or written.",
    ),
    Family(
        "wix_calendar_monitor_fenced_writes_total",
        MONITOR,
        COUNTER,
        "States that the store refused to take from this node, as another has taken the connection over.",
        absent="with SQLite",
    ),
    Family(
        "wix_calendar_monitor_lease_held",
        MONITOR,
        GAUGE,
        "Whether this node may poll: its lease is renewed, and the others respect it.",
        absent="with SQLite",
    ),
    Family(
        "wix_calendar_monitor_nodes",
        MONITOR,
        GAUGE,
        "Nodes that live, this one too, as it saw last.",
        absent="with SQLite",
    ),
    Family(
        "wix_calendar_monitor_sites",
        MONITOR,
        GAUGE,
        "Sites, or parts of sites, that this node owns.",
        absent="with SQLite",
    ),
    Family(
        "wix_calendar_monitor_sites_unowned",
        MONITOR,
        GAUGE,
        "Sites, or parts of sites, that no live node owned when this one looked last: nobody polls them.",
        absent="with SQLite",
    ),
    Family(
        "wix_calendar_monitor_build_info",
        MONITOR,
        GAUGE,
        "The version of this program and of its Python; always 1.",
        labels=("version", "python"),
    ),
    Family(
        "wix_calendar_monitor_shard_ordinal",
        MONITOR,
        GAUGE,
        "Which shard of the configuration this process watches, counted from 0.",
    ),
    Family(
        "wix_calendar_monitor_total_shards",
        MONITOR,
        GAUGE,
        "How many shards the configuration is split into.",
    ),
)

BY_NAME: Final = {family.name: family for family in FAMILIES}
