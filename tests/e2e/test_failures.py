"""The operators' table of what can go wrong (monitor/wix/README.md), played row by row to the real daemon.

Every row has a daemon, a store and a server of its own; they run side by side, and each is a test. First Wix
answers well, so that all is SYNCED; then it goes wrong in the row's way; then all is well again.
"""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import pytest_asyncio

from monitor.core.classify import Heard
from monitor.core.model import FailureReason
from monitor.metrics.families import BY_NAME
from monitor.simulator import Connection, Scenario
from tests.certificates import ELSEWHERE, serving
from tests.e2e import test_many_sites
from tests.e2e.faults import PLOTS, Names, Plot, Scene, tunnel
from tests.e2e.table import METRICS, MOVES, ROWS, RULE, Row, word
from tests.fleet import API_KEY, CLIENT_SECRET, key_site, oauth_site, write_config
from tests.inside import Inside, Line, inside
from tests.pages import Samples
from tests.wix.plays import dead_port
from tests.wix.servers import REQUEST_ID, TOKEN, RawServer, gives, until

CONNECTIONS: Final = [f"c{number}" for number in range(5)]
BREAKER: Final = 4
POLLING: Final = {"breaker_failures": BREAKER}
PLAYED_ELSEWHERE: Final = {
    "300 of 1,000 sites hang": test_many_sites.test_sites_that_hang_leave_the_others_alone
}
PLAYED_HERE: Final = [row for row in ROWS if row.happens in PLOTS]


# --- what is seen ---------------------------------------------------------------------------------------


class Trial(NamedTuple):
    """A row under way: its daemon, how much had been logged when it began to go wrong, and when that was."""

    row: Row
    plot: Plot
    daemon: Inside
    since: int
    began: datetime

    def told(self, event: str) -> list[Line]:
        return self.daemon.log.events(event, self.since)

    async def hears(self, count: int, event: str) -> list[Line]:
        return await self.daemon.log.until(count, event, self.since)


def of_all(page: Samples, family: str, status: str = "") -> set[float | None]:
    """The values that the connections have; None: one has none."""
    return {page.get((f"wix_calendar_connection_{family}", name, status)) for name in CONNECTIONS}


def of_site(page: Samples, family: str) -> float:
    return page[f"wix_calendar_site_{family}", "downtown", ""]


def by_reason(page: Samples, family: str) -> dict[str, float]:
    """The site's values that are not 0."""
    wanted = (f"wix_calendar_site_{family}", "downtown")
    return {reason: value for (*of, reason), value in page.items() if (*of,) == wanted and value}


def has_failed(page: Samples, name: str) -> bool:
    return page["wix_calendar_connection_poll_success", name, ""] == 0


def is_well(page: Samples) -> bool:
    seen = [of_all(page, family) for family in ("healthy", "stale", "poll_success")]
    return seen == [{1}, {0}, {1}] and of_all(page, "status", "SYNCED") == {1}


def is_stale(page: Samples) -> bool:
    return of_all(page, "stale") == {1}


def assert_up(page: Samples) -> None:
    assert of_site(page, "up") == 1
    assert of_site(page, "breaker_open") == 0
    assert by_reason(page, "down_reason") == {}


def assert_blind(page: Samples, trial: Trial) -> None:
    """The failures are counted; what was known is still told as it was, but does not pass for health."""
    assert set(by_reason(page, "request_failures_total")) == (
        {trial.row.reason} if trial.plot.asks else set()
    )
    assert of_all(page, "status", "SYNCED") == {1}
    assert of_all(page, "transitions_total") == {0}
    assert of_all(page, "healthy") == {None}


def assert_words(line: Line, row: Row) -> None:
    """A line says what the table says of it."""
    assert line["reason"] == row.reason
    assert line["http_status"] in row.statuses
    assert line["request_id"] == ("" if line["http_status"] is None else REQUEST_ID)
    pattern = ".*".join(re.escape(part) for part in (row.detail or "").split("…"))
    assert re.fullmatch(pattern, line.get("detail", "")), line.get("detail", "")


# --- the courses that a row can take --------------------------------------------------------------------


async def the_site_goes_down(trial: Trial) -> None:
    """One line for the site, after some for the connections that met the first failures of the row."""
    (down,) = await trial.hears(1, "site_down")
    before = trial.told("connection_polls_failing")
    for line in (*before, down):
        assert_words(line, trial.row)
    assert (down["level"], down["site"], down["connections"]) == ("error", "downtown", len(CONNECTIONS))
    assert trial.began <= down["since"] < down["next_trial_at"]
    if trial.row.down == "at once":
        assert before == []
    else:
        assert len(before) == BREAKER - 1 or (trial.plot.renews and len(before) >= BREAKER)
        assert {line["http_status"] for line in (*before, down)} == trial.row.statuses
    page = await trial.daemon.until(is_stale)
    assert (of_site(page, "up"), of_site(page, "breaker_open")) == (0, 1)
    assert by_reason(page, "down_reason") == {trial.row.reason: 1}
    assert all(has_failed(page, line["connection"]) for line in before)
    assert any(has_failed(page, name) for name in CONNECTIONS)
    assert_blind(page, trial)


async def the_site_comes_up(trial: Trial) -> None:
    (up,) = await trial.hears(1, "site_up")
    (down,) = trial.told("site_down")
    same = ("site", "reason", "http_status", "request_id", "since", "connections")
    assert {key: up[key] for key in same} == {key: down[key] for key in same}
    assert up["level"] == "info"
    assert up["duration_seconds"] > 0


async def each_connection_fails(trial: Trial) -> None:
    """A line for each connection; the site stays up."""
    failing = await trial.hears(len(CONNECTIONS), "connection_polls_failing")
    assert {line["connection"] for line in failing} == set(CONNECTIONS)
    assert {line["http_status"] for line in failing} == trial.row.statuses
    for line in failing:
        assert_words(line, trial.row)
        assert (line["level"], line["failures"]) == ("warning", 1)
    page = await trial.daemon.until(is_stale)
    assert of_all(page, "poll_success") == {0}
    assert_up(page)
    assert_blind(page, trial)


async def each_connection_recovers(trial: Trial) -> None:
    recovered = await trial.hears(len(CONNECTIONS), "connection_polls_recovered")
    assert {line["connection"] for line in recovered} == set(CONNECTIONS)


async def the_site_waits(trial: Trial) -> None:
    """One line for the site, however often it is told to wait."""
    (limited,) = await trial.hears(1, "rate_limited")
    assert (limited["level"], limited["request_id"]) == ("warning", REQUEST_ID)
    least, most = trial.plot.wait
    assert least <= limited["wait_seconds"] <= most
    assert trial.row.wait_seconds in (None, limited["wait_seconds"])
    page = await trial.daemon.until(is_stale)
    assert any(has_failed(page, name) for name in CONNECTIONS)
    assert of_site(page, "throttled_seconds_total") > 0
    assert_up(page)
    assert_blind(page, trial)
    if trial.row.wait_seconds is None:
        await trial.daemon.until(lambda page: by_reason(page, "request_failures_total")["rate_limited"] > 1)


async def the_wait_is_over(trial: Trial) -> None:
    if trial.row.wait_seconds is not None:  # the minute that Wix asks for by default is not waited for
        return
    (lifted,) = await trial.hears(1, "rate_limit_lifted")
    assert lifted["level"] == "info"
    assert trial.began <= lifted["since"]
    assert lifted["duration_seconds"] >= trial.plot.wait[0]
    assert len(trial.told("rate_limited")) == 1 or trial.plot.renews
    assert trial.told("connection_polls_failing") == []


async def nothing_is_found(trial: Trial) -> None:
    """An answer like any other, and a change of what is known."""
    gone = await trial.hears(len(CONNECTIONS), "connection_transition")
    assert {line["connection"] for line in gone} == set(CONNECTIONS)
    assert {(line["from_status"], line["to_status"]) for line in gone} == {("SYNCED", "NOT_FOUND")}
    page = await trial.daemon.look()
    assert of_all(page, "poll_success") == {1}
    assert of_all(page, "healthy") == {0}
    assert by_reason(page, "request_failures_total") == {}
    assert_up(page)


async def it_is_found_again(trial: Trial) -> None:
    again = await trial.hears(2 * len(CONNECTIONS), "connection_transition")
    assert [line["to_status"] for line in again[len(CONNECTIONS) :]] == ["SYNCED"] * len(CONNECTIONS)


async def nothing_happens(trial: Trial) -> None:
    before = of_site(await trial.daemon.look(), "requests_total")
    page = await trial.daemon.until(lambda page: of_site(page, "requests_total") >= before + len(CONNECTIONS))
    assert is_well(page)
    assert by_reason(page, "request_failures_total") == {}
    assert_up(page)


async def nothing_was_told(trial: Trial) -> None:
    assert trial.daemon.log.lines[trial.since :] == []


Course = tuple[Callable[[Trial], Awaitable[None]], Callable[[Trial], Awaitable[None]]]


def course(row: Row) -> Course:
    """What is seen while it lasts, and when it is over."""
    if row.down != "no":
        return the_site_goes_down, the_site_comes_up
    if row.reason == FailureReason.RATE_LIMITED:
        return the_site_waits, the_wait_is_over
    if row.reason is not None:
        return each_connection_fails, each_connection_recovers
    if row.event:
        return nothing_is_found, it_is_found_again
    return nothing_happens, nothing_was_told


# --- all rows at a time ---------------------------------------------------------------------------------


async def between_two_polls(server: RawServer) -> None:
    """Wait for the moment after an answer: what begins then finds no request under way."""
    heard = len(server.heard)
    await until(lambda: len(server.heard) > heard, rounds=500_000)
    for _ in range(10):  # the answer is read
        await asyncio.sleep(0)


async def play(row: Row, scene: Scene, daemon: Inside) -> None:
    plot = PLOTS[row.happens]
    during, after = course(row)
    await between_two_polls(scene.server)
    trial = Trial(row, plot, daemon, len(daemon.log.lines), datetime.now(UTC))  # noqa: TID251  as the log's
    async with plot.fault(scene):
        await during(trial)
    await after(trial)
    if row.wait_seconds is None:
        assert_up(await daemon.until(is_well))
        assert len(trial.told("rate_limited")) == len(trial.told("rate_limit_lifted"))
    assert len(trial.told("site_down")) == len(trial.told("site_up")) == (row.down != "no")
    failing, recovered = trial.told("connection_polls_failing"), trial.told("connection_polls_recovered")
    assert {line["connection"] for line in failing} == {line["connection"] for line in recovered}


def assert_no_secret_in(daemon: Inside) -> None:
    told = repr(daemon.log.lines) + "".join(daemon.pages)
    assert [secret for secret in (CLIENT_SECRET, API_KEY, TOKEN) if secret in told] == []


def config(scene: Scene, plot: Plot) -> Path:
    site = key_site if plot.api_key else oauth_site
    scenario = Scenario(sites=(site("downtown", [Connection(id=name) for name in CONNECTIONS]),))
    url = f"https://{plot.host}:{scene.server.port}" if plot.tls else scene.server.url
    api: dict[str, object] = {"timeout": plot.timeout}
    if plot.tls:
        api["ca_file"] = str(scene.certificates / "ca.pem")
    if plot.proxied:
        api["proxy_url"] = scene.proxy.url
    return write_config(scene.folder, url, scenario, polling=POLLING, api=api)


async def run(row: Row, folder: Path, certificates: Path, names: Names, curtain: asyncio.Barrier) -> None:
    """A row's whole life; nothing goes wrong anywhere before all is well everywhere."""
    plot = PLOTS[row.happens]
    usual = gives(token_life=plot.token_life, leaves=plot.leaves)
    shown = "wrong-name" if plot.host == ELSEWHERE else "right"
    speaks = serving(certificates, shown) if plot.tls else None
    try:
        async with RawServer(usual, speaks) as server, RawServer(tunnel) as proxy:
            scene = Scene(row, folder, certificates, names, server, proxy, usual)
            async with inside(config(scene, plot)) as daemon:
                await daemon.log.until(len(CONNECTIONS), "connection_first_seen")
                await daemon.until(is_well)
                await curtain.wait()
                await play(row, scene, daemon)
    except BaseException:
        await curtain.abort()  # the others would wait for ever for one that cannot come
        raise
    assert_no_secret_in(daemon)


Runs = dict[str, asyncio.Task[None]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificates: Path
) -> AsyncIterator[Runs]:
    """The rows that are wanted, all under way."""
    tests = [item for item in request.session.items if isinstance(item, pytest.Function)]
    asked = [test.callspec.params["row"] for test in tests if test.function is test_a_row_is_true]
    wanted = [row for row in PLAYED_HERE if row in asked]
    names, curtain = Names(), asyncio.Barrier(len(wanted))
    loop = asyncio.get_running_loop()
    with pytest.MonkeyPatch.context() as patch, dead_port() as nowhere:
        patch.setattr(socket, "getaddrinfo", names)
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            patch.setenv(name, f"http://127.0.0.1:{nowhere}")
            patch.setenv(name.upper(), f"http://127.0.0.1:{nowhere}")
        tasks = {
            row.happens: loop.create_task(
                run(row, tmp_path_factory.mktemp("row"), certificates, names, curtain)
            )
            for row in wanted
        }
        yield tasks
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.alone
@pytest.mark.parametrize("row", PLAYED_HERE, ids=[row.happens for row in PLAYED_HERE])
async def test_a_row_is_true(row: Row, runs: Runs) -> None:
    await runs[row.happens]


def test_every_row_has_a_play_and_every_play_a_row() -> None:
    assert sorted(row.happens for row in ROWS) == sorted([*PLOTS, *PLAYED_ELSEWHERE])


def test_every_reason_is_played_and_somebody_is_to_act_on_it() -> None:
    assert {row.reason for row in ROWS} == {None, *FailureReason}
    assert [word(reason) for reason, *_ in MOVES] == list(FailureReason)


def test_the_rule_is_the_codes() -> None:
    assert [[answer, word(reason), effect] for answer, reason, effect in RULE] == [
        [heard.answer, heard.reason, heard.breaker.value] for heard in Heard
    ]


def test_the_families_exist() -> None:
    assert {family.strip("`").split("{")[0] for family, _ in METRICS} <= set(BY_NAME)
