#!/usr/bin/env python3
"""The source of the Grafana dashboard: run it to write the file; `--check` says whether that is up to date.

To change the dashboard, change the panels below and run `python deploy/grafana/build.py` again. It is for
Grafana 10 and later; its queries need the rules of deploy/prometheus/rules.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

TARGET: Final = Path(__file__).with_name("wix-calendar-monitor.json")
UID: Final = "wix-calendar-monitor"
WIDTH: Final = 24
"""Columns of Grafana's grid."""

GREEN, RED, ORANGE, YELLOW, BLUE, PURPLE = "green", "red", "orange", "yellow", "blue", "purple"
GRAY: Final = "#8e8e8e"

Json = dict[str, Any]
Size = tuple[int, int]
"""Columns wide, units high."""
Steps = tuple[tuple[float | None, str], ...]
"""From which value on which colour."""


class Kind(StrEnum):
    """Grafana's names for the kinds of panel that are used here."""

    STAT = "stat"
    TABLE = "table"
    LINES = "timeseries"
    STATES = "state-timeline"


STAT, TABLE, LINES, STATES = Kind


@dataclass(frozen=True, slots=True)
class Query:
    """One expression. `news`: it finds something only while something is wrong, or out of the ordinary."""

    expr: str
    legend: str = ""
    news: bool = False


@dataclass(frozen=True, slots=True)
class Word:
    """What is written in the place of a number, and its colour: never the colour alone."""

    code: int
    text: str
    color: str


Words = tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A table's column: a label, or `Value` (`Value #B` where there are several queries)."""

    field: str
    title: str
    unit: str = ""
    words: Words = ()
    link: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; `empty` is what it says where it finds nothing."""

    title: str
    kind: Kind
    size: Size
    description: str
    queries: tuple[Query, ...]
    unit: str = "none"
    steps: Steps = ()
    words: Words = ()
    columns: tuple[Column, ...] = ()
    sort: tuple[str, ...] = ()
    empty: str = "no data"
    stacked: bool = False
    top: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A heading, and the panels below it from left to right, line after line."""

    title: str
    panels: tuple[Panel, ...]


def stat(
    title: str,
    size: Size,
    description: str,
    *queries: Query,
    unit: str = "none",
    steps: Steps = (),
    words: Words = (),
    empty: str = "no answer",
) -> Panel:
    """The last value, large."""
    return Panel(title, STAT, size, description, queries, unit, steps, words, empty=empty)


def table(
    title: str,
    size: Size,
    description: str,
    *queries: Query,
    columns: tuple[Column, ...],
    sort: tuple[str, ...] = (),
    empty: str,
) -> Panel:
    """One line for each series, sorted by the fields of `sort`, of which the last counts most."""
    return Panel(title, TABLE, size, description, queries, columns=columns, sort=sort, empty=empty)


def lines(
    title: str,
    size: Size,
    description: str,
    *queries: Query,
    unit: str = "none",
    steps: Steps = (),
    stacked: bool = False,
    top: float | None = None,
) -> Panel:
    """Values over time."""
    return Panel(title, LINES, size, description, queries, unit, steps, stacked=stacked, top=top)


def states(title: str, size: Size, description: str, *queries: Query, words: Words) -> Panel:
    """Words over time, a band for each series."""
    return Panel(title, STATES, size, description, queries, words=words)


# ── what is asked ────────────────────────────────────────────────────────────────────────────────────

JOB: Final = '{job="wix-calendar-monitor"}'
ONE: Final = "on (site, connection)"
HEALTHY: Final = "site_connection:wix_calendar_connection_healthy:max"
STALE: Final = "site_connection:wix_calendar_connection_stale:min"
SINCE: Final = "site_connection:wix_calendar_connection_status_since_timestamp_seconds:max"
LAST_ANSWER: Final = "site:wix_calendar_connection_last_success_timestamp_seconds:max"
MAINTAINED: Final = "max by (site, connection) (wix_calendar_connection_maintenance)"
DOWN: Final = "site_reason:wix_calendar_site_down:max"
LIVE: Final = "unless on (job, instance) job_instance:wix_calendar_monitor_cut_off:group"
"""Without what a node shows that has lost its lease while another has one: it is as it was then."""
UNKNOWN: Final = f"({STALE} unless {ONE} {HEALTHY})"
"""Stale, or not yet polled: whatever its status was, it is not known now."""

# In its row a status has the number of its place. Purple is for words that say nothing of health.
STATUSES: Final = (
    Word(0, "NOT KNOWN", GRAY),
    Word(1, "SYNCED", GREEN),
    Word(2, "SYNC_IN_PROGRESS", BLUE),
    Word(3, "CONNECTED", YELLOW),
    Word(4, "DISCONNECTED", ORANGE),
    Word(5, "ERROR", RED),
    Word(6, "NOT_FOUND", RED),
    Word(7, "UNDEFINED", PURPLE),
    Word(8, "UNRECOGNIZED", PURPLE),
)
REASONS: Final = (
    Word(11, "TOKEN_REVOKED", RED),
    Word(12, "EXTERNAL_CALENDAR_DELETED", RED),
    Word(13, "EXTERNAL_CALENDAR_CREATION_FAILED", RED),
    Word(14, "UNDEFINED", PURPLE),
    Word(15, "UNRECOGNIZED", PURPLE),
)
DOWN_REASONS: Final = tuple(
    Word(code, reason, RED)
    for code, reason in enumerate(
        (
            *("unauthorized", "forbidden", "premium_required", "rate_limited", "server_error"),
            *("timeout", "connect", "tls", "bad_response", "rejected"),
        ),
        1,
    )
)
VERDICTS: Final = (Word(20, "unwell", RED), Word(21, "well", GREEN))
AGES: Final = (Word(30, "fresh", GREEN), Word(31, "STALE", GRAY))
POLLS: Final = (Word(40, "poll failed", ORANGE), Word(41, "poll succeeded", GREEN))
SWITCHES: Final = (Word(50, "switched off", ORANGE), Word(51, "switched on", GREEN))
MAINTENANCE: Final = (Word(61, "in maintenance", BLUE),)


def chosen(more: str = "") -> str:
    """The selector of the connection that is chosen above."""
    return f'{{site=~"$site", connection="$connection"{more}}}'


def fresh(series: str) -> str:
    """Without what is only remembered."""
    return f"({series} unless {ONE} ({STALE} == 1))"


def coded(family: str, label: str, words: Iterable[Word]) -> str:
    """The number of the word that the chosen connection has now in this label; nothing while stale."""
    selectors = [(word.code, chosen(f', {label}="{word.text}"')) for word in words]
    either = "\n    or ".join(f"{code} * {family}{selector}" for code, selector in selectors)
    return f"max by (site, connection) (\n  {fresh(f'({either})')}\n)"


def flag(series: str, words: Sequence[Word]) -> str:
    """The number of the word for a 0 or a 1, of which the last is for 1."""
    return f"{words[-1].code - 1} + max by (site, connection) ({series})"


def counted(which: str, among: str = STALE) -> str:
    """How many; 0 where there are none, and nothing where no calendar is watched at all."""
    return f"count({which})\n  or 0 * count({among})"


def relabel(series: str, label: str, value: str, source: str, pattern: str = "(.+)") -> str:
    """`series` with one more label where `source` fits."""
    return f'label_replace({series}, "{label}", "{value}", "{source}", "{pattern}")'


def stated(reason: str, status: str) -> str:
    """1 for each connection, with what is to be said of it as the label `state`."""
    why = relabel(f"max by (site, connection, reason) ({reason})", "state", "ERROR: $1", "reason")
    what = relabel(f"max by (site, connection, status) ({status} == 1)", "state", "$1", "status")
    return f"max by (site, connection, state) (\n  {why}\n  or {ONE} {what}\n)"


def ranked(state: str) -> str:
    """With a label to sort by: what is broken goes before what somebody has switched off."""
    usual = relabel(state, "rank", "2", "state")
    return relabel(usual, "rank", "1", "state", "ERROR.*|NOT_FOUND")


REASON: Final = "site_connection_reason:wix_calendar_connection_error_reason:max"
STATUS: Final = "site_connection_status:wix_calendar_connection_status:max"
DIRECTION: Final = "site_connection_direction:wix_calendar_connection_sync_enabled:max"
STALE_HERE: Final = f'{STALE}{{site=~"$site"}}'
STATED_NOW: Final = stated(fresh(REASON), fresh(STATUS))
STATED_LAST: Final = stated(REASON, STATUS)
STATUS_CODE: Final = f"{coded(STATUS, 'status', STATUSES[1:])}\nor {ONE} 0 * {STALE}{chosen()}"
REASON_CODE: Final = coded(REASON, "reason", REASONS)


def quantile(part: str, family: str) -> str:
    """What all but the rest stay below."""
    return f"histogram_quantile({part}, sum by (le) (rate({family}_bucket[$__rate_interval])))"


# ── what is shown ────────────────────────────────────────────────────────────────────────────────────

SITE: Final = Column("site", "Site")
CONNECTION: Final = Column("connection", "Calendar", link=True)
TEAM: Final = Column("team", "Team")
NEVER: Final = (Word(0, "never", GRAY),)
MOMENT: Final = "dateTimeAsIso"
PLAIN: Final = ((None, "text"),)

# The first colour is also that of an empty panel: it must not reassure.
BAD_FROM_ONE: Final = ((None, GRAY), (0, GREEN), (1, RED))
DOUBT_FROM_ONE: Final = ((None, GRAY), (0, GREEN), (1, ORANGE))

FLEET: Final = Row(
    "Fleet: every site, whatever is chosen above",
    (
        stat(
            "Healthy",
            (4, 4),
            "Calendars known to be as expected now. Each calendar is counted in one of Healthy, Unwell,"
            " Unknown and In maintenance.",
            Query(counted(f"{HEALTHY} == 1 unless {ONE} {MAINTAINED}")),
            steps=((None, GRAY), (0, GREEN)),
        ),
        stat(
            "Unwell",
            (4, 4),
            "Calendars known to be broken, disconnected or otherwise not as expected now: each of them is"
            " in the table below.",
            Query(counted(f"{HEALTHY} == 0 unless {ONE} {MAINTAINED}")),
            steps=BAD_FROM_ONE,
        ),
        stat(
            "Unknown",
            (4, 4),
            "Calendars of which nothing is known now: the last answer is too old (stale), or there was none"
            " yet. They may be well or not.",
            Query(counted(f"{UNKNOWN} unless {ONE} {MAINTAINED}")),
            steps=DOUBT_FROM_ONE,
        ),
        stat(
            "In maintenance",
            (4, 4),
            "Calendars that are in maintenance: watched, but nobody is told. Well or not, they are in no"
            " other count.",
            Query(counted(MAINTAINED)),
            steps=((None, GRAY), (0, GREEN), (1, BLUE)),
        ),
        stat(
            "Sites down",
            (4, 4),
            "Sites for which Wix does not answer us. It says nothing of their calendars: these become"
            " unknown.",
            Query(counted(f"count by (site) ({DOWN})", "wix_calendar_site_up")),
            steps=BAD_FROM_ONE,
        ),
        stat(
            "Monitor: last tick ago",
            (4, 4),
            "Time since the monitor's scheduler last worked; it does so every few seconds. More than a"
            " minute: it stands still, and what is shown here is old.",
            Query(
                "time() - max by (instance) (wix_calendar_monitor_last_tick_timestamp_seconds)\n"
                f"  or on (instance) (0 * up{JOB} - 1)",
                "{{instance}}",
            ),
            unit="s",
            steps=((None, GRAY), (0, GREEN), (60, RED)),
            words=(Word(-1, "no answer", RED),),
            empty="no monitor",
        ),
        table(
            "Unwell calendars, the worst first",
            (24, 8),
            "Calendars known to be unwell now, outside maintenance: first those in ERROR and NOT_FOUND,"
            " then the rest, the longest first. What is only remembered is not here. A click on a calendar"
            " chooses it for the timeline below.",
            Query(
                f"1000 * {ranked(STATED_NOW)}\n"
                f"  * {ONE} group_left (team, calendar_type) {SINCE}\n"
                f"  and {ONE} ({HEALTHY} == 0)\n"
                f"  unless {ONE} {MAINTAINED}",
                news=True,
            ),
            columns=(
                SITE,
                CONNECTION,
                Column("state", "Status or reason"),
                Column("Value", "Since", MOMENT),
                TEAM,
                Column("calendar_type", "Calendar type"),
            ),
            sort=("Value", "rank"),
            empty="No calendar is known to be unwell.",
        ),
        table(
            "Unknown calendars",
            (12, 7),
            "Calendars whose status is not known now, outside maintenance, the longest unseen first. What"
            " they were last is told as what it is: a memory. While a site is down, all of its calendars"
            " come to stand here.",
            Query(
                "1000 * (\n"
                f"  {STATED_LAST}\n"
                f"  * {ONE} group_left ()"
                " max by (site, connection) (wix_calendar_connection_last_success_timestamp_seconds)\n"
                f"  or {ONE} 0 * {STALE}\n"
                ")\n"
                f"  and {ONE} {UNKNOWN}\n"
                f"  unless {ONE} {MAINTAINED}",
                news=True,
            ),
            columns=(
                SITE,
                CONNECTION,
                Column("Value", "Last seen", MOMENT, NEVER),
                Column("state", "Last known, no longer certain"),
            ),
            sort=("Value",),
            empty="No calendar is unknown, unless the monitor itself does not answer.",
        ),
        table(
            "Sites down",
            (12, 7),
            "Sites for which Wix does not answer us, why, and when any calendar of theirs was last seen."
            " unauthorized, forbidden: our credential; premium_required: the site's plan; the others: the"
            " network, or Wix.",
            Query(
                f"1000 * {DOWN}\n  * on (site) group_left () {LAST_ANSWER}",
                news=True,
            ),
            columns=(SITE, Column("reason", "Reason"), Column("Value", "Last answer", MOMENT, NEVER)),
            sort=("Value",),
            empty="No site is known to be down.",
        ),
        lines(
            "Healthy and known, part of all calendars",
            (12, 7),
            "Known: the part of the calendars whose status is news; that is what the monitor owes. Healthy:"
            " the part known to be as expected. What is not known counts as not healthy; maintenance is no"
            " excuse here.",
            Query("wix_calendar:connections:known_ratio", "known"),
            Query("wix_calendar:connections:healthy_ratio", "healthy"),
            unit="percentunit",
            top=1,
        ),
        table(
            "Alerts firing",
            (12, 7),
            "What Prometheus tells Alertmanager now. Alertmanager may still mute it: during maintenance, or"
            " where another alert says it all.",
            Query(
                "max by (alertname, severity, site, connection, team) (\n"
                '  ALERTS{alertname=~"Wix.+", alertstate="firing", severity!="none"}\n'
                ")",
                news=True,
            ),
            columns=(
                Column("severity", "Severity"),
                Column("alertname", "Alert"),
                SITE,
                CONNECTION,
                TEAM,
            ),
            sort=("alertname", "severity"),
            empty="No alert is firing.",
        ),
    ),
)

SITES: Final = Row(
    "Site: $site",
    (
        lines(
            "Budget spent",
            (8, 7),
            "Requests a minute to Wix, as a part of what the site may send (requests_per_minute). Near 100"
            " % polls wait for each other.",
            Query(
                "60 * sum by (site) (\n"
                '  rate(wix_calendar_site_requests_total{site=~"$site"}[$__rate_interval])\n'
                ") / sum by (site) (\n"
                f'  wix_calendar_site_rate_limit_requests_per_minute{{site=~"$site"}} {LIVE}\n'
                ")",
                "{{site}}",
            ),
            unit="percentunit",
            steps=(*PLAIN, (1, RED)),
        ),
        lines(
            "Failed requests a minute, by reason",
            (8, 7),
            "Requests to Wix that failed. They say that we could not ask, nothing of a calendar's health.",
            Query(
                "60 * sum by (reason) (\n"
                '  rate(wix_calendar_site_request_failures_total{site=~"$site"}[$__rate_interval])\n'
                ")",
                "{{reason}}",
            ),
            stacked=True,
        ),
        lines(
            "Held back",
            (8, 7),
            "Part of the time in which the site's budget, or a Retry-After of Wix, held requests back. 100"
            " %: all of it.",
            Query(
                "avg by (site) (\n"
                '  rate(wix_calendar_site_throttled_seconds_total{site=~"$site"}[$__rate_interval])\n'
                f"  {LIVE}\n"
                ")",
                "{{site}}",
            ),
            unit="percentunit",
        ),
        states(
            "Does Wix answer us?",
            (24, 5),
            "A site's breaker: after several failures in a row it opens, the site is down, and single trial"
            " polls are sent in place of all. The reason is written into the band.",
            Query(
                "max by (site) ((\n  "
                + "\n  or ".join(
                    f'{word.code} * wix_calendar_site_down_reason{{site=~"$site", reason="{word.text}"}}'
                    for word in DOWN_REASONS
                )
                + f'\n) {LIVE})\nor on (site) 0 * max by (site) (wix_calendar_site_up{{site=~"$site"}})',
                "{{site}}",
            ),
            words=(
                Word(0, "up", GREEN),
                *(Word(word.code, f"down: {word.text}", word.color) for word in DOWN_REASONS),
            ),
        ),
        lines(
            "Calendars by status",
            (12, 8),
            "How many calendars have which status. One whose last answer is too old is in the band NOT"
            " KNOWN, whatever its status was.",
            Query(
                "sum by (status) (\n  " + fresh(f'{STATUS}{{site=~"$site"}}') + "\n)",
                "{{status}}",
            ),
            Query(counted(f"{STALE_HERE} unless {ONE} {HEALTHY}", STALE_HERE), "NOT KNOWN"),
            stacked=True,
        ),
        lines(
            "How long requests to Wix take",
            (12, 8),
            "Half of the requests are faster than p50; one of a hundred is slower than p99. Of all sites"
            " together, as the monitor does not measure this by site.",
            Query(quantile("0.99", "wix_calendar_api_request_duration_seconds"), "p99"),
            Query(quantile("0.5", "wix_calendar_api_request_duration_seconds"), "p50"),
            unit="s",
        ),
    ),
)

CALENDAR: Final = Row(
    "Calendar: $connection",
    (
        stat(
            "Now",
            (6, 4),
            "The present status, and in ERROR its reason. NOT KNOWN while the last answer is too old, or"
            " before the first.",
            Query(STATUS_CODE, "{{site}}"),
            Query(REASON_CODE, "reason", news=True),
            steps=((None, GRAY),),
            words=(*STATUSES, *REASONS),
        ),
        stat(
            "Since",
            (5, 4),
            "When this monitor first saw the present status and reason; Wix does not tell since when."
            " Nothing while the status is not known.",
            Query(f"1000 * max by (site, connection) ({SINCE}{chosen()} and {ONE} {HEALTHY})", "{{site}}"),
            unit="dateTimeFromNow",
            empty="not known",
        ),
        stat(
            "Last successful poll ago",
            (5, 4),
            "How old the news is. It turns stale at three poll intervals, unless configured otherwise"
            " (stale_after).",
            Query(
                "time() - max by (site, connection) (\n"
                f"  wix_calendar_connection_last_success_timestamp_seconds{chosen()}\n"
                ")",
                "{{site}}",
            ),
            unit="s",
            empty="not known",
        ),
        stat(
            "Changes",
            (4, 4),
            "How often status or reason changed in the time that is chosen above, about: Prometheus"
            " estimates.",
            Query(
                "round(sum by (site, connection) (\n"
                f"  increase(wix_calendar_connection_transitions_total{chosen()}[$__range])\n"
                "))",
                "{{site}}",
            ),
        ),
        stat(
            "Seen unwell",
            (4, 4),
            "For how long of the time that is chosen above the calendar was seen unwell.",
            Query(
                "sum by (site, connection) (\n"
                f"  increase(wix_calendar_connection_unhealthy_seconds_total{chosen()}[$__range])\n"
                ")",
                "{{site}}",
            ),
            unit="s",
        ),
        states(
            "Timeline",
            (24, 10),
            "What was known when. In the time of a gap, or of NOT KNOWN, nothing was known: status, reason,"
            " verdict and sync are left out while the last answer is too old. A direction of the sync that"
            " Wix does not tell has no band.",
            Query(STATUS_CODE, "{{site}}: status"),
            Query(REASON_CODE, "{{site}}: error reason", news=True),
            Query(flag(f"{HEALTHY}{chosen()}", VERDICTS), "{{site}}: as expected?"),
            Query(flag(f"{STALE}{chosen()}", AGES), "{{site}}: age of the news"),
            Query(flag(f"wix_calendar_connection_poll_success{chosen()}", POLLS), "{{site}}: last poll"),
            Query(
                f"{SWITCHES[0].code} + max by (site, connection, direction) (\n  "
                + fresh(f"{DIRECTION}{chosen()}")
                + "\n)",
                "{{site}}: {{direction}}",
            ),
            Query(
                flag(f"wix_calendar_connection_maintenance{chosen()}", MAINTENANCE),
                "{{site}}: maintenance",
                news=True,
            ),
            words=(*STATUSES, *REASONS, *VERDICTS, *AGES, *POLLS, *SWITCHES, *MAINTENANCE),
        ),
        table(
            "What it is",
            (24, 4),
            "The calendar's id at Wix, its kind, whose it is, and how often it is asked for now.",
            Query(
                "max by (site, connection, connection_id, calendar_type, team) (\n"
                f"  wix_calendar_connection_info{chosen()}\n"
                f")\n  * {ONE} group_left ()"
                " min by (site, connection) (wix_calendar_connection_poll_interval_seconds)"
            ),
            columns=(
                SITE,
                Column("connection", "Calendar"),
                Column("connection_id", "Id at Wix"),
                Column("calendar_type", "Calendar type"),
                TEAM,
                Column("Value", "Poll interval", "s"),
            ),
            empty="No such calendar is watched.",
        ),
    ),
)

MONITOR: Final = Row(
    "The monitor itself",
    (
        lines(
            "How late polls start",
            (12, 7),
            "Time from when a poll was due to when it was started. Beyond a few seconds the machine, or the"
            " budget, does not keep up.",
            Query(quantile("0.99", "wix_calendar_monitor_poll_lag_seconds"), "p99"),
            Query(quantile("0.5", "wix_calendar_monitor_poll_lag_seconds"), "p50"),
            unit="s",
        ),
        lines(
            "What goes wrong inside",
            (12, 7),
            "Polls that were due and never started (overlap: the one before it was still running; overrun:"
            " the machine was late), failures of the state store, and words of Wix that this version does"
            " not know. All at 0 is well.",
            Query(
                "sum by (reason) (increase(wix_calendar_monitor_polls_missed_total[$__rate_interval]))",
                "polls missed: {{reason}}",
            ),
            Query(
                "sum(increase(wix_calendar_monitor_store_failures_total[$__rate_interval]))",
                "store failures",
            ),
            Query(
                "sum by (field) (\n"
                "  increase(wix_calendar_monitor_unrecognized_values_total[$__rate_interval])\n"
                ")",
                "unknown word: {{field}}",
            ),
        ),
        table(
            "The week, by site",
            (12, 7),
            "Incidents: how often a calendar became unwell within 7 days. Time to heal: how long that"
            " lasted on the average. Detection: how long a change can stay unseen, an interval and what"
            " polls are late.",
            Query("site:wix_calendar_incidents:count7d"),
            Query("site:wix_calendar_time_to_heal_seconds:mean7d", news=True),
            Query("site:wix_calendar_detection_bound_seconds:max"),
            columns=(
                SITE,
                Column("Value #A", "Incidents"),
                Column("Value #B", "Time to heal", "s"),
                Column("Value #C", "Detection within", "s"),
            ),
            empty="Nothing is recorded yet.",
        ),
        table(
            "Monitors",
            (12, 7),
            "Which version runs where, since when, and whether it took its configuration. REFUSED: it goes"
            " on with the one before.",
            Query("max by (instance, version, python) (wix_calendar_monitor_build_info)"),
            Query(f"1000 * max by (instance) (process_start_time_seconds{JOB})"),
            Query("max by (instance) (wix_calendar_monitor_config_last_reload_successful)"),
            Query(
                "1000 * max by (instance) (wix_calendar_monitor_config_last_reload_success_timestamp_seconds)"
            ),
            columns=(
                Column("instance", "Instance"),
                Column("version", "Version"),
                Column("python", "Python"),
                Column("Value #B", "Started", MOMENT),
                Column("Value #C", "Configuration", words=(Word(0, "REFUSED", RED), Word(1, "taken", GREEN))),
                Column("Value #D", "of", MOMENT),
            ),
            empty="No monitor answers.",
        ),
        lines(
            "Processor",
            (12, 6),
            "Processor time that the monitor uses, 100 % being all of one core. It has no use for a second"
            " one.",
            Query(f"rate(process_cpu_seconds_total{JOB}[$__rate_interval])", "{{instance}}"),
            unit="percentunit",
        ),
        lines(
            "Memory",
            (12, 6),
            "Memory that the monitor occupies (resident).",
            Query(f"process_resident_memory_bytes{JOB}", "{{instance}}"),
            unit="bytes",
        ),
    ),
)

NODES: Final = Row(
    "Nodes: several monitors that share the work",
    (
        table(
            "Shards and nodes",
            (12, 7),
            "Who shares the work. Shards of a configuration: the ordinals run from 0 to one below the total,"
            " each once. Nodes on one database: each has its lease, sees all the others, and none sees a"
            " site that nobody polls.",
            Query("max by (instance) (wix_calendar_monitor_shard_ordinal)"),
            Query("max by (instance) (wix_calendar_monitor_total_shards)"),
            Query("max by (instance) (wix_calendar_monitor_lease_held)", news=True),
            Query("max by (instance) (wix_calendar_monitor_nodes)", news=True),
            Query("max by (instance) (wix_calendar_monitor_sites)", news=True),
            Query("max by (instance) (wix_calendar_monitor_sites_unowned)", news=True),
            columns=(
                Column("instance", "Instance"),
                Column("Value #A", "Shard"),
                Column("Value #B", "of"),
                Column("Value #C", "Lease", words=(Word(0, "NONE", RED), Word(1, "held", GREEN))),
                Column("Value #D", "Nodes it sees"),
                Column("Value #E", "Sites it polls"),
                Column("Value #F", "Sites nobody polls"),
            ),
            sort=("instance", "Value #A"),
            empty="No monitor answers.",
        ),
        lines(
            "Calendars, by monitor",
            (12, 7),
            "How many calendars each monitor shows. A step down in one and up in others is a move; the sum"
            " stays, but for the moment in which two show them or none does.",
            Query(
                f"sum by (instance) (wix_calendar_monitor_connections {LIVE})",
                "{{instance}}",
            ),
            stacked=True,
        ),
    ),
)

ROWS: Final = (FLEET, SITES, CALENDAR, MONITOR, NODES)


# ── how Grafana is told ──────────────────────────────────────────────────────────────────────────────

DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
LINK: Final = (
    f"/d/{UID}?${{datasource:queryparam}}&var-site=${{__data.fields.site:percentencode}}"
    "&var-connection=${__data.fields.connection:percentencode}&${__url_time_range}"
)


def dashboard() -> Json:
    """The whole file."""
    return {
        "uid": UID,
        "title": "Wix calendar monitor",
        "description": "Calendars synced with Wix Bookings: which are unwell, and which are not known."
        " Made by deploy/grafana/build.py; needs the rules of deploy/prometheus/rules.",
        "tags": ["wix-calendar-monitor"],
        "schemaVersion": 38,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "1m",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "templating": {"list": list(_variables())},
        "panels": list(_laid_out(ROWS)),
    }


def _variables() -> Iterator[Json]:
    yield {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    yield _variable("site", "Site", "label_values(wix_calendar_connection_stale, site)") | {
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
    }
    yield _variable(
        "connection", "Calendar", 'label_values(wix_calendar_connection_stale{site=~"$site"}, connection)'
    )


def _variable(name: str, label: str, query: str) -> Json:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": f"variable-{name}"},
        "refresh": 2,
        "sort": 1,
    }


def _laid_out(rows: Sequence[Row]) -> Iterator[Json]:
    """Rows and panels with their places: from left to right, on to the next line where there is no room."""
    number, top = 0, 0
    for row in rows:
        number += 1
        place = {"x": 0, "y": top, "w": WIDTH, "h": 1}
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": place,
            "panels": [],
        }
        left, top, height = 0, top + 1, 0
        for panel in row.panels:
            width = panel.size[0]
            if left + width > WIDTH:
                left, top = 0, top + height
            number, height = number + 1, panel.size[1]
            place = {"x": left, "y": top, "w": width, "h": height}
            yield {"id": number, "gridPos": place, **_panel(panel)}
            left += width
        top += height


def _panel(panel: Panel) -> Json:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "targets": [_target(panel.kind, place, query) for place, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": list(map(_override, panel.columns))},
        "options": _options(panel),
        "transformations": list(_transformations(panel)) if panel.kind is TABLE else [],
    }


def _target(kind: Kind, place: int, query: Query) -> Json:
    instant = kind in {STAT, TABLE}
    return {
        "refId": chr(ord("A") + place),
        "datasource": DATASOURCE,
        "expr": query.expr,
        "legendFormat": query.legend,
        "format": "table" if kind is TABLE else "time_series",
        "instant": instant,
        "range": not instant,
    }


def _defaults(panel: Panel) -> Json:
    """What holds for all numbers of a panel."""
    return {
        "unit": panel.unit,
        "noValue": panel.empty,
        "mappings": list(_mappings(panel.words)),
        "color": {"mode": "palette-classic" if panel.kind is LINES else "thresholds"},
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": value, "color": color} for value, color in panel.steps or PLAIN],
        },
        **({"min": 0} if panel.kind is LINES else {}),
        **({"max": panel.top} if panel.top is not None else {}),
        "custom": _custom(panel),
    }


def _custom(panel: Panel) -> Json:
    """What holds for the numbers of a kind of panel."""
    if panel.kind is LINES:
        return {
            "drawStyle": "line",
            "lineInterpolation": "linear",
            "lineWidth": 1,
            "fillOpacity": 40 if panel.stacked else 5,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if len(panel.steps) > 1 else "off"},
        }
    if panel.kind is STATES:
        return {"fillOpacity": 70, "lineWidth": 0}
    return {}


def _options(panel: Panel) -> Json:
    """How a kind of panel is drawn; a number that means neither good nor bad stands on no colour."""
    if panel.kind is STAT and not (panel.steps or panel.words):
        return OPTIONS[STAT] | {"colorMode": "value"}
    return OPTIONS[panel.kind]


def _mappings(words: Sequence[Word]) -> Iterator[Json]:
    if words:
        yield {
            "type": "value",
            "options": {
                str(word.code): {"text": word.text, "color": word.color, "index": place}
                for place, word in enumerate(words)
            },
        }


def _override(column: Column) -> Json:
    """What is particular to one column of a table."""
    properties: Mapping[str, object] = {
        "unit": column.unit,
        "mappings": list(_mappings(column.words)),
        "links": [{"title": "Show its timeline below", "url": LINK}] if column.link else [],
        "custom.cellOptions": {"type": "color-text"} if column.words else None,
    }
    return {
        "matcher": {"id": "byName", "options": column.title},
        "properties": [{"id": name, "value": value} for name, value in properties.items() if value],
    }


def _transformations(panel: Panel) -> Iterator[Json]:
    """One table of all queries, joined by its first column; sorted; its columns chosen, named, in order."""
    if len(panel.queries) > 1:
        yield {"id": "joinByField", "options": {"byField": panel.columns[0].field, "mode": "outer"}}
    for field in panel.sort:
        yield {"id": "sortBy", "options": {"sort": [{"field": field}]}}
    fields = [column.field for column in panel.columns]
    yield {"id": "filterFieldsByName", "options": {"include": {"names": fields}}}
    order = {field: place for place, field in enumerate(fields)}
    titles = {column.field: column.title for column in panel.columns}
    yield {"id": "organize", "options": {"indexByName": order, "renameByName": titles}}


_LEGEND: Final = {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []}

OPTIONS: Final[Mapping[Kind, Json]] = {
    STAT: {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "orientation": "auto",
        "textMode": "auto",
        "colorMode": "background",
        "graphMode": "none",
        "justifyMode": "auto",
    },
    TABLE: {"showHeader": True, "cellHeight": "sm", "footer": {"show": False, "reducer": ["sum"]}},
    LINES: {"legend": _LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}},
    STATES: {
        "mergeValues": True,
        "showValue": "auto",
        "alignValue": "left",
        "rowHeight": 0.85,
        "legend": _LEGEND | {"showLegend": False},
        "tooltip": {"mode": "multi", "sort": "none"},
    },
}


# ── the command ──────────────────────────────────────────────────────────────────────────────────────


def text() -> str:
    """What the file is to contain."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str]) -> str | int:
    """What to exit with: 0, or what is wrong."""
    if not arguments:
        TARGET.write_text(text(), encoding="utf-8")
        return 0
    if arguments == ["--check"]:
        current = TARGET.read_text(encoding="utf-8") if TARGET.exists() else ""
        return 0 if current == text() else f"{TARGET} is not up to date: run {sys.argv[0]}"
    return f"usage: {sys.argv[0]} [--check]"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
