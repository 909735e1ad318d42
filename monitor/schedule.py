"""APScheduler behind a small face: what is done every so often, and nothing of it lost.

Its habits, handled here once: the default grace of one second drops late runs, so there is none; a run
is a short call that hands out work and returns, so that no run overlaps; it follows the wall clock and would
stand still after a step back, so `rearm` sets every job to now; after a step forward it would count through
every run in between (hours of work for a clock that was at 1970), so its trigger leaps.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobEvent
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from monitor.clock import Clock

_DEFAULTS: Final = {"coalesce": True, "misfire_grace_time": None, "max_instances": 1}
_GROUP: Final = 32  # calls of a run at most: they do not give way to each other

Work = Callable[[], None]
OnError = Callable[[str, BaseException], None]


class _Every(BaseTrigger):  # type: ignore[misc]  # the library has no types
    """The first whole period after what was due last that lies ahead."""

    def __init__(self, period: timedelta) -> None:
        self._period = period

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        """APScheduler's question."""
        if previous_fire_time is None:
            return now
        behind = max((now - previous_fire_time) // self._period, 0)
        return previous_fire_time + (behind + 1) * self._period


class _Group:
    """Calls that are made one after the other; one that fails keeps no other from being made."""

    def __init__(self, job: str, period: timedelta, on_error: OnError) -> None:
        self.job = job
        self.period = period
        self.calls: dict[str, Work] = {}
        self.stopped = False
        self._on_error = on_error

    async def run(self) -> None:
        """Make every call; a coroutine, as a plain function would get a thread."""
        for name in list(self.calls):
            self.call(name)

    def call(self, name: str) -> None:
        """Make that one, unless it was cancelled meanwhile."""
        work = self.calls.get(name)
        if work is None or self.stopped:
            return
        try:
            work()
        except Exception as error:  # noqa: BLE001  told, whatever it is
            self._on_error(name, error)


class Schedule:
    """Runs short calls every so often on the event loop; `on_skipped` and `on_error` hear what went wrong."""

    def __init__(self, clock: Clock, on_skipped: Callable[[str], None], on_error: OnError) -> None:
        logging.getLogger("apscheduler").setLevel(logging.ERROR)  # at INFO it writes two lines a run
        self._clock = clock
        self._on_skipped = on_skipped
        self._on_error = on_error
        self._groups: dict[str, _Group] = {}
        self._numbers = count()
        self._scheduler: Any = AsyncIOScheduler(timezone=UTC, job_defaults=_DEFAULTS)
        self._scheduler.add_listener(self._heard, EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)

    def every(self, name: str, period: timedelta, work: Work) -> None:
        """Call `work` now and every `period`; `name` is unique."""
        group = self._group_with_room(period)
        if group is None:
            group = self._new_group(period)
        elif self._scheduler.running:  # its own next run may be far
            asyncio.get_running_loop().call_soon(group.call, name)
        group.calls[name] = work

    def _group_with_room(self, period: timedelta) -> _Group | None:
        fitting = (each for each in self._groups.values() if each.period == period)
        return next((each for each in fitting if len(each.calls) < _GROUP), None)

    def _new_group(self, period: timedelta) -> _Group:
        group = _Group(f"group {next(self._numbers)}", period, self._on_error)
        self._groups[group.job] = group
        self._scheduler.add_job(group.run, _Every(period), id=group.job, next_run_time=self._wall_now())
        return group

    def cancel(self, name: str) -> None:
        """Call that one no more."""
        group = next(each for each in self._groups.values() if name in each.calls)
        del group.calls[name]
        if not group.calls:
            del self._groups[group.job]
            self._scheduler.remove_job(group.job)

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()

    def rearm(self) -> None:
        """Make every job due now: the wall clock was stepped."""
        for job in self._scheduler.get_jobs():
            job.modify(next_run_time=self._wall_now())

    def stop(self) -> None:
        """Call nothing any more. What a call has handed out is not touched."""
        for group in self._groups.values():  # the library itself stops one turn of the loop later
            group.stopped = True
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def _wall_now(self) -> datetime:
        return self._clock.wall(self._clock.now())

    def _heard(self, event: JobEvent) -> None:
        if (group := self._groups.get(event.job_id)) is not None:
            for name in group.calls:
                self._on_skipped(name)
