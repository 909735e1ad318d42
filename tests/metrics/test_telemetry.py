"""The process's own instruments: each method moves its series, and nothing is shared between two of them."""

import platform
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families

from monitor import __version__
from monitor.metrics.exposition import Dialect
from monitor.metrics.telemetry import Telemetry

M = "wix_calendar_monitor_"


def samples(telemetry: Telemetry) -> dict[str, float]:
    """Every sample of ours, by its name and the values of its labels."""
    return {
        " ".join([sample.name, *sorted(sample.labels.values())]): sample.value
        for family in text_string_to_metric_families(telemetry.render(Dialect.TEXT).decode())
        for sample in family.samples
    }


@pytest.mark.parametrize(
    "series",
    [
        f"{M}polls_missed_total overrun",
        f"{M}polls_missed_total overlap",
        f"{M}unrecognized_values_total status",
        f"{M}unrecognized_values_total errorReason",
        f"{M}unrecognized_values_total calendarType",
        f"{M}store_failures_total",
        f"{M}poll_lag_seconds_count",
        "wix_calendar_api_request_duration_seconds_count",
    ],
)
def test_a_count_is_there_from_the_start(series: str) -> None:
    assert samples(Telemetry())[series] == 0


@pytest.mark.parametrize(
    ("happened", "series", "value"),
    [
        (lambda t: t.request_took(0.2), "wix_calendar_api_request_duration_seconds_sum", 0.2),
        (lambda t: t.request_took(0.2), "wix_calendar_api_request_duration_seconds_bucket 0.1", 0),
        (lambda t: t.request_took(0.2), "wix_calendar_api_request_duration_seconds_bucket 0.25", 1),
        (lambda t: t.request_took(31), "wix_calendar_api_request_duration_seconds_bucket 30.0", 0),
        (lambda t: t.request_took(31), "wix_calendar_api_request_duration_seconds_bucket +Inf", 1),
        (lambda t: t.poll_lagged(0.0005), f"{M}poll_lag_seconds_bucket 0.001", 1),
        (lambda t: t.poll_lagged(59), f"{M}poll_lag_seconds_bucket 60.0", 1),
        (lambda t: t.poll_missed("overrun"), f"{M}polls_missed_total overrun", 1),
        (lambda t: t.poll_missed("overrun"), f"{M}polls_missed_total overlap", 0),
        (lambda t: t.poll_missed("overrun", 3), f"{M}polls_missed_total overrun", 3),
        (lambda t: t.ticked(1772366400.25), f"{M}last_tick_timestamp_seconds", 1772366400.25),
        (lambda t: t.value_unrecognized("errorReason"), f"{M}unrecognized_values_total errorReason", 1),
        (lambda t: t.config_reloaded(12.5), f"{M}config_last_reload_successful", 1),
        (lambda t: t.config_reloaded(12.5), f"{M}config_last_reload_success_timestamp_seconds", 12.5),
        (lambda t: t.config_reload_failed(), f"{M}config_last_reload_successful", 0),
        (lambda t: t.store_failed(), f"{M}store_failures_total", 1),
    ],
)
def test_what_happened_shows(happened: Callable[[Telemetry], None], series: str, value: float) -> None:
    telemetry = Telemetry()
    happened(telemetry)
    assert samples(telemetry)[series] == value


@pytest.mark.parametrize(
    "family",
    [
        "last_tick_timestamp_seconds",
        "config_last_reload_successful",
        "config_last_reload_success_timestamp_seconds",
    ],
)
def test_what_never_happened_is_absent_not_1970(family: str) -> None:
    assert f"{M}{family}" not in samples(Telemetry())


def test_refused_writes_are_counted_where_the_store_is_shared_and_absent_elsewhere() -> None:
    telemetry = Telemetry()
    assert f"{M}fenced_writes_total" not in samples(telemetry)
    telemetry.store_is_shared()
    assert samples(telemetry)[f"{M}fenced_writes_total"] == 0
    telemetry.writes_fenced(3)
    assert samples(telemetry)[f"{M}fenced_writes_total"] == 3


def test_a_refused_configuration_keeps_the_time_of_the_last_good_one() -> None:
    telemetry = Telemetry()
    telemetry.config_reloaded(5)
    telemetry.config_reload_failed()
    assert samples(telemetry)[f"{M}config_last_reload_success_timestamp_seconds"] == 5
    assert samples(telemetry)[f"{M}config_last_reload_successful"] == 0


def test_a_gauge_may_be_set_many_times() -> None:
    telemetry = Telemetry()
    telemetry.ticked(1)
    telemetry.ticked(2)
    assert samples(telemetry)[f"{M}last_tick_timestamp_seconds"] == 2


def test_build_and_shard_are_told() -> None:
    found = samples(Telemetry(shard_ordinal=2, total_shards=5))
    assert found[f"{M}build_info {__version__} {platform.python_version()}"] == 1
    assert found[f"{M}shard_ordinal"] == 2
    assert found[f"{M}total_shards"] == 5


def test_the_process_and_its_python_are_told() -> None:
    families = {name.split(" ")[0] for name in samples(Telemetry())}
    assert {"process_resident_memory_bytes", "process_cpu_seconds_total", "python_info"} <= families
    assert "python_gc_collections_total" in families


def test_two_of_them_share_nothing() -> None:
    first, second = Telemetry(), Telemetry()
    first.poll_missed("overlap")
    assert samples(second)[f"{M}polls_missed_total overlap"] == 0


def test_created_series_go_without_a_switch_thrown_for_others() -> None:
    telemetry = Telemetry()
    assert b"_created" not in telemetry.render(Dialect.TEXT) + telemetry.render(Dialect.OPENMETRICS)
    others = CollectorRegistry()
    Counter("others", "of somebody else in this process", registry=others)
    assert b"others_created" in choose_encoder("")[0](others)


@pytest.mark.parametrize("dialect", Dialect)
def test_the_end_of_the_page_is_left_to_the_page(dialect: Dialect) -> None:
    assert b"# EOF" not in Telemetry().render(dialect)


def test_a_feed_is_shown_while_it_is_asked_and_its_last_success_stands_while_it_fails() -> None:
    telemetry = Telemetry()
    telemetry.feed_looked_at("downtown", "https://a", 100.0, well=True)
    telemetry.feed_looked_at("downtown", "https://a", 200.0, well=False)
    page = telemetry.render(Dialect.TEXT).decode()
    assert 'wix_calendar_monitor_feed_up{feed="https://a",site="downtown"} 0.0' in page
    assert 'feed_last_success_timestamp_seconds{feed="https://a",site="downtown"} 100.0' in page
    telemetry.feed_gone("downtown", "https://a")
    assert "https://a" not in telemetry.render(Dialect.TEXT).decode()


def test_a_feed_that_was_never_looked_at_can_go() -> None:
    Telemetry().feed_gone("downtown", "https://a")
