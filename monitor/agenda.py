"""What is due when, by one timer: it goes from one due instant to the next, no further than the horizon.

The loop's clock stands still while the machine sleeps, ours does not: `run_on` sets the timer anew.
"""

import asyncio
import heapq
import math
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from monitor.clock import Clock


class Due(Protocol):
    """Something that is due `at` an instant, in monotonic seconds, and sorts by it."""

    @property
    def at(self) -> float:
        """When."""

    def __lt__(self, other: Any, /) -> bool:
        """Whether it comes first."""


D = TypeVar("D", bound=Due)


class Agenda(Generic[D]):
    """Hands over to `fall_due` what has come due, at its own instant."""

    def __init__(self, clock: Clock, fall_due: Callable[[D], None]) -> None:
        self._clock = clock
        self._fall_due = fall_due
        self._entries: list[D] = []
        self._horizon = -math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = math.inf
        self._firing = False

    def add(self, due: D) -> None:
        """One more; what has come due already falls due soon."""
        heapq.heappush(self._entries, due)
        if not self._firing:  # which sets the timer once, at its end
            self._arm()

    def run_on(self, horizon: float) -> None:
        """Go on, as far as that instant."""
        self._horizon = horizon
        self._disarm()
        self._arm()

    def stop(self) -> None:
        """Let nothing fall due any more."""
        self._horizon = -math.inf
        self._disarm()

    def _arm(self) -> None:
        at = self._entries[0].at if self._entries else math.inf
        if at > self._horizon or at >= self._armed_for:
            return
        self._disarm()
        wait = max(at - self._clock.monotonic(), 0.0)
        self._timer, self._armed_for = asyncio.get_running_loop().call_later(wait, self._fire), at

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._armed_for = None, math.inf

    def _fire(self) -> None:
        until = max(self._clock.monotonic(), self._armed_for)  # a timer may be a little early
        self._timer, self._armed_for = None, math.inf
        self._firing = True
        try:
            while self._entries and self._entries[0].at <= until:
                self._fall_due(heapq.heappop(self._entries))
        finally:
            self._firing = False
            self._arm()
