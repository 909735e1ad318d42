"""The dashboard: it is what its source makes, and every query of it is run by a real Prometheus."""

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import pytest_asyncio
import yaml

from deploy.grafana import build
from monitor.clock import Clock
from monitor.core.model import ErrorReason, FailureReason, Status
from monitor.demo.children import free_address
from monitor.demo.faster import Shipped
from monitor.demo.programs import Api, prometheus
from monitor.metrics.families import FAMILIES, Type
from monitor.simulator import Connection, Scenario, Simulator
from tests.daemon import Daemon, running
from tests.deploy.installation import ROOT
from tests.deploy.stack import DEPLOY, until
from tests.fleet import key_site, oauth_site, write_config
from tests.real_parts import require

# All of them on one worker: what the real tests look at takes a while to happen, and happens once.
pytestmark = pytest.mark.xdist_group("dashboard")

SOURCE: Final = ROOT / "deploy/grafana/build.py"
DASHBOARD: Final[dict[str, Any]] = json.loads((SOURCE.parent / "wix-calendar-monitor.json").read_text())
RULES: Final = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus/rules/wix-calendar-monitor.yml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS: Final = [each for each in DASHBOARD["panels"] if each["type"] != "row"]
VARIABLES: Final = {each["name"]: each for each in DASHBOARD["templating"]["list"]}


class Asked(NamedTuple):
    """One query of one panel."""

    panel: int
    title: str
    ref: str
    expr: str
    instant: bool

    def __str__(self) -> str:
        return f"{self.panel} {self.title}: {self.ref}"


QUERIES: Final = [
    Asked(panel["id"], panel["title"], target["refId"], target["expr"], target["instant"])
    for panel in PANELS
    for target in panel["targets"]
]
NEWS: Final = {
    query.expr for row in build.ROWS for panel in row.panels for query in panel.queries if query.news
}
_OF_NODES: Final = {family.name for family in FAMILIES if family.absent == "with SQLite"}
ELSEWHERE: Final = {query.expr for query in QUERIES if _OF_NODES & {*re.findall(r"\w+", query.expr)}}
"""What only nodes on one database show, and the daemon here does not."""


def _title(panel: dict[str, Any]) -> str:
    return f"{panel['id']} {panel['title']}"


EACH_QUERY: Final = pytest.mark.parametrize("query", QUERIES, ids=str)
EACH_PANEL: Final = pytest.mark.parametrize("panel", PANELS, ids=_title)


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_committed_file_is_what_its_source_makes() -> None:
    assert (SOURCE.parent / "wix-calendar-monitor.json").read_text() == build.text()


def test_the_source_writes_the_file_and_says_whether_it_is_up_to_date(tmp_path: Path) -> None:
    command = [sys.executable, shutil.copy(SOURCE, tmp_path)]

    def exit_code(*flags: str) -> int:
        return subprocess.run([*command, *flags], capture_output=True, timeout=60, check=False).returncode

    target = tmp_path / "wix-calendar-monitor.json"
    assert exit_code("--check") == 1
    assert exit_code() == 0
    assert exit_code("--check") == 0
    target.write_text(target.read_text().replace("Unwell", "Ill"))
    assert exit_code("--check") == 1
    assert exit_code("--chekc") == 1


def test_the_panels_fill_the_grid_and_none_lies_on_another() -> None:
    taken: list[tuple[int, int]] = []
    for each in DASHBOARD["panels"]:
        x, y, width, height = (each["gridPos"][key] for key in ("x", "y", "w", "h"))
        taken += [(column, line) for line in range(y, y + height) for column in range(x, x + width)]
    lines = 1 + max(line for _, line in taken)
    assert sorted(taken) == [(column, line) for column in range(build.WIDTH) for line in range(lines)]


def test_there_are_not_more_panels_than_a_person_can_read() -> None:
    assert 0 < len(PANELS) <= 32
    assert [each["title"] for each in DASHBOARD["panels"] if each["type"] == "row"] == [
        row.title for row in build.ROWS
    ]
    numbers = [each["id"] for each in DASHBOARD["panels"]]
    assert len({*numbers}) == len(numbers)


@EACH_PANEL
def test_a_panel_says_in_sentences_what_it_shows(panel: dict[str, Any]) -> None:
    assert len(panel["description"].split()) >= 6
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["noValue"]


@EACH_PANEL
def test_a_panel_takes_the_datasource_that_is_chosen(panel: dict[str, Any]) -> None:
    sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
    assert {each["uid"] for each in sources} == {"${datasource}"}


@EACH_PANEL
def test_no_colour_stands_without_a_text(panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    own = [each["value"] for over in panel["fieldConfig"]["overrides"] for each in over["properties"]]
    mappings = [*defaults["mappings"], *(each for value in own if isinstance(value, list) for each in value)]
    words = [word for each in mappings for word in each.get("options", {}).values()]
    assert all(word["text"] for word in words)
    assert panel["options"].get("textMode") != "none"
    if panel["type"] == "timeseries":
        assert panel["options"]["legend"]["showLegend"]
        assert all(target["legendFormat"] for target in panel["targets"])
    if panel["type"] == "state-timeline":
        assert panel["options"]["showValue"] != "never"
        assert words != []


def test_what_is_empty_or_plain_is_not_green() -> None:
    bases = [each["fieldConfig"]["defaults"]["thresholds"]["steps"][0] for each in PANELS]
    assert {base["value"] for base in bases} == {None}
    assert {base["color"] for base in bases} == {"text", build.GRAY}


def test_every_series_is_a_family_of_ours_or_a_recorded_one_or_of_prometheus() -> None:
    own = {f"{each.name}{suffix}" for each in FAMILIES for suffix in _suffixes(each.type)}
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    asked = set[str]().union(*(_series(query.expr) for query in QUERIES))
    strange = {
        name
        for name in asked - own - recorded - {"ALERTS", "up"}
        if not re.fullmatch(r"(process|python)_\w+", name)
    }
    assert strange == set()
    assert len(asked & own) > 20
    assert len(asked & recorded) > 5


def _suffixes(kind: Type) -> tuple[str, ...]:
    return ("_bucket", "_count", "_sum") if kind is Type.HISTOGRAM else ("",)


def _series(expr: str) -> set[str]:
    """The names of the series of an expression: what is left without its texts, labels, ranges and words."""
    bare = re.sub(r'"[^"]*"', "", expr)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|on|ignoring|group_left)\s*\([^)]*\)", " ", bare)
    return {*re.findall(r"\b[a-zA-Z_:][\w:]*\b(?!\s*\()", bare)} - {"or", "and", "unless"}


def test_the_words_for_numbers_are_those_of_the_monitor() -> None:
    assert {word.text for word in build.STATUSES[1:]} == {*Status}
    assert {word.text for word in build.REASONS} == {*ErrorReason}
    assert {word.text for word in build.DOWN_REASONS} == {*FailureReason}


@EACH_PANEL
def test_no_number_has_two_words_in_one_panel(panel: dict[str, Any]) -> None:
    made = next(each for row in build.ROWS for each in row.panels if each.description == panel["description"])
    codes = [word.code for word in made.words]
    assert len({*codes}) == len(codes)


def test_every_alert_of_ours_is_among_those_that_the_dashboard_shows() -> None:
    shown = next(
        match[1] for query in QUERIES if (match := re.search(r'ALERTS\{alertname=~"([^"]*)"', query.expr))
    )
    alerts = [rule["alert"] for rule in RULES if "alert" in rule]
    assert [name for name in alerts if not re.fullmatch(shown, name)] == []
    assert alerts != []


def test_what_may_be_old_is_never_asked_for_without_its_age() -> None:
    remembered = re.compile(r"wix_calendar_connection_(status|error_reason|sync_enabled)\b")
    asked = [query for query in QUERIES if remembered.search(query.expr)]
    assert [query for query in asked if "wix_calendar_connection_stale" not in query.expr] == []
    assert len(asked) > 3


@EACH_QUERY
def test_a_query_uses_no_variable_that_nobody_sets(query: Asked) -> None:
    used = re.findall(r"\$\{?([a-z_]\w*)", query.expr)
    assert {*used} <= {*VARIABLES, "__rate_interval", "__range", "__interval"}


# ── the queries, run ─────────────────────────────────────────────────────────────────────────────────

FACTOR: Final = 30
"""A look at the monitor every half second, and what is recorded every 5 minutes, every 10 seconds."""

NAMES: Final = ("anna", "ben", "cleo", "dora", "emil", "gina")
CHOSEN: Final = ("anna", "dora", "emil")
"""Whose timelines are looked at: one in ERROR, one in maintenance, and one that is stale."""

Labels = dict[str, str]
Found = list[tuple[Labels, float]]
"""Each series that a query finds, and the last of its values that is a number."""


@dataclass
class Moment:
    """What every query found when the fleet was in one state, by the connection that is chosen."""

    found: Mapping[tuple[Asked, str], Found]

    def all_of(self, query: Asked) -> Found:
        """Whichever connection is chosen."""
        return [each for (asked, _), found in self.found.items() if asked == query for each in found]

    def of(self, title: str, kind: str, chosen: str = "anna", ref: str = "A") -> Found:
        """What one query of the panel of that title and kind found."""
        panel = next(each["id"] for each in PANELS if (each["title"], each["type"]) == (title, kind))
        return next(
            found
            for (asked, its), found in self.found.items()
            if (asked.panel, asked.ref, its) == (panel, ref, chosen)
        )

    def counts(self) -> list[float]:
        """How many calendars are healthy, unwell, unknown and in maintenance."""
        return [
            value
            for title in ("Healthy", "Unwell", "Unknown", "In maintenance")
            for _, value in self.of(title, "stat")
        ]


@dataclass
class Seen:
    """The fleet when all is well, when much has happened, when the monitor is gone; what can be chosen."""

    quiet: Moment
    eventful: Moment
    gone: Moment
    offered: dict[str, set[str]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seen(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Seen]:
    folder = tmp_path_factory.mktemp("dashboard")
    connections = [Connection(id=name, import_enabled=True, export_enabled=True) for name in NAMES]
    sites = (oauth_site("downtown", connections), key_site("uptown", [Connection(id="fred")]))
    scenario = Scenario(sites=sites)
    async with Simulator(scenario) as simulator:
        config = write_config(folder, simulator.base_url, scenario, site={"team": "front-desk"})
        _maintain(config, "dora")
        async with running(config) as daemon:
            target = (await daemon.url()).removeprefix("http://")
            async with _looking_at(folder, target) as api:
                yield await _watch(simulator, daemon, api)


@asynccontextmanager
async def _looking_at(folder: Path, target: str) -> AsyncIterator[Api]:
    """Prometheus with the shipped rules; it sees the monitor twice, as where two watch the same calendars."""
    address, nobody = free_address(), free_address()
    shipped = Shipped(DEPLOY, FACTOR)
    async with prometheus(require("prometheus"), shipped, folder, address, target, nobody) as server:
        config = yaml.safe_load((folder / "prometheus.yml").read_text())
        config["scrape_configs"][0]["static_configs"][0]["targets"].append(_otherwise_named(target))
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        await server.take_rules(shipped, folder)
        api = Api(address)
        try:
            yield api
        finally:
            await api.close()


def _otherwise_named(target: str) -> str:
    return target.replace("127.0.0.1", "localhost")


async def _watch(simulator: Simulator, daemon: Daemon, api: Api) -> Seen:
    quiet = await _settled(api, CHOSEN[:1], [6, 0, 0, 1], news=False)
    await _let_things_happen(simulator, api)
    eventful = await _settled(api, CHOSEN, [1, 3, 2, 1], news=True)
    offered = {name: await _offered(api, name) for name in ("site", "connection")}
    await daemon.stop()
    # Not between the rules of one evaluation.
    forgotten = f"count(up == 0) == 2 unless on () {build.STALE} unless on () {build.DOWN}"
    await until(lambda: _query(api, forgotten))
    return Seen(quiet, eventful, await _look(api, CHOSEN), offered)


def _maintain(config: Path, name: str) -> None:
    document = yaml.safe_load(config.read_text())
    for each in document["sites"][0]["connections"]:
        if each["id"] == name:
            each["maintenance_until"] = "2999-12-31T00:00:00Z"
    config.write_text(yaml.safe_dump(document))


async def _let_things_happen(simulator: Simulator, api: Api) -> None:
    simulator.set_status("anna", "ERROR", "TOKEN_REVOKED")
    simulator.set_status("ben", "DISCONNECTED")
    simulator.set_status("cleo", "NOT_FOUND")
    simulator.set_status("dora", "ERROR", "EXTERNAL_CALENDAR_DELETED")
    simulator.set_status("emil", "ERROR", "TOKEN_REVOKED")
    simulator.set_fault({"status": 503}, sites=["uptown"])
    known = 'wix_calendar_connection_healthy{connection="emil"} == 0'
    await until(lambda: _query(api, known))
    simulator.set_fault("not_json", ["emil"])  # from now on that ERROR is a memory


async def _settled(api: Api, chosen: Iterable[str], counts: list[float], *, news: bool) -> Moment:
    """The first moment in which the fleet is as told and every query finds what it is to; or the last."""
    moment, looks = Moment({}), 0

    async def settled() -> bool:
        nonlocal moment, looks
        moment = await _look(api, chosen)
        fits = not _missing(moment, news=news) and moment.counts() == counts
        looks = looks + 1 if fits else 0
        return looks > 1  # a look takes a while: what it saw is of one moment once two agree

    with suppress(TimeoutError):  # the tests say what is missing
        await until(settled, seconds=45)
    return moment


async def _look(api: Api, chosen: Iterable[str]) -> Moment:
    return Moment({(query, name): await _run(api, query, name) for name in chosen for query in QUERIES})


def _missing(moment: Moment, *, news: bool) -> list[Asked]:
    wanted = (query for query in QUERIES if news or query.expr not in NEWS)
    return [query for query in wanted if query.expr not in ELSEWHERE and not moment.all_of(query)]


async def _run(api: Api, query: Asked, chosen: str) -> Found:
    expr = _filled_in(query.expr, chosen)
    if query.instant:
        return await _query(api, expr)
    now = Clock().now().timestamp()
    times = {"start": str(now - 5), "end": str(now), "step": "1"}
    answer = await api.get("/api/v1/query_range", query=expr, **times)
    return list(_numbers((each["metric"], each["values"]) for each in answer["data"]["result"]))


async def _query(api: Api, expr: str) -> Found:
    answer = await api.get("/api/v1/query", query=expr)
    return list(_numbers((each["metric"], [each["value"]]) for each in answer["data"]["result"]))


def _numbers(series: Iterable[tuple[Labels, list[tuple[float, str]]]]) -> Iterator[tuple[Labels, float]]:
    for labels, samples in series:
        numbers = [float(text) for _, text in samples if math.isfinite(float(text))]
        if numbers:
            yield labels, numbers[-1]


def _filled_in(expr: str, chosen: str) -> str:
    given = {"__rate_interval": "5s", "__range": "1m", "__interval": "1s", "site": ".+", "connection": chosen}
    return re.sub(r"\$([a-z_]\w*)", lambda found: given[found[1]], expr)


async def _offered(api: Api, name: str) -> set[str]:
    match = re.fullmatch(r"label_values\((.+), (\w+)\)", VARIABLES[name]["query"]["query"])
    assert match is not None
    series, label = match.groups()
    found = await _query(api, _filled_in(f"group by ({label}) ({series})", ""))
    return {labels[label] for labels, _ in found}


@pytest.mark.real
@EACH_QUERY
def test_a_query_finds_something_when_much_has_happened(query: Asked, seen: Seen) -> None:
    assert (seen.eventful.all_of(query) == []) is (query.expr in ELSEWHERE)


@pytest.mark.real
@EACH_QUERY
def test_when_all_is_well_a_query_finds_something_unless_it_is_for_news(query: Asked, seen: Seen) -> None:
    assert (seen.quiet.all_of(query) == []) is (query.expr in NEWS)


@pytest.mark.real
@pytest.mark.parametrize("panel", [each for each in PANELS if each["type"] == "table"], ids=_title)
def test_every_column_of_a_table_is_a_label_or_a_value_of_its_queries(
    panel: dict[str, Any], seen: Seen
) -> None:
    queries = [query for query in QUERIES if query.panel == panel["id"]]
    labels = {label for query in queries for its, _ in seen.eventful.all_of(query) for label in its}
    values = {f"Value #{query.ref}" for query in queries} if len(queries) > 1 else {"Value"}
    shown = next(each for each in panel["transformations"] if each["id"] == "filterFieldsByName")
    assert {*shown["options"]["include"]["names"]} <= labels | values


@pytest.mark.real
def test_each_calendar_is_counted_once(seen: Seen) -> None:
    assert seen.quiet.counts() == [6, 0, 0, 1]
    assert seen.eventful.counts() == [1, 3, 2, 1]
    assert [value for _, value in seen.quiet.of("Sites down", "stat")] == [0]
    assert [value for _, value in seen.eventful.of("Sites down", "stat")] == [1]


@pytest.mark.real
def test_the_unwell_are_told_with_status_or_reason_and_whose_they_are(seen: Seen) -> None:
    rows = [labels for labels, _ in seen.eventful.of("Unwell calendars, the worst first", "table")]
    told = {(row["rank"], row["connection"], row["state"]) for row in rows}
    assert told == {
        ("1", "anna", "ERROR: TOKEN_REVOKED"),
        ("1", "cleo", "NOT_FOUND"),
        ("2", "ben", "DISCONNECTED"),
    }
    assert {(row["site"], row["team"], row["calendar_type"]) for row in rows} == {
        ("downtown", "front-desk", "GOOGLE")
    }


@pytest.mark.real
def test_the_unknown_are_told_with_what_they_were_last(seen: Seen) -> None:
    rows = seen.eventful.of("Unknown calendars", "table")
    told = {(labels["site"], labels["connection"], labels["state"]) for labels, _ in rows}
    assert told == {("downtown", "emil", "ERROR: TOKEN_REVOKED"), ("uptown", "fred", "SYNCED")}
    assert all(value > 0 for _, value in rows)


@pytest.mark.real
def test_a_site_that_is_down_is_told_with_its_reason(seen: Seen) -> None:
    [(labels, last_answer)] = seen.eventful.of("Sites down", "table")
    assert (labels["site"], labels["reason"]) == ("uptown", "server_error")
    assert last_answer > 0
    bands = {
        labels["site"]: value for labels, value in seen.eventful.of("Does Wix answer us?", "state-timeline")
    }
    assert bands == {"downtown": 0, "uptown": _code(build.DOWN_REASONS, "server_error")}


@pytest.mark.real
def test_a_stale_status_is_shown_nowhere_as_a_present_one(seen: Seen) -> None:
    not_known = _code(build.STATUSES, "NOT KNOWN")
    for title, kind in (("Now", "stat"), ("Timeline", "state-timeline")):
        assert [value for _, value in seen.eventful.of(title, kind, "emil")] == [not_known]
    assert seen.eventful.of("Since", "stat", "emil") == []
    assert seen.eventful.of("Last successful poll ago", "stat", "emil") != []
    [ages] = (
        seen.eventful.of("Timeline", "state-timeline", "emil", ref)
        for ref, query in _refs("Timeline").items()
        if query.endswith("age of the news")
    )
    assert [value for _, value in ages] == [_code(build.AGES, "STALE")]
    counts = {
        labels["status"]: value
        for labels, value in seen.eventful.of("Calendars by status", "timeseries")
        if value
    }
    assert counts == {"ERROR": 2, "DISCONNECTED": 1, "NOT_FOUND": 1, "SYNCED": 1}
    assert [value for _, value in seen.eventful.of("Calendars by status", "timeseries", ref="B")] == [2]


@pytest.mark.real
def test_the_present_status_is_shown_as_its_word(seen: Seen) -> None:
    assert [value for _, value in seen.quiet.of("Now", "stat")] == [_code(build.STATUSES, "SYNCED")]
    assert [value for _, value in seen.eventful.of("Now", "stat")] == [_code(build.STATUSES, "ERROR")]
    reason = seen.eventful.of("Now", "stat", ref="B")
    assert [value for _, value in reason] == [_code(build.REASONS, "TOKEN_REVOKED")]


@pytest.mark.real
def test_each_monitor_tells_whether_it_is_alive(seen: Seen) -> None:
    ages = seen.eventful.of("Monitor: last tick ago", "stat")
    assert len({labels["instance"] for labels, _ in ages}) == 2
    assert all(0 <= age < 60 for _, age in ages)


@pytest.mark.real
def test_when_the_monitor_is_gone_nothing_is_shown_as_known(seen: Seen) -> None:
    assert [value for _, value in seen.gone.of("Monitor: last tick ago", "stat")] == [-1, -1]
    told = {query.title for query in QUERIES if query.instant and seen.gone.all_of(query)}
    history = {"Changes", "Seen unwell", "The week, by site"}
    assert told == {"Monitor: last tick ago", "Alerts firing"} | history


@pytest.mark.real
def test_a_firing_alert_is_shown(seen: Seen) -> None:
    rows = [labels for labels, _ in seen.eventful.of("Alerts firing", "table")]
    assert ("WixCalendarTokenRevoked", "anna") in {(row["alertname"], row.get("connection")) for row in rows}


@pytest.mark.real
def test_the_variables_offer_every_site_and_every_calendar(seen: Seen) -> None:
    assert seen.offered == {"site": {"downtown", "uptown"}, "connection": {*NAMES, "fred"}}


def _code(words: tuple[build.Word, ...], text: str) -> int:
    return next(word.code for word in words if word.text == text)


def _refs(title: str) -> dict[str, str]:
    """The legends of a panel's queries."""
    panel = next(each for each in PANELS if each["title"] == title)
    return {target["refId"]: target["legendFormat"] for target in panel["targets"]}
