"""The fast renderer: whole texts, what is absent when, and each sample as prometheus_client writes it."""

import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from monitor.core.model import CalendarType, Connection, ConnectionState, ErrorReason, FailureReason, Status
from monitor.metrics.exposition import SLICE, Dialect, Renderer, slices
from monitor.metrics.pieces import Piece, plain
from monitor.metrics.snapshot import Snapshot
from tests.metrics.reference import encodable, registry
from tests.metrics.snapshots import HOSTILE, NOW, connection, full, polled, site, snapshot, state

GOLDEN: Final = {Dialect.TEXT: "text.prom", Dialect.OPENMETRICS: "openmetrics.prom"}
PARSE: Final[dict[Dialect, Callable[[str], Iterable[Metric]]]] = {
    Dialect.TEXT: parse_text,
    Dialect.OPENMETRICS: parse_openmetrics,
}
ENCODE: Final[dict[Dialect, Callable[[CollectorRegistry], bytes]]] = {
    Dialect.TEXT: choose_encoder("")[0],
    Dialect.OPENMETRICS: choose_encoder("application/openmetrics-text")[0],
}
both = pytest.mark.parametrize("dialect", Dialect)

Parsed = dict[str, tuple[str, str, list[tuple[str, list[tuple[str, str]], float]]]]


def text(given: Snapshot, dialect: Dialect = Dialect.TEXT) -> str:
    return b"".join(slices(given, dialect)).decode()


def parsed(page: str, dialect: Dialect) -> Parsed:
    return {
        family.name: (
            family.type,
            family.documentation,
            sorted((sample.name, sorted(sample.labels.items()), sample.value) for sample in family.samples),
        )
        for family in PARSE[dialect](page)
    }


def series(family: str, given: Snapshot) -> list[str]:
    """The samples of a family, without its name and the labels of the one connection or site."""
    name = f"wix_calendar_{family}{{"
    lines = [line.removeprefix(name) for line in text(given).splitlines() if line.startswith(name)]
    return [
        line.removeprefix('site="downtown"').removeprefix(',connection="anna"').removeprefix(",")
        for line in lines
    ]


@both
def test_a_snapshot_gives_the_whole_text(dialect: Dialect) -> None:
    """After a wanted change: WRITE_GOLDEN=1, then read the difference."""
    golden = Path(__file__).parent / "golden" / GOLDEN[dialect]
    if os.environ.get("WRITE_GOLDEN") == "1":
        golden.write_text(text(full(), dialect), encoding="utf-8")
    assert text(full(), dialect) == golden.read_text(encoding="utf-8")


# ── absent, present ──────────────────────────────────────────────────────────────────────────────────

ALWAYS: Final = {"info", "stale", "transitions_total", "unhealthy_seconds_total", "poll_interval_seconds"}
BLIND: Final = timedelta(seconds=181)
EIGHT: Final = [f'status="{status}"}} 0' for status in Status]


def test_before_the_first_poll_only_what_needs_no_poll_is_there() -> None:
    lines = text(snapshot((connection(), state()))).splitlines()
    present = {line.split("{", maxsplit=1)[0] for line in lines if not line.startswith("#")}
    assert present == {f"wix_calendar_connection_{name}" for name in ALWAYS}


@pytest.mark.parametrize(
    ("family", "known", "expected"),
    [
        ("status", state(), []),
        ("status", polled(status=Status.SYNCED), [*EIGHT[:3], 'status="SYNCED"} 1', *EIGHT[4:]]),
        ("status", polled(status=Status.UNRECOGNIZED), [*EIGHT[:7], 'status="UNRECOGNIZED"} 1']),
        ("error_reason", state(), []),
        ("error_reason", polled(), []),
        (
            "error_reason",
            polled(status=Status.ERROR, reason=ErrorReason.TOKEN_REVOKED),
            ['reason="TOKEN_REVOKED"} 1'],
        ),
        (
            "error_reason",
            polled(status=Status.ERROR, reason=ErrorReason.UNDEFINED),
            ['reason="UNDEFINED"} 1'],
        ),
        ("healthy", state(), []),
        ("healthy", polled(), ["} 1"]),
        ("healthy", polled(status=Status.DISCONNECTED), ["} 0"]),
        ("healthy", polled(last_success_at=NOW - BLIND), []),
        ("healthy", polled(status=Status.ERROR, last_success_at=NOW - BLIND), []),
        ("healthy", polled(last_success_at=NOW - timedelta(seconds=180)), ["} 1"]),
        ("stale", state(), ["} 0"]),
        ("stale", state(watched_since=NOW - BLIND), ["} 1"]),
        ("stale", polled(last_success_at=NOW - timedelta(seconds=180)), ["} 0"]),
        ("stale", polled(last_success_at=NOW - BLIND), ["} 1"]),
        ("status_since_timestamp_seconds", state(), []),
        ("status_since_timestamp_seconds", polled(status_since=NOW), ["} 1772366400.0"]),
        ("transitions_total", state(), ["} 0"]),
        ("transitions_total", polled(transitions=12), ["} 12"]),
        ("unhealthy_seconds_total", state(), ["} 0.0"]),
        ("unhealthy_seconds_total", polled(unhealthy_for=timedelta(seconds=1.5)), ["} 1.5"]),
        ("unhealthy_seconds_total", polled(status=Status.ERROR), ["} 20.0"]),
        ("sync_enabled", state(), []),
        ("sync_enabled", polled(), ['direction="import"} 1', 'direction="export"} 0']),
        ("sync_enabled", polled(import_enabled=None), ['direction="export"} 0']),
        ("poll_success", state(), []),
        ("poll_success", polled(), ["} 1"]),
        ("poll_success", polled(last_poll_succeeded=False), ["} 0"]),
        ("last_poll_timestamp_seconds", state(), []),
        ("last_poll_timestamp_seconds", polled(last_poll_at=NOW), ["} 1772366400.0"]),
        ("last_success_timestamp_seconds", state(last_poll_at=NOW, last_poll_succeeded=False), []),
        ("last_success_timestamp_seconds", polled(), ["} 1772366380.0"]),
        ("poll_interval_seconds", state(), ["} 60.0"]),
    ],
)
def test_a_connection_family_shows_what_is_known(
    family: str, known: ConnectionState, expected: list[str]
) -> None:
    assert series(f"connection_{family}", snapshot((connection(), known))) == expected


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        (None, []),
        (NOW + timedelta(seconds=5), []),  # by the machine's clock, 5 s ahead, it is over
        (NOW + timedelta(seconds=6), ["} 1"]),
        (NOW - timedelta(seconds=6), []),
    ],
)
def test_maintenance_ends_by_the_machines_clock(until: Any, expected: list[str]) -> None:
    watched = connection(maintenance_until=until), polled()
    stepped = snapshot(watched, correction=timedelta(seconds=5))
    assert series("connection_maintenance", stepped) == expected


@pytest.mark.parametrize(
    ("watched", "known", "expected"),
    [
        (connection(), state(), 'connection_id="4WnvD8Qz",calendar_type="",team=""} 1'),
        (
            connection(team="desk"),
            polled(),
            'connection_id="4WnvD8Qz",calendar_type="GOOGLE",team="desk"} 1',
        ),
        (
            connection(id="x", labels=(("staff", "a"), ("floor", ""))),
            polled(calendar_type=CalendarType.UNDEFINED),
            'connection_id="x",calendar_type="UNDEFINED",team="",staff="a",floor=""} 1',
        ),
    ],
)
def test_the_info_series_tells_what_the_connection_is(
    watched: Connection, known: ConnectionState, expected: str
) -> None:
    assert series("connection_info", snapshot((watched, known))) == [expected]


def test_moments_are_told_by_the_machines_clock() -> None:
    stepped = snapshot((connection(), polled(last_poll_at=NOW)), correction=timedelta(seconds=-3600.5))
    assert series("connection_last_poll_timestamp_seconds", stepped) == ["} 1772362799.5"]


@pytest.mark.parametrize(
    ("family", "facts", "expected"),
    [
        ("site_up", {"up": None}, []),
        ("site_up", {"up": True}, ["} 1"]),
        ("site_up", {"up": False}, ["} 0"]),
        ("site_down_reason", {}, []),
        ("site_down_reason", {"down_reason": FailureReason.TLS}, ['reason="tls"} 1']),
        ("site_requests_total", {"requests": 0}, ["} 0"]),
        ("site_rate_limit_requests_per_minute", {}, ["} 160"]),
        ("site_throttled_seconds_total", {}, ["} 1.25"]),
        ("site_polls_waiting", {}, ["} 3"]),
        ("site_breaker_open", {"breaker_open": True}, ["} 1"]),
        ("site_breaker_open", {"breaker_open": False}, ["} 0"]),
        ("site_maintenance", {}, []),
        ("site_maintenance", {"maintenance": True}, ["} 1"]),
        ("monitor_connections", {"connections": 0}, ["} 0"]),
    ],
)
def test_a_site_family_shows_what_is_known(family: str, facts: dict[str, Any], expected: list[str]) -> None:
    assert series(family, snapshot(sites=(site(**facts),))) == expected


def test_every_failure_reason_is_there_from_the_start() -> None:
    young = snapshot(sites=(site(failures={}),))
    expected = [f'reason="{reason}"}} 0' for reason in FailureReason]
    assert series("site_request_failures_total", young) == expected


# ── slices ───────────────────────────────────────────────────────────────────────────────────────────


def test_no_slice_covers_more_connections_than_it_may() -> None:
    many = snapshot(*[(connection(name=f"c{n}", id=str(n)), polled()) for n in range(SLICE + 1)])
    counts = [
        len({line.split(b"connection=")[1] for line in piece.splitlines()}) // 8
        for piece in slices(many, Dialect.TEXT)
        if piece.startswith(b"wix_calendar_connection_status{")
    ]
    assert counts == [SLICE, 1]


@both
@pytest.mark.parametrize("given_", [full(), snapshot((connection(), state()))], ids=["full", "unpolled"])
def test_slices_are_never_empty_and_never_split_a_line(dialect: Dialect, given_: Snapshot) -> None:
    assert all(piece.endswith(b"\n") for piece in slices(given_, dialect))


@both
def test_without_connections_there_is_only_metadata(dialect: Dialect) -> None:
    assert all(line.startswith("# ") for line in text(snapshot(), dialect).splitlines())


@both
def test_half_a_surrogate_does_not_cost_the_page(dialect: Dialect) -> None:
    page = text(snapshot((connection(name="a\ud800b"), state())), dialect)
    assert 'connection="a?b"' in page


# ── equivalence ──────────────────────────────────────────────────────────────────────────────────────


def named(watched: Connection) -> tuple[str, str]:
    return encodable(watched.site), encodable(watched.name)


label_values = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=200),
    st.text('\\"\n{}=, #n\r\0🎉', max_size=20),
    st.just(HOSTILE),
)
moments = st.timedeltas(timedelta(), timedelta(days=400)).map(lambda ago: NOW - ago)
halves = st.sampled_from([None, False, True])
connections = st.builds(
    connection,
    site=label_values,
    id=label_values,
    name=label_values,
    team=label_values,
    labels=st.dictionaries(st.sampled_from(["staff", "floor", "a1"]), label_values).map(
        lambda labels: tuple(labels.items())
    ),
    maintenance_until=st.none() | moments | moments.map(lambda moment: moment + timedelta(days=200)),
)
states = st.builds(
    ConnectionState,
    watched_since=moments,
    status=st.none() | st.sampled_from(Status),
    reason=st.none() | st.sampled_from(ErrorReason),
    status_since=st.none() | moments,
    calendar_type=st.none() | st.sampled_from(CalendarType),
    import_enabled=halves,
    export_enabled=halves,
    last_poll_at=st.none() | moments,
    last_success_at=st.none() | moments,
    last_poll_succeeded=halves,
    transitions=st.integers(0, 10**9),
    unhealthy_for=st.timedeltas(timedelta(), timedelta(days=4000)),
)
sites = st.builds(
    site,
    name=label_values,
    up=halves,
    down_reason=st.none() | st.sampled_from(FailureReason),
    requests=st.integers(0, 10**12),
    failures=st.dictionaries(st.sampled_from(FailureReason), st.integers(0, 10**6)),
    throttled_seconds=st.floats(0, 1e9),
    polls_waiting=st.integers(0, 10**6),
    maintenance=st.booleans(),
)
snapshots = st.builds(
    Snapshot,
    now=st.just(NOW),
    correction=st.timedeltas(timedelta(days=-1), timedelta(days=1)),
    connections=st.lists(st.tuples(connections, states), max_size=2, unique_by=lambda pair: named(pair[0])),
    sites=st.lists(sites, max_size=2, unique_by=lambda site: encodable(site.name)),
)


@both
@given(given_=snapshots)
def test_our_page_equals_prometheus_clients(dialect: Dialect, given_: Snapshot) -> None:
    ours = text(given_, dialect) + ("# EOF\n" if dialect is Dialect.OPENMETRICS else "")
    theirs = ENCODE[dialect](registry(given_)).decode()
    assert parsed(ours, dialect) == parsed(theirs, dialect)


@both
@given(value=label_values)
def test_a_label_value_is_read_as_it_was_given(dialect: Dialect, value: str) -> None:
    page = text(snapshot((connection(name=value), state())), dialect)
    page += "# EOF\n" if dialect is Dialect.OPENMETRICS else ""
    read = {sample.labels["connection"] for family in PARSE[dialect](page) for sample in family.samples}
    assert read == {encodable(value)}


# ── one page after the other ─────────────────────────────────────────────────────────────────────────


def after(renderer: Renderer, given_: Snapshot, dialect: Dialect = Dialect.TEXT) -> str:
    return b"".join(plain(renderer.pieces(given_, dialect))).decode()


@given(pages=st.lists(st.tuples(snapshots, st.sampled_from(Dialect)), min_size=2, max_size=5))
def test_no_page_tells_anything_of_those_before(pages: list[tuple[Snapshot, Dialect]]) -> None:
    renderer = Renderer()
    for given_, dialect in pages:
        assert after(renderer, given_, dialect) == text(given_, dialect)


@given(data=st.data())
def test_a_page_after_some_polls_is_the_page_of_what_is_known_now(data: st.DataObject) -> None:
    watched = data.draw(st.lists(connections, min_size=1, max_size=3, unique_by=named))
    known = [data.draw(states) for _ in watched]
    renderer = Renderer()
    for minutes in range(4):
        for polled_now in data.draw(st.sets(st.integers(0, len(watched) - 1))):
            known[polled_now] = data.draw(states)
        now = NOW + timedelta(minutes=minutes)
        given_ = Snapshot(now, timedelta(), list(zip(watched, known, strict=True)), ())
        assert after(renderer, given_) == text(given_)


def many(count: int, **facts: Any) -> list[tuple[Connection, ConnectionState]]:
    return [(connection(name=f"c{n}", id=str(n)), polled(**facts)) for n in range(count)]


def rendered(renderer: Renderer, given_: Snapshot) -> list[Piece]:
    return list(renderer.pieces(given_, Dialect.TEXT))


def test_what_has_not_changed_is_not_rendered_again() -> None:
    renderer, watched = Renderer(), many(2 * SLICE)
    first = rendered(renderer, snapshot(*watched))
    watched[0] = watched[0][0], polled(status=Status.ERROR, reason=ErrorReason.TOKEN_REVOKED)
    second = rendered(renderer, snapshot(*watched))
    new = {id(piece) for piece in second} - {id(piece) for piece in first}
    families = [line.split(b"{")[0].decode() for line in (b"".join(p.text()) for p in second if id(p) in new)]
    assert sorted(families) == [
        "wix_calendar_connection_error_reason",
        "wix_calendar_connection_healthy",
        "wix_calendar_connection_status",
        "wix_calendar_connection_unhealthy_seconds_total",
    ]


def test_both_dialects_share_what_is_the_same_in_them() -> None:
    renderer, given_ = Renderer(), snapshot(*many(3))
    text_page = {id(piece) for piece in renderer.pieces(given_, Dialect.TEXT)}
    openmetrics = [
        piece for piece in renderer.pieces(given_, Dialect.OPENMETRICS) if id(piece) not in text_page
    ]
    assert all(b"".join(piece.text()).startswith(b"# HELP ") for piece in openmetrics)


def test_what_left_the_configuration_is_not_kept() -> None:
    renderer = Renderer()
    rendered(renderer, snapshot(*many(3 * SLICE)))
    assert 'connection="c2"' not in after(renderer, snapshot(*many(2)))
    assert 'connection="c1"' in after(renderer, snapshot(*many(3 * SLICE)))
