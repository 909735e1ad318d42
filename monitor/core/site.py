"""The site machine: whether Wix answers us for this site at all, and whether we may ask it now.

| the site | a poll told | then |
|---|---|---|
| up | success | up; the row of failures ends |
| up | a failure that counts, the n-th in a row | down: one trial per back-off instead of all polls |
| up | the token endpoint refused our credential | down at once |
| down | success | up; the polls go on in phase |
| down | the trial failed | down; the back-off doubles, up to 5 minutes; a new reason is told |
| either | 429 | nothing is sent before the wait is over; a rate-limited site is up |

A failure that is neutral for the breaker (see `monitor.core.classify`) neither counts nor ends a row.
"""

from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from monitor.core.classify import BreakerEffect, breaker_effect
from monitor.core.effects import Effect, RateLimited, SiteDown, SiteUp
from monitor.core.model import FailureReason, Observation, PollFailed

JITTER: Final = 0.2
"""A back-off is spread by this part of itself, so that many sites do not come back in step."""

_SHORTEST_BACKOFF: Final = timedelta(seconds=1)
_LONGEST_BACKOFF: Final = timedelta(minutes=5)


class Site(msgspec.Struct, frozen=True, gc=False):
    """What the machine needs to know of a site; `interval` is the one in force."""

    name: str
    interval: timedelta
    breaker_failures: int = 5
    connections: int = 0


class Outage(msgspec.Struct, frozen=True, gc=False):
    """Why and since when a site is down, and when it is tried next."""

    since: datetime
    reason: FailureReason
    backoff: timedelta
    trial_at: datetime


class SiteState(msgspec.Struct, frozen=True, gc=False):
    """All we know of a site's willingness to answer. `answered`: some HTTP answer came, ever."""

    answered: bool = False
    failures_in_a_row: int = 0
    outage: Outage | None = None
    wait_until: datetime | None = None

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
    if not _counts(observation):
        return step
    return _counted(site, state, observation, now, jitter)


def _was_answered(observation: Observation) -> bool:
    return not isinstance(observation, PollFailed) or observation.http_status is not None


def _succeeded(site: Site, state: SiteState, now: datetime) -> SiteStep:
    if state.outage is None:
        return SiteStep(
            msgspec.structs.replace(state, failures_in_a_row=0) if state.failures_in_a_row else state
        )
    up = SiteUp(
        site=site.name,
        reason=state.outage.reason,
        since=state.outage.since,
        duration=now - state.outage.since,
        connections=site.connections,
    )
    return SiteStep(msgspec.structs.replace(state, failures_in_a_row=0, outage=None), (up,))


def _told_to_wait(
    site: Site, state: SiteState, failure: PollFailed, wait: timedelta, now: datetime
) -> SiteStep:
    running = state.must_wait(now)
    until = max(now + wait, state.wait_until or now)
    after = msgspec.structs.replace(state, wait_until=until)
    told = () if running else (RateLimited(site=site.name, wait=wait, request_id=failure.request_id),)
    return SiteStep(after, told)


def _still_down(
    site: Site, step: SiteStep, outage: Outage, failure: PollFailed, now: datetime, jitter: float
) -> SiteStep:
    backoff = min(outage.backoff * 2, _LONGEST_BACKOFF)
    told: tuple[Effect, ...] = ()
    if (
        _counts(failure) and failure.reason is not outage.reason
    ):  # it was the network, now it is the credential
        outage = msgspec.structs.replace(outage, reason=failure.reason)
        told = (_down(site, failure, outage.since),)
    outage = msgspec.structs.replace(outage, backoff=backoff, trial_at=now + _spread(backoff, jitter))
    return SiteStep(msgspec.structs.replace(step.state, outage=outage), step.effects + told)


def _counted(site: Site, state: SiteState, failure: PollFailed, now: datetime, jitter: float) -> SiteStep:
    state = msgspec.structs.replace(state, failures_in_a_row=state.failures_in_a_row + 1)
    if state.failures_in_a_row < site.breaker_failures and not failure.refused:
        return SiteStep(state)
    backoff = min(max(site.interval, _SHORTEST_BACKOFF), _LONGEST_BACKOFF)
    outage = Outage(now, failure.reason, backoff, now + _spread(backoff, jitter))
    return SiteStep(msgspec.structs.replace(state, outage=outage), (_down(site, failure, now),))


def _counts(failure: PollFailed) -> bool:
    return failure.refused or breaker_effect(failure) is BreakerEffect.COUNTS


def _down(site: Site, failure: PollFailed, since: datetime) -> SiteDown:
    return SiteDown(
        site=site.name,
        reason=failure.reason,
        detail=failure.detail,
        http_status=failure.http_status,
        request_id=failure.request_id,
        since=since,
        connections=site.connections,
    )


def _spread(backoff: timedelta, jitter: float) -> timedelta:
    return backoff * (1 + JITTER * jitter)
