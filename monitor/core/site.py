"""The site machine: whether Wix answers us for this site at all, and whether we may ask it now.

| the site | a poll told | then |
|---|---|---|
| up | success | up; the row of failures ends |
| up | a failure that counts, the n-th in a row | down: one trial per back-off instead of all polls |
| up | the token endpoint refused our credential | down at once |
| down | success | up; the polls go on in phase |
| down | the trial failed | down; the back-off doubles, up to 5 minutes; any new reason is told |
| either | 429 | nothing is sent before the wait is over; a rate-limited site is up |
| either | success, after a row of 429s | the row ends, and its end is told |
| down, refused | (its secret was replaced) | the back-off begins anew, with a trial at once |

A failure that is neutral for the breaker (see `monitor.core.classify`) neither counts nor ends a row.
"""

from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from monitor.core.classify import BreakerEffect, breaker_effect
from monitor.core.effects import Effect, RateLimited, RateLimitLifted, SiteDown, SiteUp
from monitor.core.model import FailureReason, Observation, PollFailed
from monitor.core.plan import SITE_SLOTS

JITTER: Final = 0.2
"""A back-off is spread by this part of itself, so that many sites do not come back in step."""

REFUSALS: Final = (FailureReason.UNAUTHORIZED, FailureReason.FORBIDDEN, FailureReason.PREMIUM_REQUIRED)
"""Why a site is down where its credential may be to blame."""

_SHORTEST_BACKOFF: Final = timedelta(seconds=1)
_LONGEST_BACKOFF: Final = timedelta(minutes=5)


class Site(msgspec.Struct, frozen=True, gc=False):
    """What the machine needs to know of a site; `interval` is the one in force, `slots` what it may fill."""

    name: str
    interval: timedelta
    breaker_failures: int = 5
    connections: int = 0
    slots: int = SITE_SLOTS


class Outage(msgspec.Struct, frozen=True, gc=False):
    """Why and since when a site is down, by which answer, and when it is tried next."""

    since: datetime
    reason: FailureReason
    http_status: int | None
    request_id: str
    backoff: timedelta
    trial_at: datetime


class SiteState(msgspec.Struct, frozen=True, gc=False):
    """All we know of a site's willingness to answer. `answered`: some HTTP answer came, ever.

    `limited_since`: when a row of 429s began that no success has ended yet.
    """

    answered: bool = False
    failures_in_a_row: int = 0
    outage: Outage | None = None
    wait_until: datetime | None = None
    limited_since: datetime | None = None

    @property
    def up(self) -> bool | None:
        """Whether Wix answers us for the site; None before its first answer."""
        return False if self.outage is not None else (True if self.answered else None)

    def may_ask(self, now: datetime) -> bool:
        """Whether an ordinary poll may be sent."""
        return self.outage is None and not self.must_wait(now)

    def must_wait(self, now: datetime) -> bool:
        """Whether a Retry-After is running."""
        return self.wait_until is not None and now < self.wait_until


class SiteStep(NamedTuple):
    """What one observation led to."""

    state: SiteState
    effects: tuple[Effect, ...] = ()


def advance_site(
    site: Site, state: SiteState, observation: Observation, now: datetime, *, trial: bool, jitter: float
) -> SiteStep:
    """Book one observation into its site. `trial`: it was the breaker's; `jitter` lies within ±1."""
    if _was_answered(observation) and not state.answered:
        state = msgspec.structs.replace(state, answered=True)
    if not isinstance(observation, PollFailed):
        return _succeeded(site, state, now)
    if observation.reason is FailureReason.RATE_LIMITED and observation.retry_after is not None:
        step = _told_to_wait(site, state, observation, observation.retry_after, now)
    else:
        step = SiteStep(state)
    if state.outage is not None:
        return _still_down(site, step, state.outage, observation, now, jitter) if trial else step
    if breaker_effect(observation) is BreakerEffect.NEUTRAL:
        return step
    return _counted(site, state, observation, now, jitter)


def try_at_once(site: Site, state: SiteState, now: datetime) -> SiteState:
    """What stood between the site and us may have been mended: try it now, and from the first back-off on."""
    if state.outage is None:
        return state
    outage = msgspec.structs.replace(state.outage, backoff=_first_backoff(site), trial_at=now)
    return msgspec.structs.replace(state, outage=outage)


def _was_answered(observation: Observation) -> bool:
    return not isinstance(observation, PollFailed) or observation.http_status is not None


def _succeeded(site: Site, state: SiteState, now: datetime) -> SiteStep:
    told: list[Effect] = []
    if state.outage is not None:
        told.append(_up(site, state.outage, now))
    limited = state.limited_since
    if limited is not None and not state.must_wait(now):  # else it was asked before the 429
        told.append(RateLimitLifted(site=site.name, since=limited, duration=now - limited))
        limited = None
    if not told and not state.failures_in_a_row:
        return SiteStep(state)
    after = msgspec.structs.replace(state, failures_in_a_row=0, outage=None, limited_since=limited)
    return SiteStep(after, tuple(told))


def _told_to_wait(
    site: Site, state: SiteState, failure: PollFailed, wait: timedelta, now: datetime
) -> SiteStep:
    until = max(now + wait, state.wait_until or now)
    since = state.limited_since or now
    after = msgspec.structs.replace(state, wait_until=until, limited_since=since)
    if state.limited_since is not None:
        return SiteStep(after)
    return SiteStep(after, (RateLimited(site=site.name, wait=wait, request_id=failure.request_id),))


def _still_down(
    site: Site, step: SiteStep, outage: Outage, failure: PollFailed, now: datetime, jitter: float
) -> SiteStep:
    backoff = min(outage.backoff * 2, _LONGEST_BACKOFF)
    outage = msgspec.structs.replace(outage, backoff=backoff, trial_at=now + _spread(backoff, jitter))
    told: tuple[Effect, ...] = ()
    if failure.reason not in (outage.reason, FailureReason.RATE_LIMITED):
        # it was the network, now it is the credential; that Wix makes us wait is told already
        outage = msgspec.structs.replace(
            outage, reason=failure.reason, http_status=failure.http_status, request_id=failure.request_id
        )
        told = (_down(site, outage, failure.detail),)
    return SiteStep(msgspec.structs.replace(step.state, outage=outage), step.effects + told)


def _counted(site: Site, state: SiteState, failure: PollFailed, now: datetime, jitter: float) -> SiteStep:
    state = msgspec.structs.replace(state, failures_in_a_row=state.failures_in_a_row + 1)
    opens = breaker_effect(failure) is BreakerEffect.OPENS
    if state.failures_in_a_row < site.breaker_failures and not opens:
        return SiteStep(state)
    backoff = _first_backoff(site)
    outage = Outage(
        since=now,
        reason=failure.reason,
        http_status=failure.http_status,
        request_id=failure.request_id,
        backoff=backoff,
        trial_at=now + _spread(backoff, jitter),
    )
    return SiteStep(msgspec.structs.replace(state, outage=outage), (_down(site, outage, failure.detail),))


def _down(site: Site, outage: Outage, detail: str) -> SiteDown:
    return SiteDown(
        site=site.name,
        reason=outage.reason,
        detail=detail,
        http_status=outage.http_status,
        request_id=outage.request_id,
        since=outage.since,
        next_trial_at=outage.trial_at,
        connections=site.connections,
    )


def _up(site: Site, outage: Outage, now: datetime) -> SiteUp:
    return SiteUp(
        site=site.name,
        reason=outage.reason,
        http_status=outage.http_status,
        request_id=outage.request_id,
        since=outage.since,
        duration=now - outage.since,
        connections=site.connections,
    )


def _first_backoff(site: Site) -> timedelta:
    return min(max(site.interval, _SHORTEST_BACKOFF), _LONGEST_BACKOFF)


def _spread(backoff: timedelta, jitter: float) -> timedelta:
    return backoff * (1 + JITTER * jitter)
