"""Time: one steady clock for everything inside, corrected to wall time at the edges.

Inside, a moment is an aware UTC datetime that never jumps: the wall time at the start plus what the
monotonic clock has counted since. Differences are therefore true durations, never negative, whatever is
done to the machine's clock. What leaves the process (a metric, a log line, a stored row) passes through
`Clock.wall`, which adds the steps that the machine's clock has made since.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

# Counts through a suspend, unlike time.monotonic on Linux: what was last seen before a nap is old after it.
_monotonic: Final = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

_NOTEWORTHY: Final = timedelta(seconds=1)


class Clock:
    """The steady clock; `wall_seconds` and `monotonic` are the machine's, or a test's."""

    def __init__(
        self,
        wall_seconds: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = _monotonic,
    ) -> None:
        self.monotonic = monotonic
        self._wall_seconds = wall_seconds
        self._started = monotonic()
        self._epoch = datetime.fromtimestamp(wall_seconds(), UTC)
        self._correction = timedelta()

    def now(self) -> datetime:
        """Now, on the steady clock: aware UTC, never going back."""
        return self._epoch + timedelta(seconds=self.monotonic() - self._started)

    def wall(self, moment: datetime) -> datetime:
        """Tell what the machine's clock, as it stands now, calls a moment of the steady clock."""
        return moment + self._correction

    def steady(self, wall: datetime) -> datetime:
        """The steady moment of a wall time, for what was stored by an earlier run."""
        return wall - self._correction

    def notice_step(self) -> timedelta | None:
        """Look whether the machine's clock was stepped by a second or more; how far, forward positive."""
        offset = datetime.fromtimestamp(self._wall_seconds(), UTC) - self.now()
        step = offset - self._correction
        if abs(step) < _NOTEWORTHY:
            return None
        self._correction = offset
        return step
