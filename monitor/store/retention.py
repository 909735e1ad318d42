"""From when on the past is kept, told by a clock that may have leapt."""

from datetime import timedelta
from typing import Final

from monitor.clock import Clock
from monitor.store.rows import micros

PURGE_ROWS: Final = 2000
"""Rows of a piece that is forgotten in one transaction, so that no commit waits long behind it."""

_MICROSECOND: Final = timedelta(microseconds=1)


class Retention:
    """A clock that leapt ahead since the last run must not empty the history.

    `newest` is the newest moment in the store when it was opened, in microseconds; None: there is none.
    """

    def __init__(self, clock: Clock, newest: int | None) -> None:
        self._clock = clock
        self._newest = newest
        self._opened_at = clock.now()

    def oldest(self, retention: timedelta) -> int:
        """The moment, in microseconds, before which all may be forgotten that is not needed any more."""
        now = self._clock.now()
        today = micros(self._clock.wall(now))
        if self._newest is not None:
            today = min(today, self._newest + (now - self._opened_at) // _MICROSECOND)
        return today - retention // _MICROSECOND
