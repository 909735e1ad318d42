"""The simulator's time: how far the scenario is."""

from collections.abc import Callable
from datetime import datetime, timedelta

from monitor.clock import Clock


class Watch:
    """Counts from the first start on, by a monotonic clock of seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._clock = Clock(monotonic=monotonic)
        self._began: datetime | None = None

    def begin(self) -> None:
        """Start counting; a second start changes nothing."""
        self._began = self._began or self._clock.now()

    def elapsed(self) -> timedelta:
        """The time since the first start, nothing before it."""
        return self._clock.now() - self._began if self._began is not None else timedelta()

    @property
    def began(self) -> datetime | None:
        """The time of day of the first start, in UTC."""
        return self._began

    def now(self) -> datetime:
        """The time of day, in UTC."""
        return self._clock.now()
