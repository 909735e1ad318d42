"""A site's pace: may a request be sent now, and what has been sent so far.

The budget is exact. A request may reach Wix at any instant between its start and its end, so it leaves the
window 60 s after its end. Whatever rolling minute one picks, each of its requests was still in the window
when the last of them was started: never more than `requests_per_minute`, tokens, retries and trials
included. (A token bucket starts full and sends almost twice its rate in the first minute.)

Slots keep sites apart: a site has at most 8 requests in flight (8 for each part of it that is here), and
the sites whose last poll failed share half of all slots, so that those that hang cannot hold up those that
answer.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Final, Protocol

import msgspec

from monitor.clock import Clock
from monitor.core.effects import Effect
from monitor.core.model import FailureReason, Observation, PollFailed
from monitor.core.site import REFUSALS, Site, SiteState, advance_site, try_at_once
from monitor.errors import OutdatedError, WithheldError

WINDOW: Final = 60.0
"""Seconds of the rolling window."""


class Permit(Protocol):
    """Whether this process may ask Wix at all: nobody else asks for the same, as far as it can know."""

    @property
    def holds(self) -> bool:
        """Whether it surely may now."""

    @property
    def lost(self) -> bool:
        """Whether it may not, for now."""

    async def renewed(self) -> None:
        """Wait until it holds. Raises WithheldError where it is lost."""


class Unshared:
    """The permit of a process that shares with nobody."""

    holds = True
    lost = False

    async def renewed(self) -> None:
        """It holds."""


UNSHARED: Final = Unshared()


class Slot(asyncio.Semaphore):
    """A semaphore that can be asked without waiting."""

    def take_at_once(self) -> bool:
        """Acquire it where nobody has to be waited for; else False."""
        if self.locked():
            return False
        self._value -= 1  # as `acquire` does then
        return True


Held = tuple[Slot, ...]


class Slots:
    """The whole process's requests in flight; the doubtful ones, together, get half."""

    def __init__(self, total: int) -> None:
        self.resize(total)

    def resize(self, total: int) -> None:
        """From now on so many; who holds a slot, or waits for one, does so among the former ones."""
        self._all = Slot(total)
        self._doubtful = Slot(max(total // 2, 1))

    def take_at_once(self, *, doubtful: bool) -> Held | None:
        """A slot, where one is free and nobody waits for it; what to release after use."""
        if not self._all.take_at_once():
            return None
        if not doubtful:
            return (self._all,)
        if self._doubtful.take_at_once():
            return self._all, self._doubtful
        self._all.release()
        return None

    async def take(self, doubtful: Callable[[], bool]) -> Held:
        """Wait for a slot; what to release after use. `doubtful` may change meanwhile, and is asked again."""
        if not doubtful():
            all_ = self._all  # which may be another one when its turn comes
            await all_.acquire()
            if not doubtful():
                return (all_,)
            all_.release()
        all_, among_doubtful = self._all, self._doubtful
        await among_doubtful.acquire()
        try:
            await all_.acquire()
        except BaseException:
            among_doubtful.release()
            raise
        return all_, among_doubtful


class Budget:
    """Counts the requests of a rolling window; seconds are monotonic."""

    def __init__(self, requests_per_minute: int) -> None:
        self.limit = requests_per_minute
        self._in_flight = 0
        self._leaves: deque[float] = deque()  # when each ended request leaves the window

    def free(self, now: float) -> int:
        """How many requests may be started at once."""
        while self._leaves and self._leaves[0] <= now:
            self._leaves.popleft()
        return self.limit - self._in_flight - len(self._leaves)

    def seconds_to_free(self, now: float) -> float:
        """How long until one may be started; a whole window where only requests in flight are in the way."""
        if self.free(now) > 0:
            return 0.0
        return self._leaves[0] - now if self._leaves else WINDOW

    def started(self) -> None:
        """A request is on its way."""
        self._in_flight += 1

    def ended(self, now: float) -> None:
        """A request has ended, however."""
        self._in_flight -= 1
        self._leaves.append(now + WINDOW)


class Pace:
    """Everything that holds a site's requests back: its breaker, Retry-After, budget and slots."""

    def __init__(
        self,
        site: Site,
        requests_per_minute: int,
        slots: Slots,
        clock: Clock,
        jitter: Callable[[], float],
        permit: Permit = UNSHARED,
    ) -> None:
        self.site = site
        self.permit = permit
        self.state = SiteState()
        self.requests_per_minute = requests_per_minute
        self.requests = 0
        self.failures: Counter[FailureReason] = Counter()
        self._throttled = 0.0
        self.budget = Budget(requests_per_minute)
        self._slots = slots
        self._clock = clock
        self._jitter = jitter
        self._site_slots = Slot(site.slots)
        self._queue = 0  # requests that wait for their turn
        self._gate = asyncio.Lock()
        self._changed = asyncio.Event()
        self._doubtful = False

    async def enter(self, *, trial: bool = False, fit: Callable[[], bool] = lambda: True) -> Held:
        """Wait for leave to send one request; it is held, and to be given back to `leave`, while that lasts.

        Raises WithheldError where the site is down (unless this is the breaker's trial) or told us to wait,
        or where there is no permit, OutdatedError where the request is not `fit` any more at its turn.
        """
        self.check(trial=trial)
        if not self.permit.holds:
            await self.permit.renewed()
            self.check(trial=trial)
        held = self._take_at_once() or await self._wait_for_turn(trial=trial)
        if not fit():
            _release(held)
            raise OutdatedError(self.site.name)
        self.budget.started()
        self.requests += 1
        return held

    def leave(self, held: Held) -> None:
        """The request has ended, however."""
        self.budget.ended(self._clock.monotonic())
        _release(held)

    def _take_at_once(self) -> Held | None:
        """The slots of a request, where nothing stands in its way and nobody waits before it."""
        if self._queue or self.budget.free(self._clock.monotonic()) <= 0:
            return None
        if not self._site_slots.take_at_once():
            return None
        slots = self._slots.take_at_once(doubtful=self._doubtful)
        if slots is None:
            self._site_slots.release()
            return None
        return (self._site_slots, *slots)

    async def _wait_for_turn(self, *, trial: bool) -> Held:
        """In order, one at a time: for the budget, then for the slots."""
        held: Held = ()
        self._queue += 1
        try:
            of_the_site = self._site_slots  # which may be others when its turn comes
            await of_the_site.acquire()
            held = (of_the_site,)
            async with self._gate:
                held += await self._take_slots(trial=trial)
                self.check(trial=trial)
        except BaseException:
            _release(held)
            raise
        finally:
            self._queue -= 1
        return held

    async def _take_slots(self, *, trial: bool) -> Held:
        """With room in the budget: a reload may narrow it in the meantime, or who shares it take the last.

        And with the permit, which may end while one waits.
        """
        while True:
            await self._wait_for_budget(trial=trial)
            slots = await self._slots.take(self._is_doubtful)
            if self.spare(0) and self.permit.holds:
                return slots
            _release(slots)
            await self.permit.renewed()

    def _is_doubtful(self) -> bool:
        return self._doubtful

    def adapt(self, site: Site, requests_per_minute: int) -> None:
        """Go on with other settings; what was sent and what is known of the site stands."""
        if site.slots != self.site.slots:  # who holds one, or waits for one, does so among the former ones
            self._site_slots = Slot(site.slots)
        self.site = site
        self.requests_per_minute = self.budget.limit = requests_per_minute
        self._changed.set()

    def check(self, *, trial: bool) -> None:
        """Raise WithheldError where the site is down (unless this is the trial), or it or we must wait."""
        state = self.state
        if (
            self.permit.lost
            or (state.outage is not None and not trial)
            or (state.wait_until is not None and state.must_wait(self._clock.now()))
        ):
            raise WithheldError(self.site.name)

    def settle(self, observation: Observation, now: datetime, *, trial: bool) -> tuple[Effect, ...]:
        """Book what a poll told about the site; what is to be announced."""
        self._doubtful = isinstance(observation, PollFailed)
        before = self.state
        jitter = self._jitter() if self._doubtful else 0.0
        self.state, effects = advance_site(self.site, before, observation, now, trial=trial, jitter=jitter)
        if self.state.wait_until is not None and self.state.wait_until != before.wait_until:
            self._throttled += (self.state.wait_until - max(before.wait_until or now, now)).total_seconds()
        self._changed.set()
        return effects

    def doubt(self) -> None:
        """A request has failed, and still holds its slot: the site is doubtful until a poll succeeds."""
        self._doubtful = True

    def credential_replaced(self) -> None:
        """There is a new secret: a site that is down by a refusal may be tried at once."""
        if self.state.outage is not None and self.state.outage.reason in REFUSALS:
            self.state = try_at_once(self.site, self.state, self._clock.now())

    def way_replaced(self) -> None:
        """The way to Wix is another one: a site that is down may be tried at once."""
        self.state = try_at_once(self.site, self.state, self._clock.now())

    def inherit(self, former: "Pace") -> None:
        """Go on with the minute, and the wait, of another site of the same credential: they are one quota."""
        self.budget = former.budget
        self.budget.limit = self.requests_per_minute
        if former.state.wait_until is not None:
            self.state = msgspec.structs.replace(self.state, wait_until=former.state.wait_until)

    def failed(self, reason: FailureReason) -> None:
        """Count a request that failed."""
        self.failures[reason] += 1

    def spare(self, reserve: int) -> bool:
        """Whether the budget has room for an extra request and keeps `reserve` for the regular ones."""
        return self.budget.free(self._clock.monotonic()) > reserve

    @property
    def used(self) -> int:
        """Requests of the last minute, those in flight too, as the budget counts them."""
        return self.requests_per_minute - self.budget.free(self._clock.monotonic())

    @property
    def throttled_seconds(self) -> float:
        """Seconds in which the budget or a Retry-After held the site back, up to now."""
        until, now = self.state.wait_until, self._clock.now()
        ahead = (until - now).total_seconds() if until is not None and until > now else 0.0
        return self._throttled - ahead

    async def _wait_for_budget(self, *, trial: bool) -> None:
        self.check(trial=trial)
        while (seconds := self.budget.seconds_to_free(self._clock.monotonic())) > 0:
            await self._hold(seconds)
            self.check(trial=trial)

    async def _hold(self, seconds: float) -> None:
        """Wait until something has changed, `seconds` at most."""
        began = self._clock.monotonic()
        self._changed.clear()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
        finally:
            self._throttled += self._clock.monotonic() - began


def _release(held: Held) -> None:
    for each in held:
        each.release()
