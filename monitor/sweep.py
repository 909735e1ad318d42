"""One site's sweep: every connection polled once an interval, in phase, never twice at a time.

A tick lets the agenda run on until the one after next, so that a poll starts at its own instant however
coarse the ticks are, and a late tick delays nothing. All times here are monotonic seconds, but for `now`,
which is read once a poll from the steady clock.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable
from datetime import datetime, timedelta
from enum import Enum
from inspect import CORO_CREATED, getcoroutinestate
from itertools import count
from typing import Any, Final, cast

import msgspec

from monitor.agenda import Agenda
from monitor.clock import Clock
from monitor.core.effects import SecretReplaced
from monitor.core.machine import advance
from monitor.core.model import Connection, ConnectionState, PollFailed
from monitor.core.plan import in_phase_order, seconds_to_first, site_offset
from monitor.errors import WithheldError
from monitor.ledger import Ledger
from monitor.metrics.snapshot import SiteSnapshot
from monitor.metrics.telemetry import Telemetry
from monitor.report import Reporter
from monitor.tasks import TaskBag, end
from monitor.view.failures import Failures
from monitor.wix.client import WixClient
from monitor.wix.pace import WINDOW

SHORTEST_TICK: Final = timedelta(seconds=1)
LONGEST_TICK: Final = timedelta(seconds=5)
_TICKS_AHEAD: Final = 2
_SHORTEST_WAIT: Final = 0.5  # seconds before a trial, so that one which cannot be made is no hot loop


class _Stage(Enum):
    IDLE = "idle"
    WAITING = "waiting"  # due, held back by the pace
    ASKING = "asking"  # a request is on its way


class Watched:
    """One connection under watch: who it is, what we know, and whether it is being polled."""

    __slots__ = ("connection", "due", "extra_at", "going", "next_at", "plan", "stage", "state", "task")

    def __init__(self, connection: Connection, state: ConnectionState) -> None:
        self.connection = connection
        self.state = state
        self.stage = _Stage.IDLE
        self.due: float | None = None  # when the poll that was begun last was due
        self.plan: int | None = None  # which of its plans for regular polls holds; None: it is let go
        self.extra_at: float | None = None  # of the extra poll that is planned, if one is
        self.next_at: float | None = None  # when the next regular poll is due
        self.going = False  # let go next: no poll of it is begun
        self.task: asyncio.Task[None] | None = None


class _Due(msgspec.Struct, frozen=True, order=True, gc=False):
    at: float
    order: int
    watched: Watched
    plan: int | None
    extra: bool
    then: float | None = None  # when the next one is due, where it is not an interval later


class Sweep:
    """Polls one site's connections; the scheduler ticks it."""

    def __init__(
        self,
        connections: Iterable[Connection],
        client: WixClient,
        ledger: Ledger,
        reporter: Reporter,
        telemetry: Telemetry,
        clock: Clock,
        *,
        on_crash: Callable[[Connection, Exception], None],
        on_task_error: Callable[[BaseException], None],
        failures: Failures,
    ) -> None:
        self.pace = client.pace
        self.client = client
        self._ledger = ledger
        self._reporter = reporter
        self._telemetry = telemetry
        self._clock = clock
        self._on_crash = on_crash
        self._failures = failures
        self._tasks = TaskBag(on_task_error)
        self._order = count()
        self._agenda = Agenda[_Due](clock, self._fall_due)
        self._trial_timer: asyncio.TimerHandle | None = None
        self._tried: Watched | None = None  # whose poll under way is the trial
        self._trial_crashed_at: datetime | None = None
        self._walk = 0
        self._extras: deque[float] = deque()  # when those of the last window were begun
        self._stopped = False
        self.polls_waiting = 0  # due, and held back by the pace
        self.lag_seconds: float | None = None  # of the poll that was started last
        self._interval = self.pace.site.interval.total_seconds()
        self._leaving: dict[str, Watched] = {}  # let go, and a poll of theirs has not ended yet
        self.watched = [self._watch(each) for each in connections]

    @property
    def tick_period(self) -> timedelta:
        """How often to tick."""
        return min(max(self.pace.site.interval / 2, SHORTEST_TICK), LONGEST_TICK)

    def start(self) -> None:
        """Put each connection at its phase."""
        self._put_in_phase(self.watched, self._interval)

    def take_over(self, connections: Iterable[Connection]) -> None:
        """Watch these from now on, at the interval that the pace has now.

        Who stays keeps its state, a poll under way and, where the interval is the same, its phase. Who goes
        has no poll any more; what one under way still tells is heard for the site only.
        """
        before = {watched.connection.id: watched for watched in self.watched}
        self.watched = [self._taken_over(each, before.pop(each.id, None)) for each in connections]
        for gone in before.values():
            self._let_go(gone)
        before_that, self._interval = self._interval, self.pace.site.interval.total_seconds()
        moved = before_that != self._interval
        self._put_in_phase(
            [each for each in self.watched if each.plan is None or moved], max(before_that, self._interval)
        )
        self._plan_trial()

    def try_anew(self) -> None:
        """What stood between Wix and us may have been mended: a site that is down is tried at once."""
        self.pace.way_replaced()
        self._plan_trial()

    def _watch(self, connection: Connection) -> Watched:
        known = self._ledger.known(connection)
        watched = Watched(connection, known or ConnectionState(watched_since=self._clock.now()))
        self._ledger.watch(connection, watched.state)
        return watched

    def _taken_over(self, connection: Connection, watched: Watched | None) -> Watched:
        watched = watched or self._come_back(connection)
        if watched is None:
            return self._watch(connection)
        if watched.connection != connection:
            watched.connection = connection
            self._ledger.watch(connection, watched.state)
        return watched

    def _come_back(self, connection: Connection) -> Watched | None:
        """One that was let go, and is asked yet; not where another has kept it since: that answer is old."""
        watched = self._leaving.pop(connection.id, None)
        if watched is None or watched.state == self._ledger.known(connection):
            return watched
        if watched.task is not None:
            watched.task.cancel()
        return None

    def _let_go(self, watched: Watched) -> None:
        watched.plan = watched.extra_at = None
        self._ledger.let_go(watched.connection, watched.state)
        if watched.task is not None:
            self._leaving[watched.connection.id] = watched
        self._give_up_waiting(watched)

    def _give_up_waiting(self, watched: Watched) -> None:
        if watched.stage is _Stage.WAITING and (task := watched.task) is not None:
            task.cancel()
            poll = cast("Coroutine[Any, Any, None]", task.get_coro())
            if getcoroutinestate(poll) == CORO_CREATED:  # then none of it runs, not its end either
                self._ended(watched)

    def _put_in_phase(self, those: Collection[Watched], longest: float) -> None:
        """Plan the next polls; however often phases move, none is due more than `longest` after the last."""
        now = self._clock.monotonic()
        epoch = self._clock.wall(self._clock.now()).timestamp()
        offset = site_offset(self.pace.site.name)
        wanted = {watched.connection.id: watched for watched in those}
        ids = in_phase_order(watched.connection.id for watched in self.watched)
        for rank, connection_id in enumerate(ids if wanted else ()):
            if (watched := wanted.get(connection_id)) is not None:
                wait = seconds_to_first(epoch, self.pace.site.interval, rank + offset, len(ids))
                watched.plan = next(self._order)
                latest = now + wait if watched.due is None else max(watched.due + longest, now)
                self._push(min(now + wait, latest), watched, then=now + wait if latest < now + wait else None)

    def tick(self) -> None:
        """Let what comes due soon fall due."""
        if self._stopped:
            return
        self._look_at_the_secret()
        self._agenda.run_on(self._clock.monotonic() + _TICKS_AHEAD * self.tick_period.total_seconds())

    def snapshot(self, *, maintenance: bool) -> SiteSnapshot:
        """The site as `/metrics` shows it."""
        state = self.pace.state
        down = state.outage
        return SiteSnapshot(
            name=self.pace.site.name,
            up=state.up,
            down_reason=down.reason if down is not None else None,
            requests=self.pace.requests,
            failures=dict(self.pace.failures),
            requests_per_minute=self.pace.requests_per_minute,
            throttled_seconds=self.pace.throttled_seconds,
            polls_waiting=self.polls_waiting,
            breaker_open=down is not None,
            maintenance=maintenance,
            connections=len(self.watched),
        )

    async def drain(self, limit: float) -> int:
        """Start nothing more, let answers under way arrive; how many were cut off after `limit` seconds."""
        self._stopped = True
        self._agenda.stop()
        if self._trial_timer is not None:
            self._trial_timer.cancel()
        for watched in self.watched:
            self._give_up_waiting(watched)
        cut = await self._tasks.drain(limit)
        await self.client.close()
        return cut

    async def let_end(self, ids: Collection[str], limit: float) -> None:
        """Start no poll of these, which go next, and take the answers under way, for `limit` seconds.

        What is late is cut off, and what is still asked of one that went before: its answer is for nothing.
        """
        going = [watched for watched in self.watched if watched.connection.id in ids]
        tasks = [watched.task for watched in going if watched.task is not None]
        for watched in going:
            watched.going = True
            self._give_up_waiting(watched)
        gone = [its.task for key, its in self._leaving.items() if key in ids and its.task is not None]
        await asyncio.gather(end(tasks, limit), end(gone, 0))

    def _look_at_the_secret(self) -> None:
        if self.client.take_new_secret():
            self._reporter.emit((SecretReplaced(site=self.pace.site.name),))
            self._plan_trial()

    def _push(self, at: float, watched: Watched, *, extra: bool = False, then: float | None = None) -> None:
        if not extra:
            watched.next_at = at
        self._agenda.add(_Due(at, next(self._order), watched, watched.plan, extra, then))

    def _fall_due(self, due: _Due) -> None:
        if due.watched.going:
            return
        if due.extra:
            self._begin_extra(due)
            return
        if due.plan != due.watched.plan:  # it has another phase by now, or is let go
            return
        at = self._skip_what_passed(due)
        self._push(at + self._interval if due.then is None else max(due.then, at), due.watched)
        now = self._clock.now()
        watched = due.watched
        if self.pace.state.may_ask(now) and watched.state.is_its_turn(watched.connection.policy, now):
            self._begin_regular(watched, at)

    def _skip_what_passed(self, due: _Due) -> float:
        """The newest due instant that has come; those a stalled loop ran over are missed."""
        passed = int(max(self._clock.monotonic() - due.at, 0.0) / self._interval)
        if passed and self.pace.state.may_ask(self._clock.now()):
            self._telemetry.poll_missed("overrun", passed)
        return due.at + passed * self._interval

    def _begin_regular(self, watched: Watched, at: float) -> None:
        if watched.stage is _Stage.ASKING:
            self._telemetry.poll_missed("overlap")
        elif watched.stage is _Stage.WAITING:
            self._telemetry.poll_missed("overrun")
            watched.due = at
        else:
            self._begin(watched, at)

    def _begin_extra(self, due: _Due) -> None:
        watched = due.watched
        if watched.extra_at != due.at:  # polled since, and planned anew
            return
        watched.extra_at = None
        may = self.pace.state.may_ask(self._clock.now())
        if may and watched.stage is _Stage.IDLE and self._has_room_for_extra():
            self._extras.append(self._clock.monotonic())
            self._begin(watched, due.at)

    def _has_room_for_extra(self) -> bool:
        """Whether the budget holds one more beside the minute's regular polls."""
        while self._extras and self._extras[0] <= self._clock.monotonic() - WINDOW:
            self._extras.popleft()
        regular = int(len(self.watched) * WINDOW / self._interval) + 1
        return len(self._extras) < self.pace.requests_per_minute - regular and self.pace.spare(0)

    def _begin(self, watched: Watched, at: float, *, trial: bool = False) -> None:
        self._enter(watched, _Stage.WAITING)
        watched.due = at
        watched.task = self._tasks.start(self._guarded(watched, trial=trial))

    def _enter(self, watched: Watched, stage: _Stage) -> None:
        self.polls_waiting += (stage is _Stage.WAITING) - (watched.stage is _Stage.WAITING)
        watched.stage = stage

    async def _guarded(self, watched: Watched, *, trial: bool) -> None:
        """One poll; whatever goes wrong in it stays in it."""
        try:
            await self._poll(watched, trial=trial)
        except WithheldError:
            pass
        except Exception as error:  # noqa: BLE001  a defect met by one poll must not end the others
            self._trial_crashed_at = self._clock.now() if trial else self._trial_crashed_at
            self._on_crash(watched.connection, error)
        finally:
            self._ended(watched)

    def _ended(self, watched: Watched) -> None:
        self._enter(watched, _Stage.IDLE)
        watched.task = None
        if self._leaving.get(watched.connection.id) is watched:
            del self._leaving[watched.connection.id]
        if self._tried is watched:
            self._tried = None
        self._plan_trial()

    async def _poll(self, watched: Watched, *, trial: bool) -> None:
        def started() -> None:
            self._enter(watched, _Stage.ASKING)
            self.lag_seconds = max(self._clock.monotonic() - (watched.due or 0.0), 0.0)
            self._telemetry.poll_lagged(self.lag_seconds)

        observation = await self.client.get_connection(watched.connection.id, on_started=started, trial=trial)
        if self.pace.permit.lost:  # another node may have asked since
            return
        now = self._clock.now()
        self._reporter.emit(self.pace.settle(observation, now, trial=trial))  # the site's state is not stored
        if isinstance(observation, PollFailed):
            self._failures.note(self.pace.site.name, watched.connection.id, observation, now)
        if watched.plan is None:
            return
        up = self.pace.state.outage is None
        step = advance(watched.connection, watched.state, observation, now, site_up=up)
        if self._ledger.book(watched.connection, step):
            watched.state = step.state
        self._look_sooner(watched, now)

    def _look_sooner(self, watched: Watched, now: datetime) -> None:
        policy = watched.connection.policy
        watched.extra_at = None
        if policy.unsettled_interval >= policy.interval or self._stopped:
            return
        if watched.state.is_unsettled(policy, now):
            watched.extra_at = self._clock.monotonic() + policy.unsettled_interval.total_seconds()
            self._push(watched.extra_at, watched, extra=True)

    def _plan_trial(self) -> None:
        """While the site is down, one poll per back-off, by another connection each time."""
        outage = self.pace.state.outage
        if self._trial_timer is not None:
            self._trial_timer.cancel()
            self._trial_timer = None
        if outage is None or self._tried is not None or self._stopped:
            return
        at = max(outage.trial_at, self.pace.state.wait_until or outage.trial_at)
        if self._trial_crashed_at is not None:  # it may have died before it could book its failure
            at = max(at, self._trial_crashed_at + outage.backoff)
        wait = max((at - self._clock.now()).total_seconds(), _SHORTEST_WAIT)
        self._trial_timer = asyncio.get_running_loop().call_later(wait, self._try)

    def _try(self) -> None:
        self._trial_timer = None
        for _ in self.watched:
            self._walk = (self._walk + 1) % len(self.watched)
            watched = self.watched[self._walk]
            if watched.stage is _Stage.IDLE and not watched.going:
                self._tried = watched
                self._begin(watched, self._clock.monotonic(), trial=True)
                return
        # every connection has a poll in flight: the end of any of them plans the trial anew
