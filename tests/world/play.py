"""A world is played: everything real but the session, on a clock that leaps from timer to timer.

`play` returns the judge of a world that kept all promises, and raises BrokenError for one that did not.
"""

import asyncio
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final, cast

import looptime

from monitor.clock import Clock
from monitor.config import ApiKeyCredential, OAuthCredential, SecretSource
from monitor.core.machine import Step as Booking
from monitor.core.model import Connection, Policy
from monitor.core.plan import interval_in_force
from monitor.core.site import Site
from monitor.metrics.telemetry import Telemetry
from monitor.report import Reporter
from monitor.sweep import Sweep
from monitor.tasks import TaskBag
from monitor.view.failures import Failures
from monitor.wix.client import WixClient
from monitor.wix.pace import Pace, Slots
from tests.stage import Books, recorder
from tests.world.judge import Judge, Line
from tests.world.script import Pause, World
from tests.world.wix import ScriptedApi

EPOCH: Final = 1_800_000_000.0
DRAIN: Final = 6.0


class BrokenError(AssertionError):
    """A promise was broken; what the world was and what came before."""


class VirtualLoop(looptime.LoopTimeEventLoop, asyncio.SelectorEventLoop):
    """looptime's clock, and `stalled`: seconds in which the loop did not run at all."""

    stalled = 0.0

    def time(self) -> float:
        return super().time() + self.stalled


def play(world: World) -> Judge:
    """Play a world to its end."""

    def loop() -> VirtualLoop:
        # A power of two makes sums of the loop's times exact; there is no I/O to look out for.
        return VirtualLoop(resolution=2**-20, noop_cycles=0)

    async def on_stage(folder: str) -> Judge:
        return await _Theatre(world, Path(folder)).play()

    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(on_stage(folder))


class _JudgedBooks(Books):
    """The ledger of all sites; the judge hears of each booking."""

    def __init__(self, reporter: Reporter, judge: Judge) -> None:
        super().__init__(reporter, {})
        self._judge = judge

    def book(self, connection: Connection, step: Booking) -> bool:
        booked = super().book(connection, step)
        self.booked.clear()
        task = asyncio.current_task()
        assert task is not None
        self._judge.booked(int(connection.site.removeprefix("site-")), connection.id, step.state, task)
        return booked


class _Log(list[Line]):
    """Hands each line on."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def append(self, line: Line) -> None:
        self._judge.told(line)


class _Theatre:
    """One world on its stage."""

    def __init__(self, world: World, folder: Path) -> None:
        self._world = world
        self._folder = folder
        self._chance = random.Random(world.seed)
        self._loop = cast("VirtualLoop", asyncio.get_running_loop())
        self._asleep = 0.0
        self._set_by = 0.0
        self._clock = Clock(self._wall, self._monotonic)
        self._judge = Judge(world, self._clock)
        self._slots = Slots(world.max_in_flight)
        self._telemetry = Telemetry()
        reporter = Reporter(recorder(_Log(self._judge)), self._telemetry, self._clock)
        self._ledger = _JudgedBooks(reporter, self._judge)
        self._sweeps = [self._sweep(index, reporter) for index in range(len(world.sites))]

    async def play(self) -> Judge:
        broken = asyncio.Event()
        self._judge.on_broken = broken.set
        errors: list[BaseException] = []
        tasks = TaskBag(errors.append)
        for index, sweep in enumerate(self._sweeps):
            tasks.start(self._tick(index, sweep))
        for at, happen in self._happenings():
            tasks.start(self._at(at, happen))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._world.length):
                await broken.wait()
        await tasks.drain(0)
        await asyncio.gather(*(self._drain(index) for index in range(len(self._sweeps))))
        self._judge.ended(self._left(), errors)
        if self._judge.broken:
            raise BrokenError(self._judge.verdict())
        return self._judge

    async def _drain(self, index: int) -> None:
        self._judge.drained(index)
        await self._sweeps[index].drain(DRAIN)

    def _monotonic(self) -> float:
        return self._loop.time() + self._asleep

    def _wall(self) -> float:
        return EPOCH + self._monotonic() + self._set_by

    def _sweep(self, index: int, reporter: Reporter) -> Sweep:
        script = self._world.sites[index]
        name = f"site-{index}"
        wanted = timedelta(seconds=script.interval)
        interval = interval_in_force(script.connections, script.budget, wanted)
        site = Site(name, interval, script.breaker, script.connections)
        jitter = random.Random(self._world.seed + 7 * index)
        pace = Pace(site, script.budget, self._slots, self._clock, lambda: jitter.uniform(-1, 1))
        api = ScriptedApi(self._world, index, self._clock, self._judge)
        self._write_secret(index, api.secret(0.0))
        secret = SecretSource(self._secret_file(index))
        credential = OAuthCredential("app", secret) if script.token_life else ApiKeyCredential(secret, name)
        client = WixClient(api, pace, self._clock, credential, lambda _: None, lambda: None)
        policy = Policy(
            interval=interval,
            stale_window=3 * interval,
            unsettled_interval=timedelta(seconds=script.unsettled),
            not_found_confirmations=script.confirmations,
            dead_every=script.dead_every,
        )
        ids = [f"c-{index}-{number}" for number in range(script.connections)]
        sweep = Sweep(
            [Connection(name, each, each, policy) for each in ids],
            client,
            self._ledger,
            reporter,
            self._telemetry,
            self._clock,
            on_crash=lambda _, error: self._judge.crashed(index, error),
            on_task_error=lambda error: self._judge.crashed(index, error),
            failures=Failures(),
        )
        sweep.start()
        self._judge.watch(sweep, self._wall(), api.secret(0.0))
        return sweep

    def _secret_file(self, index: int) -> Path:
        return self._folder / f"secret-{index}"

    def _write_secret(self, index: int, secret: str) -> None:
        new = self._folder / "new"  # renamed: never half a secret, and always another inode
        new.write_text(secret)
        new.replace(self._secret_file(index))

    async def _tick(self, index: int, sweep: Sweep) -> None:
        """Tick as the schedule does: late now and then, and once for all that a stall ran over."""
        period = sweep.tick_period.total_seconds()
        due = self._loop.time()
        while True:
            sweep.tick()
            self._judge.ticked(index)
            due += period * (1 + max((self._loop.time() - due) // period, 0))
            late = self._chance.uniform(0.0, self._world.late) * period
            await asyncio.sleep(max(due + late - self._loop.time(), 0.0))

    def _happenings(self) -> Iterator[tuple[float, Callable[[], None]]]:
        """What happens to the process, its machine and its files."""
        world = self._world
        for pause in world.pauses:
            yield pause.at, partial(self._pause, pause)
        for step in world.steps:
            yield step.at, partial(self._set_clock, step.seconds)
            yield step.at + self._chance.random(), self._notice_step  # the service looks once a second
        for index, site in enumerate(world.sites):
            for number, rotation in enumerate(sorted(site.rotations, key=lambda each: each.at), 1):
                yield rotation.at + rotation.later, partial(self._rotate, index, number)

    async def _at(self, at: float, happen: Callable[[], None]) -> None:
        await asyncio.sleep(at)
        happen()

    def _pause(self, pause: Pause) -> None:
        if pause.asleep:
            self._asleep += pause.seconds
        else:
            self._loop.stalled += pause.seconds
        self._judge.paused(pause.seconds)

    def _set_clock(self, seconds: float) -> None:
        self._set_by += seconds

    def _notice_step(self) -> None:
        self._clock.notice_step()

    def _rotate(self, index: int, number: int) -> None:
        secret = f"secret-{index}-{number}"
        self._write_secret(index, secret)
        self._judge.rotated(index, secret)

    def _left(self) -> list[str]:
        """What runs on though everything was drained."""
        mine = asyncio.current_task()
        tasks = [repr(task) for task in asyncio.all_tasks() if task is not mine]
        handles: list[asyncio.TimerHandle] = getattr(self._loop, "_scheduled")  # noqa: B009  it has no type
        return tasks + [repr(handle) for handle in handles if not handle.cancelled()]
