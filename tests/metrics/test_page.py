"""The whole page: its format by negotiation, read by prometheus_client's parsers and by promtool."""

import re
import subprocess
from collections import Counter
from itertools import groupby
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from monitor.metrics.exposition import Dialect, Renderer
from monitor.metrics.families import BY_NAME, FAMILIES, Type
from monitor.metrics.page import negotiate, pieces, render
from monitor.metrics.telemetry import Telemetry
from tests.metrics.snapshots import full
from tests.real_parts import require

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
TEXT_1: Final = "text/plain; version=1.0.0; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

PROTOBUF: Final = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
OM: Final = "application/openmetrics-text;version"
PLAIN: Final = "text/plain;version"

PROMETHEUS: Final = {
    "2.42": (
        [f"{OM}=1.0.0", f"{OM}=0.0.1;q=0.75", f"{PLAIN}=0.0.4;q=0.5", "*/*;q=0.1"],
        OPENMETRICS,
    ),
    "2.42, native histograms": (
        [PROTOBUF, f"{OM}=1.0.0;q=0.8", f"{OM}=0.0.1;q=0.75", f"{PLAIN}=0.0.4;q=0.5", "*/*;q=0.1"],
        OPENMETRICS,
    ),
    "2.53": (
        [f"{OM}=1.0.0;q=0.5", f"{OM}=0.0.1;q=0.4", f"{PLAIN}=0.0.4;q=0.3", "*/*;q=0.2"],
        OPENMETRICS,
    ),
    "3": (
        [
            f"{OM}=1.0.0;escaping=allow-utf-8;q=0.6",
            f"{OM}=0.0.1;q=0.5",
            f"{PLAIN}=1.0.0;escaping=allow-utf-8;q=0.4",
            f"{PLAIN}=0.0.4;q=0.3",
            "*/*;q=0.2",
        ],
        f"{OPENMETRICS}; escaping=allow-utf-8",
    ),
    "3, native histograms": (
        [
            f"{PROTOBUF};q=0.6",
            f"{OM}=1.0.0;escaping=allow-utf-8;q=0.5",
            f"{OM}=0.0.1;q=0.4",
            f"{PLAIN}=1.0.0;escaping=allow-utf-8;q=0.3",
            f"{PLAIN}=0.0.4;q=0.2",
            "*/*;q=0.1",
        ],
        f"{OPENMETRICS}; escaping=allow-utf-8",
    ),
    "3, legacy names": (
        [
            f"{OM}=1.0.0;escaping=underscores;q=0.6",
            f"{OM}=0.0.1;q=0.5",
            f"{PLAIN}=1.0.0;escaping=underscores;q=0.4",
            f"{PLAIN}=0.0.4;q=0.3",
            "*/*;q=0.2",
        ],
        f"{OPENMETRICS}; escaping=underscores",
    ),
    "3, text first": (
        [f"{PLAIN}=1.0.0;escaping=values;q=0.6", f"{PLAIN}=0.0.4;q=0.5", "*/*;q=0.4"],
        f"{TEXT_1}; escaping=values",
    ),
}
SCRAPERS: Final = ["", f"{OM}=1.0.0", ",".join(PROMETHEUS["3"][0])]
any_scraper = pytest.mark.parametrize("accept", SCRAPERS, ids=["text", "openmetrics", "prometheus 3"])


def read_openmetrics(text: str) -> list[Metric]:
    return list(parse_openmetrics(text))  # type: ignore[no-untyped-call]  # the library's


def page(accept: str) -> str:
    telemetry = Telemetry()
    telemetry.ticked(1772366400.0)
    telemetry.config_reloaded(1772366400.0)
    telemetry.store_is_shared()
    telemetry.node_stands(holds=True, nodes=2, owned=1, unowned=0)
    telemetry.feed_looked_at("downtown", "https://inventory.example.org", 1772366400.0, well=True)
    body, _ = render(full(), telemetry, accept)
    return body.decode()


@pytest.mark.parametrize(("ranges", "expected"), PROMETHEUS.values(), ids=PROMETHEUS.keys())
def test_prometheus_gets_the_format_it_likes_best(ranges: list[str], expected: str) -> None:
    dialect, content_type = negotiate(",".join(ranges))
    assert content_type == expected
    assert (dialect is Dialect.OPENMETRICS) == expected.startswith("application/openmetrics-text")


@pytest.mark.parametrize("ranges", [ranges for ranges, _ in PROMETHEUS.values()], ids=PROMETHEUS.keys())
def test_prometheus_client_would_choose_the_same(ranges: list[str]) -> None:
    _, theirs = choose_encoder(",".join(ranges))
    _, ours = negotiate(",".join(ranges))
    assert ours.removesuffix("; escaping=underscores") == theirs.removesuffix("; escaping=underscores")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", TEXT),
        ("text/plain", TEXT),
        ("text/plain; version=0.0.4", TEXT),
        ("text/plain;version=0.0.4;escaping=dots", TEXT),
        ("text/plain;version=9;q=1,,;=;version", TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", OPENMETRICS),
        ("application/openmetrics-text;version=0.0.1", TEXT),
        ("application/openmetrics-text;version=2.0.0", TEXT),
        (
            f"{OM}=2.0.0,{OM}=1.0.0",
            OPENMETRICS,
        ),
        (
            "application/openmetrics-text;version=1.0.0;escaping=dots;q=0.5",
            f"{OPENMETRICS}; escaping=underscores",
        ),
        (
            "application/openmetrics-text;version=1.0.0;escaping=\r\nSet-Cookie:a",
            f"{OPENMETRICS}; escaping=underscores",
        ),
        ("text/plain;version=0.0.4;q=0.5,application/openmetrics-text;version=1.0.0;q=0.4", TEXT),
    ],
)
def test_a_format_we_do_not_write_is_never_claimed(accept: str, expected: str) -> None:
    assert negotiate(accept)[1] == expected


@given(accept=st.text(max_size=200) | st.text("aplicton/pemrsx;=,. version10q*", max_size=60))
def test_no_accept_header_breaks_the_page(accept: str) -> None:
    assert negotiate(accept)[1]


def test_an_openmetrics_page_ends_in_one_eof_and_a_text_page_has_none() -> None:
    lines = page(SCRAPERS[1]).split("\n")
    assert lines[-2:] == ["# EOF", ""]
    assert lines.count("# EOF") == 1
    assert "\n# EOF" not in page("")


@any_scraper
def test_no_family_comes_twice_and_its_samples_stand_together(accept: str) -> None:
    lines = [line for line in page(accept).splitlines() if line != "# EOF"]
    types = Counter(line.split()[2] for line in lines if line.startswith("# TYPE"))
    assert set(types.values()) == {1}
    stretches = Counter(name for name, _ in groupby(family_of(line) for line in lines))
    assert set(stretches.values()) == {1}


def family_of(line: str) -> str:
    name = line.split()[2] if line.startswith("#") else re.split("[{ ]", line, maxsplit=1)[0]
    if any(name.startswith(family.name) for family in FAMILIES if family.type is Type.HISTOGRAM):
        name = name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
    return name.removesuffix("_total")


@any_scraper
def test_the_page_holds_the_families_of_the_table_and_no_others(accept: str) -> None:
    families = list(parse_text(page("")) if accept == "" else read_openmetrics(page(accept)))
    ours = {family.name: family for family in families if family.name.startswith("wix_")}
    assert set(ours) == {family.name.removesuffix("_total") for family in FAMILIES}
    assert all(family.samples for family in ours.values())
    for family in FAMILIES:
        found = ours[family.name.removesuffix("_total")]
        assert (found.type, found.documentation) == (family.type, family.help)
    others = {family.name.split("_")[0] for family in families} - {"wix"}
    assert others == {"process", "python"}


def test_samples_have_the_labels_of_the_table() -> None:
    configured = {"staff", "floor"}
    for family in read_openmetrics(page(SCRAPERS[1])):
        for sample in family.samples:
            declared = BY_NAME.get(sample.name)
            if declared is not None:
                assert set(sample.labels) - configured == set(declared.labels)


def test_there_are_no_created_series_and_no_timestamps() -> None:
    for family in read_openmetrics(page(SCRAPERS[1])):
        assert not any(sample.name.endswith("_created") or sample.timestamp for sample in family.samples)


def test_no_piece_of_a_page_is_empty() -> None:
    for dialect in Dialect:
        assert all(piece.size for piece in pieces(full(), Telemetry(), dialect, Renderer()))


@pytest.mark.real
def test_promtool_has_nothing_to_say() -> None:
    promtool = require("promtool")
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=page(""),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
