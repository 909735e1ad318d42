"""APScheduler behind a small face: what is done every so often, and nothing of it lost.

Its habits, handled here once: the default grace of one second drops late runs, so there is none; a run
is a short call that hands out work and returns, so that no run overlaps; it follows the wall clock and would
stand still after a step back, so `rearm` sets every job to now; after a step forward it would count through
every run in between (hours of work for a clock that was at 1970), so its trigger leaps.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobEvent
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from monitor.clock import Clock

_DEFAULTS: Final = {"coalesce": True, "misfire_grace_time": None, "max_instances": 1}


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


class Schedule:
    """Runs short calls every so often on the event loop; `on_skipped` and `on_error` hear what went wrong."""

    def __init__(
        self,
        clock: Clock,
        on_skipped: Callable[[str], None],
        on_error: Callable[[str, BaseException], None],
    ) -> None:
        logging.getLogger("apscheduler").setLevel(logging.ERROR)  # at INFO it writes two lines a run
        logging.getLogger("apscheduler.executors").setLevel(logging.CRITICAL)  # `on_error` tells it
        self._clock = clock
        self._on_skipped = on_skipped
        self._on_error = on_error
        self._stopped = False
        self._scheduler: Any = AsyncIOScheduler(timezone=UTC, job_defaults=_DEFAULTS)
        self._scheduler.add_listener(
            self._heard, EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES
        )

    def every(self, name: str, period: timedelta, work: Callable[[], None]) -> None:
        """Call `work` now and every `period`; `name` is unique."""

        async def run() -> None:  # a coroutine runs on the loop, a plain function would get a thread
            if not self._stopped:
                work()

        self._scheduler.add_job(run, _Every(period), id=name, next_run_time=self._wall_now())

    def cancel(self, name: str) -> None:
        """Call that one no more."""
        self._scheduler.remove_job(name)

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()

    def rearm(self) -> None:
        """Make every job due now: the wall clock was stepped."""
        for job in self._scheduler.get_jobs():
            job.modify(next_run_time=self._wall_now())

    def stop(self) -> None:
        """Call nothing any more. What a call has handed out is not touched."""
        self._stopped = True  # the library itself stops one turn of the loop later
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def _wall_now(self) -> datetime:
        return self._clock.wall(self._clock.now())

    def _heard(self, event: JobEvent) -> None:
        if event.code == EVENT_JOB_ERROR:
            self._on_error(event.job_id, event.exception)
        else:
            self._on_skipped(event.job_id)
