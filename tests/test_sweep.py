"""One site's sweep in virtual time: its phases, its misses, its trials, its extra looks, its end.

Everything is real down to the HTTP session, which is ours: it answers by a script and writes down who asked
when. The event loop's clock leaps from timer to timer, so that minutes pass in milliseconds.
"""

import asyncio
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec
import pytest

from monitor.clock import Clock
from monitor.config import ApiKeyCredential, ApiSettings, OAuthCredential, SecretSource
from monitor.core.model import (
    Answer,
    Connection,
    ConnectionState,
    FailureReason,
    NoAnswer,
    Policy,
    PollFailed,
    Status,
)
from monitor.core.plan import in_phase_order, seconds_to_first, site_offset
from monitor.core.site import Site
from monitor.metrics.exposition import Dialect
from monitor.metrics.telemetry import Telemetry
from monitor.report import Reporter
from monitor.sweep import Sweep
from monitor.view.failures import Failures
from monitor.wix.client import Api, WixClient
from monitor.wix.pace import Pace, Slots
from tests.stage import ENVELOPE, Books, recorder

# A power of two makes sums of the loop's times exact: else it could wait for a float's last bit for ever.
pytestmark = [pytest.mark.looptime(resolution=2**-20), pytest.mark.timeout(20)]

EPOCH: Final = 1_800_000_000.0  # about what the wall clock says when the loop's says 0
LATENCY: Final = 0.2
UNAVAILABLE: Final = Answer(503, ENVELOPE)

Answers = Answer | NoAnswer | Exception
Script = Callable[[str, float], tuple[float, Answers]]
"""Connection id and time asked in, seconds to the answer and the answer out."""


class Request(NamedTuple):
    connection_id: str
    at: float


def observed(connection_id: str, status: str = "SYNCED", reason: str | None = None) -> Answer:
    body = {"connection": {"id": connection_id, "status": status, "errorReason": reason}}
    return Answer(200, json.dumps(body).encode())


def synced(connection_id: str, _: float) -> tuple[float, Answers]:
    return LATENCY, observed(connection_id)


class ScriptedApi(Api):
    """Answers by a script instead of over a network; never two requests of one connection at a time."""

    def __init__(self, clock: Clock, script: Script) -> None:
        settings = ApiSettings("https://wix.invalid", timedelta(seconds=10), 256, None, None, False)  # noqa: FBT003
        super().__init__(settings, clock, lambda _: None)
        self.script = script
        self.requests: list[Request] = []
        self.tokens: list[float] = []
        self.token = Answer(200, b'{"access_token": "canary-token", "expires_in": 1}')
        self.token_seconds = 0.0
        self._in_flight: set[str] = set()

    async def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Mapping[str, str] | None = None,
        may_go: Callable[[], bool] = lambda: True,
    ) -> Answer | NoAnswer:
        assert may_go()
        del headers, body
        if method == "POST":
            self.tokens.append(asyncio.get_running_loop().time())
            await asyncio.sleep(self.token_seconds)
            return self.token
        connection_id = path.rpartition("/")[2]
        assert connection_id not in self._in_flight, "two polls of one connection at a time"
        now = asyncio.get_running_loop().time()
        self.requests.append(Request(connection_id, now))
        self._in_flight.add(connection_id)
        try:
            delay, answer = self.script(connection_id, now)
            await asyncio.sleep(delay)
        finally:
            self._in_flight.discard(connection_id)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def times(self, connection_id: str) -> list[float]:
        return [each.at for each in self.requests if each.connection_id == connection_id]


@dataclass
class Stage:
    """A sweep with all around it, and somebody who ticks it."""

    sweep: Sweep
    api: ScriptedApi
    ledger: Books
    telemetry: Telemetry
    clock: Clock
    epoch: float
    lines: list[Mapping[str, Any]]
    failures: Failures
    crashes: list[tuple[str, Exception]] = field(default_factory=list)
    task_errors: list[BaseException] = field(default_factory=list)

    async def run(self, seconds: float, *, late: Callable[[], float] = lambda: 0.0) -> None:
        """Tick every period for so long, each tick late by so many seconds."""
        loop = asyncio.get_running_loop()
        period = self.sweep.tick_period.total_seconds()
        end, tick = loop.time() + seconds, loop.time()
        while tick < end:
            await asyncio.sleep(max(tick + late() - loop.time(), 0.0))
            self.sweep.tick()
            tick += period
        await asyncio.sleep(max(end - loop.time(), 0.0))

    def missed(self) -> dict[str, int]:
        page = self.telemetry.render(Dialect.TEXT).decode()
        start = "wix_calendar_monitor_polls_missed_total{reason="
        rows = [line.removeprefix(start) for line in page.splitlines() if line.startswith(start)]
        return {reason.strip('"'): int(float(n)) for reason, n in (row.split("} ") for row in rows)}

    def lags(self) -> tuple[int, float]:
        """How many polls were started, and how late all of them together."""
        rows = dict(
            line.split(" ")
            for line in self.telemetry.render(Dialect.TEXT).decode().splitlines()
            if line.startswith("wix_calendar_monitor_poll_lag_seconds_")
        )
        name = "wix_calendar_monitor_poll_lag_seconds"
        return int(float(rows[f"{name}_count"])), float(rows[f"{name}_sum"])

    def events(self, name: str) -> list[Mapping[str, Any]]:
        return [line for line in self.lines if line["event"] == name]

    def state(self, connection_id: str) -> ConnectionState:
        return next(each.state for each in self.sweep.watched if each.connection.id == connection_id)


@dataclass
class Set:
    """What is on a stage; seconds."""

    count: int = 4
    interval: float = 60.0
    unsettled: float = 60.0
    dead_every: int = 1
    budget: int = 160
    breaker: int = 3
    oauth: bool = False


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Stage]:
    key = tmp_path / "key"
    key.write_text("canary-key")

    def made(
        script: Script = synced,
        remembered: Mapping[str, ConnectionState] = MappingProxyType({}),
        **options: Any,
    ) -> Stage:
        a_set = Set(**options)
        loop = asyncio.get_running_loop()
        # The first connection is due a millisecond after the start, the others at k/n of the interval.
        epoch = EPOCH + site_offset("downtown") * a_set.interval / max(a_set.count, 1) - 0.001
        clock = Clock(lambda: epoch + loop.time(), loop.time)
        site = Site("downtown", timedelta(seconds=a_set.interval), a_set.breaker, a_set.count)
        pace = Pace(site, a_set.budget, Slots(256), clock, lambda: 0.0)
        api, telemetry = ScriptedApi(clock, script), Telemetry()
        secret = SecretSource(key, None)
        credential = OAuthCredential("app", secret) if a_set.oauth else ApiKeyCredential(secret, "site-id")
        client = WixClient(api, pace, clock, credential, lambda _: None, lambda: None)
        lines: list[Mapping[str, Any]] = []
        reporter = Reporter(recorder(lines), telemetry, clock)
        ledger = Books(reporter, remembered)
        policy = Policy(
            timedelta(seconds=a_set.interval),
            timedelta(seconds=3 * a_set.interval),
            timedelta(seconds=a_set.unsettled),
            dead_every=a_set.dead_every,
        )
        connections = [Connection("downtown", f"c{n}", f"name-{n}", policy) for n in range(a_set.count)]
        crashes: list[tuple[str, Exception]] = []
        errors: list[BaseException] = []
        failures = Failures()
        sweep = Sweep(
            connections,
            client,
            ledger,
            reporter,
            telemetry,
            clock,
            on_crash=lambda connection, error: crashes.append((connection.id, error)),
            on_task_error=errors.append,
            failures=failures,
        )
        sweep.start()
        return Stage(sweep, api, ledger, telemetry, clock, epoch, lines, failures, crashes, errors)

    return made


@pytest.fixture
async def stages(build: Callable[..., Stage]) -> Any:
    """Builds stages, and takes them down again."""
    built: list[Stage] = []

    def made(script: Script = synced, **options: Any) -> Stage:
        built.append(build(script, **options))
        return built[-1]

    yield made
    for stage in built:
        await stage.sweep.drain(0)
        assert stage.task_errors == []
        # Only that is scripted; anything else is a defect of the sweep or of this file.
        assert [error for _, error in stage.crashes if not isinstance(error, ZeroDivisionError)] == []


Stages = Callable[..., Stage]


def phases(stage: Stage, interval: float, after: float = 0.0) -> dict[str, float]:
    """When each connection is due first from the loop's time `after` on."""
    ids = [each.connection.id for each in stage.sweep.watched]
    offset, period = site_offset("downtown"), timedelta(seconds=interval)
    return {
        each: after + seconds_to_first(stage.epoch + after, period, rank + offset, len(ids))
        for rank, each in enumerate(in_phase_order(ids))
    }


# Phases


@pytest.mark.parametrize(("interval", "count"), [(1.0, 1), (1.0, 30), (7.0, 4), (60.0, 30), (600.0, 4)])
async def test_each_connection_is_polled_once_an_interval_at_its_phase(
    stages: Stages, interval: float, count: int
) -> None:
    stage = stages(interval=interval, count=count, budget=100_000)
    await stage.run(10 * interval)
    for connection_id, phase in phases(stage, interval).items():
        due = [phase + n * interval for n in range(10)]
        assert stage.api.times(connection_id) == pytest.approx(due, abs=1e-3)
    started, lag = stage.lags()
    assert started == 10 * count
    assert lag == pytest.approx(0, abs=1e-3 * count)
    assert stage.missed() == {"overlap": 0, "overrun": 0}


async def test_phases_are_spread_evenly_over_the_interval(stages: Stages) -> None:
    stage = stages(count=30)
    await stage.run(59.999)
    starts = sorted(each.at for each in stage.api.requests)
    gaps = [after - before for before, after in itertools.pairwise(starts)]
    assert gaps == pytest.approx([2.0] * 29, abs=1e-3)


async def test_a_restart_keeps_the_phases(stages: Stages) -> None:
    first = stages(count=5)
    await first.run(123.4)
    await first.sweep.drain(7.0)
    second = stages(count=5)
    began = asyncio.get_running_loop().time()
    await second.run(60.0)
    assert [each.at for each in second.api.requests] == pytest.approx(
        sorted(phases(first, 60.0, began).values()), abs=1e-2
    )
    for connection_id in ("c0", "c1", "c2", "c3", "c4"):
        before, (after,) = first.api.times(connection_id), second.api.times(connection_id)
        assert (after - before[0] + 1.0) % 60.0 == pytest.approx(1.0, abs=1e-2)


@pytest.mark.parametrize("late", [0.3, 0.99])
async def test_late_ticks_delay_no_poll(stages: Stages, late: float) -> None:
    stage = stages(count=12, interval=6.0, budget=100_000)
    period = stage.sweep.tick_period.total_seconds()
    delays = itertools.cycle([0.0, late * period, 0.0, late * period, late * period])
    await stage.run(60, late=lambda: next(delays))
    count, lag = stage.lags()
    assert count == 120
    assert lag == pytest.approx(0, abs=0.01)


async def test_what_came_due_in_a_suspend_is_polled_at_the_first_tick_after_it(stages: Stages) -> None:
    stage, loop = stages(count=6), asyncio.get_running_loop()
    await stage.run(5.5)
    assert len(stage.api.requests) == 1
    stage.clock.monotonic = lambda: loop.time() + 50.0  # the loop's own clock has not counted through it
    stage.sweep.tick()
    await asyncio.sleep(1.0)
    assert len(stage.api.requests) == 6


async def test_without_ticks_nothing_is_started_beyond_the_armed(stages: Stages) -> None:
    stage = stages(count=2, interval=4.0)
    await asyncio.sleep(100)
    assert stage.api.requests == []
    stage.sweep.tick()
    await asyncio.sleep(4.0)
    armed = len(stage.api.requests)
    assert armed in (2, 3, 4)
    await asyncio.sleep(100)
    assert len(stage.api.requests) == armed


async def test_an_empty_site_is_no_trouble(stages: Stages) -> None:
    stage = stages(count=0)
    await stage.run(120)
    assert stage.api.requests == []
    assert stage.sweep.snapshot(maintenance=False).connections == 0


@pytest.mark.parametrize(
    ("interval", "period"), [(1.0, 1.0), (2.0, 1.0), (6.0, 3.0), (10.0, 5.0), (3600.0, 5.0)]
)
async def test_ticks_come_every_one_to_five_seconds(stages: Stages, interval: float, period: float) -> None:
    assert stages(interval=interval).sweep.tick_period == timedelta(seconds=period)


# Misses


async def test_a_poll_that_outlasts_the_interval_makes_the_next_ones_overlap(stages: Stages) -> None:
    stage = stages(lambda c, _: (25.0, observed(c)), count=1, interval=10.0)
    await stage.run(94.0)
    # the API lets no two be in flight; of dues at 0, 10 … 90 those at 0, 30, 60 and 90 are started
    assert stage.api.times("c0") == pytest.approx([0, 30, 60, 90], abs=1e-2)
    assert stage.missed() == {"overlap": 6, "overrun": 0}


async def test_a_poll_held_back_by_the_budget_past_its_next_due_is_an_overrun(stages: Stages) -> None:
    stage = stages(count=4, interval=10.0, budget=12)  # 24 a minute are wanted
    await stage.run(600.0)
    started, _ = stage.lags()
    missed = stage.missed()
    waiting = sum(each.stage.value == "waiting" for each in stage.sweep.watched)
    assert missed["overlap"] == 0
    assert started + missed["overrun"] + waiting == 4 * 60
    assert started == len(stage.api.requests) == pytest.approx(120, abs=12)
    assert_within_budget(stage, 12)


async def test_a_poll_that_waits_is_that_of_its_newest_due_instant(stages: Stages) -> None:
    stage = stages(count=1, interval=10.0, budget=1)
    await stage.run(65.0)
    # A request leaves the window 60 s after its end.
    assert stage.api.times("c0") == pytest.approx([0, 60.2], abs=1e-2)
    started, lag = stage.lags()
    assert (started, round(lag, 1)) == (2, 0.2)
    assert stage.missed() == {"overlap": 0, "overrun": 5}


def assert_within_budget(stage: Stage, budget: int) -> None:
    starts = [each.at for each in stage.api.requests]
    for index, at in enumerate(starts[budget:]):
        assert at - starts[index] > 60.0 - 1e-3


async def test_a_stalled_loop_catches_up_without_double_polls(stages: Stages) -> None:
    stalled = [0.0]
    stage = stages(count=6, interval=10.0, budget=100_000)
    loop = asyncio.get_running_loop()
    clock = stage.clock
    clock.monotonic = lambda: loop.time() + stalled[0]  # the loop was away: timers fire, time has passed
    await stage.run(60.0)
    before = len(stage.api.requests)
    stalled[0] = 37.0
    await stage.run(30.0)
    by_connection = Counter(each.connection_id for each in stage.api.requests[before:])
    # 67 s went by: each was due six or seven times; what was run over is missed, the rest is polled
    missed = stage.missed()["overrun"]
    started = sum(by_connection.values())
    assert stage.missed()["overlap"] == 0
    assert missed >= 6 * 2
    assert started + missed == pytest.approx(6 * 6.7, abs=6)
    assert set(by_connection.values()) <= {3, 4}
    for connection_id in by_connection:
        late = [at for at in stage.api.times(connection_id) if at >= 60.0]
        assert all(after - before > 1.0 for before, after in itertools.pairwise(late))
        phase = phases(stage, 10.0)[connection_id]
        in_phase = [(at + 37.0 - phase + 1.0) % 10.0 for at in late[1:]]
        assert in_phase == pytest.approx([1.0] * len(in_phase), abs=1e-2)


async def test_a_stalled_loop_while_the_site_is_down_misses_nothing(stages: Stages) -> None:
    stalled = [0.0]
    stage = stages(lambda _, __: (LATENCY, UNAVAILABLE), count=3, interval=10.0, breaker=2)
    loop = asyncio.get_running_loop()
    stage.clock.monotonic = lambda: loop.time() + stalled[0]
    await stage.run(30.0)
    stalled[0] = 45.0
    await stage.run(30.0)
    assert stage.missed() == {"overlap": 0, "overrun": 0}


# The breaker and Retry-After


async def test_while_the_site_is_down_one_trial_a_back_off_walks_on(stages: Stages) -> None:
    stage = stages(lambda _, __: (LATENCY, UNAVAILABLE), count=4, interval=20.0, breaker=3)
    await stage.run(900.0)
    trials = stage.api.requests[3:]
    gaps = [after.at - before.at for before, after in itertools.pairwise(stage.api.requests[2:])]
    expected = [20, 40, 80, 160, 300]
    assert gaps == pytest.approx([each + LATENCY for each in expected], abs=1e-2)
    ids = [each.connection_id for each in trials]
    assert len(set(ids[:4])) == 4
    assert stage.missed() == {"overlap": 0, "overrun": 0}
    assert len(stage.events("site_down")) == 1
    assert len(stage.events("connection_polls_failing")) == 2, (
        "the third opened the breaker, whose line it is"
    )
    assert stage.sweep.snapshot(maintenance=False).up is False


async def test_after_recovery_the_polls_go_on_in_phase(stages: Stages) -> None:
    def script(connection_id: str, at: float) -> tuple[float, Answers]:
        return LATENCY, UNAVAILABLE if at < 100 else observed(connection_id)

    stage = stages(script, count=4, interval=20.0, breaker=3)
    await stage.run(400.0)
    (up,) = stage.events("site_up")
    back = up["since"].timestamp() - stage.epoch + up["duration_seconds"]
    for connection_id, first in phases(stage, 20.0, back).items():
        regular = [at for at in stage.api.times(connection_id) if at > back]
        assert regular == pytest.approx([first + 20 * n for n in range(len(regular))], abs=1e-2)
        assert len(regular) >= 10
    assert stage.missed() == {"overlap": 0, "overrun": 0}
    snapshot = stage.sweep.snapshot(maintenance=False)
    assert (snapshot.up, snapshot.breaker_open, snapshot.down_reason) == (True, False, None)


async def test_what_waits_for_the_budget_when_the_site_goes_down_is_not_sent_and_not_missed(
    stages: Stages,
) -> None:
    stage = stages(lambda _, __: (5.0, UNAVAILABLE), count=10, interval=10.0, budget=3, breaker=3)
    await stage.run(59.0)
    assert len(stage.api.requests) == 3
    assert stage.missed()["overrun"] == 0
    assert {each.stage.value for each in stage.sweep.watched} <= {"idle", "waiting"}
    assert len(stage.events("site_down")) == 1


async def test_a_429_silences_the_whole_site_for_its_wait_and_is_not_a_miss(stages: Stages) -> None:
    def script(connection_id: str, at: float) -> tuple[float, Answers]:
        limited = Answer(429, ENVELOPE, "", "45")
        return LATENCY, limited if 30 <= at < 31 else observed(connection_id)

    stage = stages(script, count=60, interval=60.0)
    await stage.run(200.0)
    (told,) = stage.events("rate_limited")
    assert told["wait_seconds"] == 45
    starts = [each.at for each in stage.api.requests]
    assert not [at for at in starts if 30 + LATENCY < at < 75 + LATENCY]
    assert [at for at in starts if at > 76] == pytest.approx([76 + n for n in range(124)], abs=1e-2)
    assert stage.missed() == {"overlap": 0, "overrun": 0}
    assert stage.sweep.snapshot(maintenance=False).up is True


async def test_a_trial_waits_for_a_retry_after_too(stages: Stages) -> None:
    def script(_: str, at: float) -> tuple[float, Answers]:
        return LATENCY, UNAVAILABLE if at < 50 else Answer(429, ENVELOPE, "", "600")

    stage = stages(script, count=3, interval=20.0, breaker=3)
    await stage.run(600.0)
    limited = [each for each in stage.api.requests if each.at >= 50]
    assert len(limited) == 1
    assert stage.missed() == {"overlap": 0, "overrun": 0}


async def test_a_trial_passes_over_a_connection_whose_poll_is_still_out(stages: Stages) -> None:
    first, second = in_phase_order(["c0", "c1"])

    def script(connection_id: str, _: float) -> tuple[float, Answers]:
        return 500.0 if connection_id == first else LATENCY, UNAVAILABLE

    stage = stages(script, count=2, interval=20.0, breaker=1)
    await stage.run(200.0)  # down at 10; trials at 30, 70 and 150
    assert len(stage.api.times(first)) == 1
    assert len(stage.api.times(second)) == 4


async def test_answers_that_come_late_in_an_outage_bring_no_second_trial(stages: Stages) -> None:
    first, second, *_ = in_phase_order([f"c{n}" for n in range(6)])

    def script(connection_id: str, at: float) -> tuple[float, Answers]:
        if at < 25:
            return {first: 35.0, second: 45.0}.get(connection_id, LATENCY), UNAVAILABLE
        return 100.0, UNAVAILABLE

    stage = stages(script, count=6, interval=60.0, breaker=1)
    await stage.run(179.0)  # down at 20, then late answers at 35 and 55, and a trial from 80 to 180
    late = [each.at for each in stage.api.requests if each.at > 21.0]
    assert late == pytest.approx([80.2], abs=1e-2)


async def test_an_answer_that_comes_late_during_a_trial_brings_no_second_one(stages: Stages) -> None:
    first, *_ = in_phase_order([f"c{n}" for n in range(6)])

    def script(connection_id: str, at: float) -> tuple[float, Answers]:
        if at < 25:
            return (100.0 if connection_id == first else LATENCY), UNAVAILABLE
        return 200.0, UNAVAILABLE

    stage = stages(script, count=6, interval=60.0, breaker=1)
    await stage.run(250.0)  # down at 10, a trial from 70 on, a late answer at 100
    assert len([each for each in stage.api.requests if each.at > 11.0]) == 1


async def test_a_late_success_of_an_older_poll_ends_the_outage(stages: Stages) -> None:
    def script(connection_id: str, at: float) -> tuple[float, Answers]:
        slow = connection_id == in_phase_order(["c0", "c1", "c2", "c3"])[0] and at < 5
        return (30.0, observed(connection_id)) if slow else (LATENCY, UNAVAILABLE)

    stage = stages(script, count=4, interval=100.0, breaker=1)
    await stage.run(33.0)
    (up,) = stage.events("site_up")
    assert up["duration_seconds"] == pytest.approx(30.0 - 25.0 - LATENCY, abs=1e-2)


# Crashes


async def test_a_crash_inside_a_poll_stays_in_that_poll(stages: Stages) -> None:
    def script(connection_id: str, _: float) -> tuple[float, Answers]:
        broken = connection_id == "c1"
        return LATENCY, ZeroDivisionError("a defect") if broken else observed(connection_id)

    stage = stages(script, count=4, interval=10.0)
    await stage.run(99.0)
    assert [connection_id for connection_id, _ in stage.crashes] == ["c1"] * 10
    assert {str(error) for _, error in stage.crashes} == {"a defect"}
    assert Counter(each.connection_id for each in stage.api.requests) == dict.fromkeys(
        ["c0", "c1", "c2", "c3"], 10
    )
    assert stage.state("c1").last_poll_at is None


async def test_a_trial_that_crashes_is_no_hot_loop(stages: Stages) -> None:
    def script(_: str, at: float) -> tuple[float, Answers]:
        return LATENCY, UNAVAILABLE if at < 30 else ZeroDivisionError("a defect")

    stage = stages(script, count=3, interval=20.0, breaker=3)
    await stage.run(400.0)
    trials = [each.at for each in stage.api.requests if each.at >= 30]
    assert len(stage.crashes) == len(trials)
    assert len(trials) >= 5
    assert min(after - before for before, after in itertools.pairwise(trials)) >= 20.0


async def test_a_crash_while_reporting_a_crash_is_told_as_a_failed_task(stages: Stages) -> None:
    stage = stages(lambda _, __: (LATENCY, ZeroDivisionError("a defect")), count=1, interval=10.0)

    def fail(_: Connection, __: Exception) -> None:
        raise LookupError("worse")

    stage.sweep._on_crash = fail
    await stage.run(5.0)
    assert [type(error) for error in stage.task_errors] == [LookupError]
    stage.task_errors.clear()


# The ledger


async def test_each_poll_is_booked_once_and_what_was_booked_is_known(stages: Stages) -> None:
    def script(connection_id: str, at: float) -> tuple[float, Answers]:
        return LATENCY, observed(connection_id, "SYNCED" if at < 5 else "DISCONNECTED")

    stage = stages(script, count=1, interval=10.0)
    await stage.run(29.0)
    assert [(c, step.state.status) for c, step in stage.ledger.booked] == [
        ("c0", Status.SYNCED),
        ("c0", Status.DISCONNECTED),
        ("c0", Status.DISCONNECTED),
    ]
    assert stage.state("c0") is stage.ledger.booked[-1][1].state
    assert [line["event"] for line in stage.lines] == ["connection_first_seen", "connection_transition"]


async def test_every_connection_is_on_the_books_before_its_first_poll(stages: Stages) -> None:
    stage = stages(count=4)
    assert stage.ledger.watched == {each.connection.id: each.state for each in stage.sweep.watched}
    assert len(stage.ledger.watched) == 4
    assert stage.ledger.booked == []


async def test_a_change_there_was_no_room_for_is_found_again_by_a_later_poll(stages: Stages) -> None:
    def script(connection_id: str, at: float) -> tuple[float, Answers]:
        return LATENCY, observed(connection_id, "SYNCED" if at < 5 else "DISCONNECTED")

    stage = stages(script, count=1, interval=10.0)
    await stage.run(9.0)
    before = stage.state("c0")
    assert before.last_success_at is not None
    stage.ledger.full = True
    await stage.run(20.0)
    assert stage.api.times("c0") == pytest.approx([0, 10, 20], abs=1e-2)
    assert stage.state("c0") is before, "it ages, and goes stale"
    stage.ledger.full = False
    await stage.run(10.0)
    (told,) = stage.events("connection_transition")
    assert (told["from_status"], told["to_status"]) == (Status.SYNCED, Status.DISCONNECTED)
    assert told["not_before"] == stage.clock.wall(before.last_success_at)
    assert stage.crashes == []


async def test_an_outage_is_told_though_the_ledger_is_full(stages: Stages) -> None:
    stage = stages(lambda _, __: (LATENCY, UNAVAILABLE), count=2, interval=10.0, breaker=2)
    stage.ledger.full = True
    await stage.run(30.0)
    assert len(stage.events("site_down")) == 1
    assert stage.events("connection_polls_failing") == []


async def test_it_goes_on_from_what_the_ledger_knows(stages: Stages) -> None:
    since = datetime(2026, 7, 1, tzinfo=UTC)
    remembered = ConnectionState(watched_since=since, status=Status.DISCONNECTED, transitions=7)
    stage = stages(count=2, remembered={"c0": remembered})
    assert stage.state("c0") is remembered
    assert stage.state("c1").status is None
    assert stage.ledger.watched["c0"] is remembered
    await stage.run(60.0)
    assert stage.state("c0").transitions == 8
    (first,), (change,) = stage.events("connection_first_seen"), stage.events("connection_transition")
    assert (first["connection_id"], change["connection_id"]) == ("c1", "c0")


# Unsettled connections


async def test_a_connection_in_sync_is_looked_at_sooner(stages: Stages) -> None:
    def script(connection_id: str, at: float) -> tuple[float, Answers]:
        return LATENCY, observed(connection_id, "SYNC_IN_PROGRESS" if at < 40 else "SYNCED")

    stage = stages(script, count=1, unsettled=15.0)
    await stage.run(300.0)
    # the change itself is looked at for one interval more
    soon = [0, 15.2, 30.4, 45.6, 60, 75.2, 90.4, 105.6, 120, 180, 240]
    assert stage.api.times("c0") == pytest.approx(soon, abs=1e-2)
    assert stage.missed() == {"overlap": 0, "overrun": 0}
    assert len(stage.events("connection_transition")) == 1


async def test_an_unconfirmed_not_found_is_confirmed_soon(stages: Stages) -> None:
    stage = stages(lambda _, __: (LATENCY, Answer(404, ENVELOPE)), count=1, unsettled=15.0)
    await stage.run(59.0)
    assert stage.api.times("c0") == pytest.approx([0, 15.2], abs=1e-2)
    assert stage.state("c0").status is Status.NOT_FOUND


async def test_an_extra_poll_comes_at_its_instant_however_coarse_the_ticks(stages: Stages) -> None:
    stage = stages(lambda c, _: (LATENCY, observed(c, "SYNC_IN_PROGRESS")), count=1, unsettled=1.0)
    await stage.run(12.0)
    assert stage.api.times("c0") == pytest.approx([1.2 * n for n in range(10)], abs=1e-2)


async def test_an_extra_poll_that_meets_the_regular_one_is_left_out(stages: Stages) -> None:
    stage = stages(lambda c, _: (3.0, observed(c, "SYNC_IN_PROGRESS")), count=1, unsettled=28.0)
    await stage.run(90.0)  # regular from 60 to 63, extra due at 62
    assert stage.api.times("c0") == pytest.approx([0, 31, 60], abs=1e-2)
    assert stage.missed() == {"overlap": 0, "overrun": 0}


@pytest.mark.parametrize("unsettled", [60.0, 61.0, 600.0])
async def test_there_are_no_extra_polls_where_they_would_not_be_sooner(
    stages: Stages, unsettled: float
) -> None:
    stage = stages(lambda c, _: (LATENCY, observed(c, "SYNC_IN_PROGRESS")), count=2, unsettled=unsettled)
    await stage.run(599.0)
    assert len(stage.api.requests) == 20


@pytest.mark.parametrize(("count", "budget"), [(60, 100), (100, 160), (10, 160), (60, 62), (60, 61)])
async def test_extra_polls_take_what_the_budget_leaves_and_delay_no_regular_one(
    stages: Stages, count: int, budget: int
) -> None:
    stage = stages(
        lambda c, _: (LATENCY, observed(c, "SYNC_IN_PROGRESS")), count=count, budget=budget, unsettled=5.0
    )
    await stage.run(599.0)
    polls = defaultdict(list)
    for each in stage.api.requests:
        polls[each.connection_id].append(each.at)
    for connection_id, phase in phases(stage, 60.0).items():
        for n in range(9):
            assert min(abs(at - phase - 60 * n) for at in polls[connection_id]) < 1.0
    extras = len(stage.api.requests) - 10 * count
    wanted = 10 * count * 60 / (5 + LATENCY)
    room = 10 * (budget - count - 1)
    assert extras == pytest.approx(min(wanted - 10 * count, room), rel=0.15, abs=2)
    assert stage.missed() == {"overlap": 0, "overrun": 0}
    assert_within_budget(stage, budget)


async def test_a_regular_poll_puts_off_the_extra_one(stages: Stages) -> None:
    stage = stages(lambda c, _: (LATENCY, observed(c, "SYNC_IN_PROGRESS")), count=1, unsettled=25.0)
    await stage.run(125.0)
    assert stage.api.times("c0") == pytest.approx([0, 25.2, 50.4, 60, 85.2, 110.4, 120], abs=1e-2)


async def test_while_the_site_is_down_nothing_but_the_trial_is_sent_not_even_for_a_token(
    stages: Stages,
) -> None:
    def script(connection_id: str, at: float) -> tuple[float, Answers]:
        return LATENCY, observed(connection_id, "SYNC_IN_PROGRESS") if at < 30 else UNAVAILABLE

    stage = stages(script, count=3, interval=60.0, unsettled=10.0, breaker=2, oauth=True)
    await stage.run(85.0)
    (down,) = stage.events("site_down")
    since = down["since"].timestamp() - stage.epoch
    assert since < 35.0
    assert stage.api.tokens, "tokens that end before each poll"
    assert [at for at in stage.api.tokens if at > since] == []
    assert [each for each in stage.api.requests if each.at > since] == []
    assert stage.missed() == {"overlap": 0, "overrun": 0}


# Connections long dead


async def test_a_connection_that_has_been_gone_for_a_day_is_polled_at_every_kth_of_its_instants(
    stages: Stages,
) -> None:
    gone = ConnectionState(
        watched_since=datetime(2026, 7, 1, tzinfo=UTC),
        status=Status.DISCONNECTED,
        status_since=datetime(2026, 7, 1, tzinfo=UTC),
    )
    stage = stages(
        lambda c, _: (LATENCY, observed(c, "DISCONNECTED" if c == "c0" else "SYNCED")),
        count=2,
        dead_every=5,
        remembered={"c0": gone},
    )
    await stage.run(1200.0)
    phase = phases(stage, 60.0)["c0"]
    assert stage.api.times("c0") == pytest.approx([phase + 300 * n for n in range(4)], abs=1e-2)
    assert len(stage.api.times("c1")) == 20
    assert stage.missed() == {"overlap": 0, "overrun": 0}


async def test_the_dead_who_come_back_are_polled_at_each_of_their_instants_again(stages: Stages) -> None:
    since = datetime(2026, 7, 1, tzinfo=UTC)
    gone = ConnectionState(watched_since=since, status=Status.NOT_FOUND, status_since=since)
    stage = stages(count=1, dead_every=10, remembered={"c0": gone})
    await stage.run(300.0)
    assert stage.api.times("c0") == pytest.approx([0, 60, 120, 180, 240], abs=1e-2)


# A secret that is replaced


async def test_a_new_key_is_tried_within_a_tick_where_the_old_one_took_the_site_down(
    stages: Stages, tmp_path: Path
) -> None:
    allowed = [False]

    def script(connection_id: str, _: float) -> tuple[float, Answers]:
        return LATENCY, observed(connection_id) if allowed[0] else Answer(403, ENVELOPE)

    stage = stages(script, count=4, interval=60.0, breaker=2)
    await stage.run(400.0)
    before = len(stage.api.requests)
    allowed[0] = True
    (tmp_path / "key").write_text("canary-new-key")
    await stage.run(6.0)
    assert len(stage.events("secret_replaced")) == 1
    (up,) = stage.events("site_up")
    assert up["reason"] == "forbidden"
    assert stage.api.requests[before].at < 402.0
    await stage.run(60.0)
    assert {each.connection_id for each in stage.api.requests[before:]} == {"c0", "c1", "c2", "c3"}


async def test_a_new_key_while_all_is_well_is_told_and_changes_nothing_else(
    stages: Stages, tmp_path: Path
) -> None:
    stage = stages(count=2)
    await stage.run(90.0)
    (tmp_path / "key").write_text("canary-new-key")
    await stage.run(90.0)
    assert len(stage.events("secret_replaced")) == 1
    assert len(stage.api.requests) == 6


async def test_who_goes_next_is_heard_out_and_asked_no_more_while_the_others_go_on(stages: Stages) -> None:
    stage = stages(lambda name, _: (4.0, observed(name)), count=4, interval=8.0, unsettled=1.0)
    await stage.run(2.5)
    goes = stage.api.requests[0].connection_id
    ending = asyncio.ensure_future(stage.sweep.let_end({goes}, 6.0))  # noqa: TID251  held by the test
    await stage.run(20.0)
    assert ending.done()
    assert stage.api.times(goes) == [stage.api.requests[0].at]
    assert [connection for connection, _ in stage.ledger.booked].count(goes) == 1
    assert {each.connection_id for each in stage.api.requests if each.at > 8.0} == {
        "c0",
        "c1",
        "c2",
        "c3",
    } - {goes}


async def test_who_goes_next_is_cut_off_at_the_limit_and_tries_no_site_that_is_down(stages: Stages) -> None:
    stage = stages(lambda *_: (100.0, UNAVAILABLE), count=2, interval=60.0, breaker=1)
    await stage.run(2.0)
    await stage.sweep.let_end({"c0", "c1"}, 1.0)
    assert asyncio.get_running_loop().time() == pytest.approx(3.0, abs=1e-2)
    assert [each.stage.value for each in stage.sweep.watched] == ["idle", "idle"]
    failed = PollFailed(FailureReason.TIMEOUT)
    assert stage.sweep.pace.settle(failed, stage.clock.now(), trial=False), "the site is down"
    stage.sweep.try_anew()
    await stage.run(700.0)
    assert len(stage.api.requests) == 1


async def test_who_was_let_go_and_is_asked_yet_is_cut_off_at_once(stages: Stages) -> None:
    stage = stages(lambda *_: (50.0, UNAVAILABLE), count=1, interval=60.0, breaker=1)
    await stage.run(2.0)
    stage.sweep.take_over(())
    await stage.sweep.let_end({"c0"}, 100.0)
    assert asyncio.get_running_loop().time() < 3.0
    await stage.run(60.0)
    assert stage.lines == []


# The end


async def test_drain_books_what_is_asked_and_drops_what_waits(stages: Stages) -> None:
    stage = stages(lambda c, _: (4.0, observed(c)), count=20, interval=2.0, budget=5)
    await stage.run(1.0)
    asking = {each.connection.id for each in stage.sweep.watched if each.stage.value == "asking"}
    waiting = {each.connection.id for each in stage.sweep.watched if each.stage.value == "waiting"}
    assert len(asking) == 5
    assert waiting
    began = asyncio.get_running_loop().time()
    assert await stage.sweep.drain(7.0) == 0
    assert asyncio.get_running_loop().time() - began < 4.0
    assert {each.connection_id for each in stage.api.requests} == asking
    for connection_id in asking:
        assert stage.state(connection_id).status is Status.SYNCED
    assert {line["connection_id"] for line in stage.events("connection_first_seen")} == asking
    assert stage.missed() == {"overlap": 0, "overrun": 0}


async def test_drain_cuts_what_outlasts_the_limit(stages: Stages) -> None:
    stage = stages(lambda c, _: (100.0, observed(c)), count=3, interval=2.0)
    await stage.run(2.0)
    began = asyncio.get_running_loop().time()
    assert await stage.sweep.drain(7.0) == 3
    assert asyncio.get_running_loop().time() - began == pytest.approx(7.0, abs=1e-2)
    assert stage.lines == []
    assert stage.crashes == []


def timers() -> int:
    loop: Any = asyncio.get_running_loop()
    return sum(not handle.cancelled() for handle in loop._scheduled)


@pytest.mark.parametrize("status", [503, 200])
async def test_after_drain_nothing_is_started_and_no_timer_is_left(stages: Stages, status: int) -> None:
    def script(connection_id: str, _: float) -> tuple[float, Answers]:
        return 1.0, UNAVAILABLE if status == 503 else observed(connection_id, "SYNC_IN_PROGRESS")

    before = timers()
    stage = stages(script, count=4, interval=8.0, unsettled=2.0, breaker=2)
    await stage.run(9.5)
    assert timers() > before
    await stage.sweep.drain(7.0)
    assert timers() == before
    asked = len(stage.api.requests)
    await stage.run(1200.0)
    assert len(stage.api.requests) == asked
    assert timers() == before


async def test_drain_ends_a_renewal_under_way(stages: Stages) -> None:
    stage = stages(count=2, oauth=True)
    stage.api.token_seconds = 1000.0
    await stage.run(31.0)
    assert len(asyncio.all_tasks()) > 1
    assert await stage.sweep.drain(7.0) == 0  # the polls were waiting for it, not asking
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_outage_that_begins_while_draining_plans_no_trial(stages: Stages) -> None:
    stage = stages(lambda _, __: (3.0, UNAVAILABLE), count=3, interval=3.0, breaker=3)
    await stage.run(2.5)
    before = len(stage.api.requests)
    await stage.sweep.drain(7.0)
    assert len(stage.events("site_down")) == 1
    await asyncio.sleep(1000)
    assert len(stage.api.requests) == before


# The site's snapshot


async def test_the_snapshot_tells_the_site_as_it_is(stages: Stages) -> None:
    stage = stages(lambda _, __: (LATENCY, UNAVAILABLE), count=3, interval=20.0, breaker=3, budget=99)
    empty = stage.sweep.snapshot(maintenance=True)
    assert (empty.name, empty.up, empty.requests, empty.maintenance) == ("downtown", None, 0, True)
    await stage.run(19.0)
    down = stage.sweep.snapshot(maintenance=False)
    assert (down.up, down.breaker_open, down.down_reason) == (False, True, FailureReason.SERVER_ERROR)
    assert (down.requests, down.connections, down.requests_per_minute) == (3, 3, 99)
    assert down.failures == {FailureReason.SERVER_ERROR: 3}
    await stage.run(100.0)
    assert down.failures == {FailureReason.SERVER_ERROR: 3}, "a snapshot does not change afterwards"


# Other connections


# What the page is told


async def test_each_connection_knows_when_it_is_due_next(stages: Stages) -> None:
    stage = stages(interval=7.0)
    await stage.run(20)
    promised = {each.connection.id: each.next_at for each in stage.sweep.watched}
    await stage.run(7)
    assert {each: stage.api.times(each)[-1] for each in promised} == pytest.approx(promised, abs=1e-3)
    assert stage.sweep.lag_seconds == pytest.approx(0, abs=1e-3)


async def test_a_poll_that_failed_is_remembered_with_its_request_id(stages: Stages) -> None:
    stage = stages(lambda _, at: (LATENCY, Answer(503, ENVELOPE, f"req-{at:.0f}")), count=1, breaker=99)
    await stage.run(125)
    kept = stage.failures.of("downtown", "c0")
    assert [(each.http_status, each.request_id) for each in kept] == [
        (503, "req-120"),
        (503, "req-60"),
        (503, "req-0"),
    ]


def named(stage: Stage, *ids: str) -> list[Connection]:
    """Connections of those ids, under the policy of the first one that is watched."""
    policy = stage.sweep.watched[0].connection.policy
    return [Connection("downtown", each, f"name of {each}", policy) for each in ids]


async def test_who_stays_keeps_its_phase_whoever_comes_and_goes(stages: Stages) -> None:
    stage = stages(count=4, interval=60.0, budget=100_000)
    before = phases(stage, 60.0)
    await stage.run(90.0)
    stage.sweep.take_over(named(stage, "c0", "c2", "new-0", "new-1", "new-2"))
    arrived = phases(stage, 60.0, after=90.0)
    await stage.run(190.0)
    for stays in ("c0", "c2"):
        due = [before[stays] + 60.0 * n for n in range(5) if before[stays] + 60.0 * n < 280.0]
        assert stage.api.times(stays) == pytest.approx(due, abs=1e-3)
    for comes in ("new-0", "new-1", "new-2"):
        assert stage.api.times(comes)[0] == pytest.approx(arrived[comes], abs=1e-3)
    assert [at for goes in ("c1", "c3") for at in stage.api.times(goes) if at > 90.0] == []
    assert stage.missed() == {"overlap": 0, "overrun": 0}


async def test_another_interval_puts_all_in_its_phase_and_none_waits_for_more_than_both(
    stages: Stages,
) -> None:
    stage = stages(count=6, interval=60.0, budget=100_000)
    await stage.run(100.0)
    stage.sweep.pace.adapt(Site("downtown", timedelta(seconds=20), 3, 6), 100_000)
    stage.sweep.take_over([each.connection for each in stage.sweep.watched])
    due = phases(stage, 20.0, after=100.0)
    await stage.run(60.0)
    for name, first in due.items():
        times = [at for at in stage.api.times(name) if at > 100.0]
        assert times[-3:] == pytest.approx([first, first + 20, first + 40], abs=1e-3)
        assert times[0] - max(at for at in stage.api.times(name) if at <= 100.0) <= 60.1


async def test_who_goes_while_it_is_asked_is_heard_for_its_site_only(stages: Stages) -> None:
    stage = stages(lambda _, __: (5.0, UNAVAILABLE), count=2, interval=60.0, breaker=1)
    await stage.run(2.0)
    stage.sweep.take_over(named(stage, "c9"))
    await stage.run(5.0)
    assert len(stage.events("site_down")) == 1
    assert stage.ledger.booked == []


async def test_who_comes_back_while_it_is_still_asked_is_asked_once(stages: Stages) -> None:
    stage = stages(lambda name, _: (50.0, observed(name)), count=1, interval=60.0)
    await stage.run(2.0)
    stage.sweep.take_over(named(stage, "c9"))
    stage.sweep.take_over(named(stage, "c0", "c9"))
    await stage.run(200.0)
    assert stage.crashes == [], "the API would have seen two polls of one connection"
    assert [connection for connection, _ in stage.ledger.booked].count("c0") >= 2


async def test_who_comes_back_as_another_has_left_it_is_not_told_what_was_asked_before(
    stages: Stages,
) -> None:
    stage = stages(lambda name, at: (50.0 if at < 2.0 else LATENCY, observed(name)), count=1, interval=60.0)
    await stage.run(2.0)
    stage.sweep.take_over(named(stage, "c9"))
    newer = msgspec.structs.replace(stage.ledger.left["c0"], transitions=7)
    stage.ledger.left["c0"] = newer
    stage.sweep.take_over(named(stage, "c0", "c9"))
    assert stage.state("c0") is newer
    await stage.run(130.0)
    booked = [connection for connection, _ in stage.ledger.booked]
    assert booked.count("c0") == len(stage.api.times("c0")) - 1
    assert stage.crashes == [], "the API would have seen two polls of one connection"


async def test_who_goes_before_the_first_step_of_its_poll_is_polled_when_it_is_back(stages: Stages) -> None:
    stage, loop = stages(count=1), asyncio.get_running_loop()
    same = named(stage, "c0")
    stage.sweep.tick()
    timer = stage.sweep._agenda._timer
    assert timer is not None
    loop.call_at(timer.when(), stage.sweep.take_over, ())
    await asyncio.sleep(1.0)
    assert stage.api.requests == []
    assert stage.sweep.snapshot(maintenance=False).polls_waiting == 0
    stage.sweep.take_over(same)
    await stage.run(130.0)
    assert len(stage.api.times("c0")) == 2
    assert stage.missed() == {"overlap": 0, "overrun": 0}


async def test_a_trial_that_is_let_go_before_its_first_step_is_not_the_last(stages: Stages) -> None:
    stage, loop = stages(lambda *_: (LATENCY, UNAVAILABLE), count=1, breaker=1), asyncio.get_running_loop()
    await stage.run(2.0)
    trial = stage.sweep._trial_timer
    assert trial is not None
    loop.call_at(trial.when(), stage.sweep.take_over, named(stage, "c1"))
    stage.api.script = synced
    await stage.run(700.0)
    assert len(stage.events("site_up")) == 1


async def test_who_comes_back_later_is_known_as_it_was_left(stages: Stages) -> None:
    stage = stages(lambda name, _: (LATENCY, observed(name, "DISCONNECTED")), count=2, interval=60.0)
    await stage.run(61.0)
    left = stage.state("c1")
    stage.sweep.take_over(named(stage, "c0"))
    await stage.run(60.0)
    stage.sweep.take_over(named(stage, "c0", "c1"))
    assert stage.state("c1") is left
    await stage.run(60.0)
    assert [line["connection"] for line in stage.events("connection_first_seen")].count("name of c1") == 0


async def test_a_site_without_connections_is_asked_nothing_and_can_have_some_again(stages: Stages) -> None:
    stage = stages(lambda _, __: (LATENCY, UNAVAILABLE), count=2, interval=20.0, breaker=1)
    await stage.run(2.0)
    some = named(stage, "c0")
    stage.sweep.take_over(())
    asked = len(stage.api.requests)
    await stage.run(1000.0)
    assert len(stage.api.requests) == asked
    stage.api.script = synced
    stage.sweep.take_over(some)
    await stage.run(700.0)
    assert len(stage.events("site_up")) == 1


async def test_an_interval_that_keeps_growing_starves_nobody(stages: Stages) -> None:
    stage = stages(count=10, interval=20.0, budget=100_000)

    async def grow() -> None:
        for seconds in range(21, 45):
            await asyncio.sleep(4.5)
            stage.sweep.pace.adapt(Site("downtown", timedelta(seconds=seconds), 3, 10), 100_000)
            stage.sweep.take_over([each.connection for each in stage.sweep.watched])

    await asyncio.gather(stage.run(200.0), grow())
    for name in (f"c{n}" for n in range(10)):
        times = [*stage.api.times(name), 200.0]
        assert max(late - early for early, late in pairwise(times)) <= 44.1
    assert stage.missed() == {"overlap": 0, "overrun": 0}


async def test_a_hundred_changes_a_minute_cost_no_poll(stages: Stages) -> None:
    stage = stages(lambda name, _: (1.5, observed(name)), count=4, interval=10.0, budget=100_000)
    due = phases(stage, 10.0)
    stays = ("c0", "c1", "c2", "c3")
    lists = [named(stage, *stays, *(f"x{k}" for k in range(n % 7))) for n in range(100)]

    async def change() -> None:
        for each in lists:
            await asyncio.sleep(0.6)
            stage.sweep.take_over(each)

    await asyncio.gather(stage.run(60.0), change())
    for name in stays:
        assert stage.api.times(name) == pytest.approx([due[name] + 10.0 * n for n in range(6)], abs=1e-3)
    assert stage.missed() == {"overlap": 0, "overrun": 0}
