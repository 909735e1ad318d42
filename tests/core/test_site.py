"""The site machine: each row of its table, the breaker's back-off, the Retry-After, and what always holds."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.classify import BreakerEffect, breaker_effect
from monitor.core.effects import Effect, RateLimited, RateLimitLifted, SiteDown, SiteUp
from monitor.core.model import FailureReason, NotFound, Observation, Observed, PollFailed, Status
from monitor.core.site import JITTER, Site, SiteState, advance_site, try_at_once

START = datetime(2026, 7, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
SITE = Site(name="downtown", interval=MINUTE, breaker_failures=3, connections=7)

SUCCESS = Observed(Status.SYNCED)
BROKEN = PollFailed(FailureReason.SERVER_ERROR, "SYSTEM", 503, "req-9")
DEAF = PollFailed(FailureReason.CONNECT, "refused")
REFUSED = PollFailed(FailureReason.UNAUTHORIZED, "invalid_client", 400, "req-7", refused=True)
NEUTRAL = PollFailed(FailureReason.REJECTED, "", 400)
FAILURES = [PollFailed(reason, retry_after=MINUTE) for reason in FailureReason]
COUNTED = [failure for failure in FAILURES if breaker_effect(failure) is BreakerEffect.COUNTS]
UNCOUNTED = [failure for failure in FAILURES if breaker_effect(failure) is BreakerEffect.NEUTRAL]
SHARED = [msgspec.structs.replace(failure, shared=True) for failure in COUNTED]


def limited(wait: timedelta) -> PollFailed:
    return PollFailed(FailureReason.RATE_LIMITED, "", 429, "req-8", wait)


@dataclass
class Game:
    """A site that is told one thing after another; the clock stands unless it is moved."""

    site: Site = SITE
    state: SiteState = field(default_factory=SiteState)
    now: datetime = START
    jitter: float = 0.0

    def told(self, observation: Observation, *, trial: bool = False) -> tuple[Effect, ...]:
        self.state, effects = advance_site(
            self.site, self.state, observation, self.now, trial=trial, jitter=self.jitter
        )
        return effects

    def until_trial(self) -> timedelta:
        assert self.state.outage is not None
        return self.state.outage.trial_at - self.now

    def go_down(self) -> None:
        for _ in range(self.site.breaker_failures):
            self.told(BROKEN)
        assert self.state.outage is not None


@pytest.fixture
def game() -> Game:
    return Game()


# up | success


def test_an_untried_site_may_be_asked(game: Game) -> None:
    assert game.state.may_ask(START)
    assert not game.state.answered


@pytest.mark.parametrize("success", [SUCCESS, NotFound()])
def test_up_a_success_ends_the_row_of_failures(game: Game, success: Observation) -> None:
    for observation in (BROKEN, BROKEN, success, BROKEN, BROKEN):
        assert game.told(observation) == ()
    assert game.state.failures_in_a_row == 2
    assert game.state.may_ask(START)


@pytest.mark.parametrize(
    ("script", "answered"),
    [
        ([DEAF], False),
        ([DEAF, BROKEN], True),
        ([BROKEN, DEAF], True),
        ([NotFound()], True),
        ([SUCCESS], True),
    ],
)
def test_a_site_has_answered_once_any_http_answer_came(script: list[Observation], answered: bool) -> None:  # noqa: FBT001  the expectation
    game = Game()
    for observation in script:
        game.told(observation)
    assert game.state.answered is answered


# up | a failure that counts, the n-th in a row


@pytest.mark.parametrize("failure", COUNTED)
@pytest.mark.parametrize("needed", [1, 3, 5])
def test_up_the_nth_counted_failure_in_a_row_takes_it_down(failure: PollFailed, needed: int) -> None:
    game = Game(msgspec.structs.replace(SITE, breaker_failures=needed))
    for _ in range(needed - 1):
        assert game.told(failure) == ()
        assert game.state.may_ask(START)
    (down,) = game.told(failure)
    assert isinstance(down, SiteDown)
    assert not game.state.may_ask(START + 1000 * MINUTE)


def test_going_down_tells_why_since_when_and_how_much_is_blind(game: Game) -> None:
    game.told(DEAF)
    game.told(DEAF)
    game.now += MINUTE
    assert game.told(BROKEN) == (
        SiteDown(
            site="downtown",
            reason=FailureReason.SERVER_ERROR,
            detail="SYSTEM",
            http_status=503,
            request_id="req-9",
            since=START + MINUTE,
            next_trial_at=START + 2 * MINUTE,
            connections=7,
        ),
    )
    assert game.state.outage is not None
    assert (game.state.outage.since, game.state.outage.reason) == (
        START + MINUTE,
        FailureReason.SERVER_ERROR,
    )


# up | the token endpoint refused our credential


def test_up_a_refused_credential_takes_it_down_at_once(game: Game) -> None:
    (down,) = game.told(REFUSED)
    assert isinstance(down, SiteDown)
    assert (down.reason, down.detail) == (FailureReason.UNAUTHORIZED, "invalid_client")
    assert game.until_trial() == MINUTE


def test_a_plain_401_does_not(game: Game) -> None:
    assert game.told(PollFailed(FailureReason.UNAUTHORIZED, "", 401)) == ()


def test_a_secret_that_was_replaced_is_tried_at_once_and_the_back_off_begins_anew(game: Game) -> None:
    game.told(REFUSED)
    for _ in range(3):
        game.told(REFUSED, trial=True)
    assert game.until_trial() == 5 * MINUTE
    game.now += SECOND
    game.state = try_at_once(SITE, game.state, game.now)
    assert game.until_trial() == timedelta()
    assert game.told(REFUSED, trial=True) == ()
    assert game.until_trial() == 2 * MINUTE
    assert game.state.outage is not None
    assert game.state.outage.since == START


def test_a_site_that_is_up_has_nothing_to_try(game: Game) -> None:
    assert try_at_once(SITE, game.state, game.now) == game.state


# neutral failures


@pytest.mark.parametrize("failure", [*UNCOUNTED, *SHARED])
def test_a_neutral_failure_neither_counts_nor_ends_a_row(failure: PollFailed) -> None:
    game = Game()
    for _ in range(20):
        assert not any(isinstance(effect, SiteDown) for effect in game.told(failure))
    assert game.state.failures_in_a_row == 0
    game.told(BROKEN)
    game.told(BROKEN)
    game.told(failure)
    (down,) = game.told(BROKEN)
    assert isinstance(down, SiteDown)


# down | success


@pytest.mark.parametrize("success", [SUCCESS, NotFound()])
@pytest.mark.parametrize("trial", [True, False])
def test_down_a_success_brings_it_up_and_leaves_nothing_behind(success: Observation, trial: bool) -> None:  # noqa: FBT001  a parameter
    game = Game()
    game.go_down()
    game.now += 90 * SECOND
    assert game.told(success, trial=trial) == (
        SiteUp(
            site="downtown",
            reason=FailureReason.SERVER_ERROR,
            http_status=503,
            request_id="req-9",
            since=START,
            duration=90 * SECOND,
            connections=7,
        ),
    )
    assert game.state == SiteState(answered=True)
    assert game.told(success) == ()


def test_a_second_outage_begins_with_the_first_back_off_again(game: Game) -> None:
    game.go_down()
    for _ in range(3):
        game.told(BROKEN, trial=True)
    game.told(SUCCESS, trial=True)
    game.go_down()
    assert game.until_trial() == MINUTE


# down | the trial failed


@pytest.mark.parametrize(
    ("interval", "back_offs"),
    [
        (timedelta(milliseconds=500), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]),
        (timedelta(seconds=1), [1, 2, 4]),
        (timedelta(seconds=15), [15, 30, 60, 120, 240, 300, 300]),
        (timedelta(minutes=4), [240, 300, 300]),
        (timedelta(minutes=5), [300, 300]),
        (timedelta(hours=1), [300, 300]),
    ],
)
def test_the_back_off_begins_with_the_interval_and_doubles_up_to_five_minutes(
    interval: timedelta, back_offs: list[int]
) -> None:
    game = Game(msgspec.structs.replace(SITE, interval=interval))
    game.go_down()
    seen = [game.until_trial()]
    for _ in back_offs[1:]:
        game.now += game.until_trial()
        assert game.told(BROKEN, trial=True) == ()
        seen.append(game.until_trial())
    assert seen == [timedelta(seconds=seconds) for seconds in back_offs]


@pytest.mark.parametrize("jitter", [-1.0, -0.5, 0.0, 0.25, 1.0])
def test_jitter_spreads_a_back_off_by_a_fifth_and_does_not_grow_with_it(jitter: float) -> None:
    game = Game(jitter=jitter)
    game.go_down()
    for back_off in (MINUTE, 2 * MINUTE, 4 * MINUTE, 5 * MINUTE, 5 * MINUTE):
        assert game.until_trial() == back_off * (1 + JITTER * jitter)
        game.told(BROKEN, trial=True)
    assert JITTER == 0.2


@pytest.mark.parametrize("failure", [*FAILURES, REFUSED])
def test_down_any_failed_trial_keeps_it_down_and_a_new_reason_is_told(failure: PollFailed) -> None:
    game = Game()
    game.go_down()
    game.now += MINUTE
    told = [effect for effect in game.told(failure, trial=True) if isinstance(effect, SiteDown | SiteUp)]
    waits = failure.reason is FailureReason.RATE_LIMITED  # that is told as what it is
    reason = FailureReason.SERVER_ERROR if waits else failure.reason
    assert game.state.outage is not None
    assert (game.state.outage.since, game.state.outage.reason) == (START, reason)
    assert [(effect.reason, effect.since) for effect in told] == (
        [(reason, START)] if reason is not FailureReason.SERVER_ERROR else []
    )
    assert game.until_trial() == 2 * MINUTE


@pytest.mark.parametrize("failure", [*COUNTED, REFUSED, NEUTRAL])
def test_down_a_straggler_from_before_changes_nothing(failure: PollFailed) -> None:
    game = Game()
    game.go_down()
    before = game.state
    game.now += MINUTE
    assert game.told(failure) == ()
    assert game.state == before


# either | 429


def test_a_429_stops_the_whole_site_until_the_wait_is_over(game: Game) -> None:
    assert game.told(limited(MINUTE)) == (RateLimited(site="downtown", wait=MINUTE, request_id="req-8"),)
    assert game.state.outage is None
    assert not game.state.may_ask(START)
    assert not game.state.may_ask(START + MINUTE - timedelta(microseconds=1))
    assert game.state.may_ask(START + MINUTE)


def test_a_running_wait_is_extended_but_never_shortened_and_told_once(game: Game) -> None:
    assert len(game.told(limited(MINUTE))) == 1
    game.now += 30 * SECOND
    assert game.told(limited(10 * SECOND)) == ()
    assert game.state.wait_until == START + MINUTE
    assert game.told(limited(MINUTE)) == ()
    assert game.state.wait_until == START + 90 * SECOND


def test_a_row_of_429s_is_told_once_and_its_end_at_the_first_success(game: Game) -> None:
    game.told(limited(MINUTE))
    game.now += MINUTE
    assert game.told(limited(MINUTE)) == ()
    assert game.state.wait_until == START + 2 * MINUTE
    game.now += MINUTE
    assert game.told(BROKEN) == ()
    assert game.told(SUCCESS) == (RateLimitLifted(site="downtown", since=START, duration=2 * MINUTE),)
    assert game.told(SUCCESS) == ()
    assert len(game.told(limited(MINUTE))) == 1


def test_a_success_underway_does_not_end_a_wait(game: Game) -> None:
    game.told(limited(MINUTE))
    assert game.told(SUCCESS) == ()
    assert not game.state.may_ask(START + 59 * SECOND)
    game.now += MINUTE
    assert len(game.told(SUCCESS)) == 1


@pytest.mark.parametrize("trial", [True, False])
def test_down_a_429_is_waited_for_too(trial: bool) -> None:  # noqa: FBT001  a parameter
    game = Game()
    game.go_down()
    assert game.told(limited(2 * MINUTE), trial=trial) == (
        RateLimited(site="downtown", wait=2 * MINUTE, request_id="req-8"),
    )
    assert game.state.must_wait(START + 119 * SECOND)
    assert game.until_trial() == (2 * MINUTE if trial else MINUTE)
    game.told(SUCCESS, trial=True)
    assert not game.state.may_ask(START + 119 * SECOND)
    assert game.state.may_ask(START + 2 * MINUTE)


# What always holds.

waits = st.integers(0, 3600).map(lambda seconds: limited(seconds * SECOND))
anything = st.sampled_from([SUCCESS, NotFound(), BROKEN, DEAF, REFUSED, NEUTRAL]) | waits
gaps = st.integers(0, 400).map(lambda seconds: seconds * SECOND)
scripts = st.lists(st.tuples(anything, gaps, st.booleans(), st.floats(-1, 1)), max_size=60)


@given(scripts, st.integers(1, 6))
def test_down_and_up_take_turns_and_the_last_told_is_the_truth(
    script: list[tuple[Observation, timedelta, bool, float]], needed: int
) -> None:
    game = Game(msgspec.structs.replace(SITE, breaker_failures=needed))
    edges: list[SiteDown | SiteUp] = []
    for observation, gap, trial, jitter in script:
        game.now, game.jitter = game.now + gap, jitter
        told = game.told(observation, trial=trial)
        edges += [effect for effect in told if isinstance(effect, SiteDown | SiteUp)]
        assert (game.state.outage is not None) == bool(edges and isinstance(edges[-1], SiteDown))
    assert not edges or isinstance(edges[0], SiteDown)
    for before, after in pairwise(edges):
        if isinstance(before, SiteUp):
            assert isinstance(after, SiteDown)
        elif isinstance(after, SiteUp):
            assert (after.since, after.reason) == (before.since, before.reason)
            assert after.duration >= timedelta()
        else:  # still down, for another reason
            assert (after.since, after.reason != before.reason) == (before.since, True)


@given(scripts)
def test_a_success_leaves_the_site_up_and_its_row_empty(
    script: list[tuple[Observation, timedelta, bool, float]],
) -> None:
    game = Game()
    for observation, gap, trial, jitter in script:
        game.now, game.jitter = game.now + gap, jitter
        before = game.state
        game.told(observation, trial=trial)
        if not isinstance(observation, PollFailed):
            limited_since = before.limited_since if before.must_wait(game.now) else None
            assert game.state == SiteState(
                answered=True, wait_until=before.wait_until, limited_since=limited_since
            )


@given(scripts)
def test_a_site_goes_down_by_its_nth_failure_or_a_refusal_and_by_nothing_else(
    script: list[tuple[Observation, timedelta, bool, float]],
) -> None:
    game = Game()
    row = 0
    for observation, gap, trial, jitter in script:
        game.now, game.jitter = game.now + gap, jitter
        was_up = game.state.outage is None
        told = game.told(observation, trial=trial)
        effect = breaker_effect(observation)
        counts = effect in (BreakerEffect.COUNTS, BreakerEffect.OPENS)
        row = 0 if not isinstance(observation, PollFailed) else row + counts
        refused = isinstance(observation, PollFailed) and observation.refused
        expected = was_up and counts and (refused or row >= SITE.breaker_failures)
        assert (was_up and any(isinstance(effect, SiteDown) for effect in told)) == expected


@given(scripts)
def test_waits_only_grow_and_each_row_of_429s_is_told_once_at_both_ends(
    script: list[tuple[Observation, timedelta, bool, float]],
) -> None:
    game = Game()
    edges: list[Effect] = []
    for observation, gap, trial, jitter in script:
        game.now, game.jitter = game.now + gap, jitter
        before = game.state
        told = game.told(observation, trial=trial)
        edges += [effect for effect in told if isinstance(effect, RateLimited | RateLimitLifted)]
        if isinstance(observation, PollFailed) and observation.retry_after is not None:
            assert game.state.wait_until is not None
            assert game.state.wait_until >= game.now + observation.retry_after
            assert before.wait_until is None or game.state.wait_until >= before.wait_until
        else:
            assert game.state.wait_until == before.wait_until
        assert (game.state.limited_since is not None) == bool(edges and isinstance(edges[-1], RateLimited))
    assert all(isinstance(edge, RateLimited) for edge in edges[::2])
    assert all(isinstance(edge, RateLimitLifted) for edge in edges[1::2])


@given(scripts)
def test_the_next_trial_is_never_further_than_the_cap_and_its_jitter(
    script: list[tuple[Observation, timedelta, bool, float]],
) -> None:
    game = Game()
    for observation, gap, trial, jitter in script:
        game.now, game.jitter = game.now + gap, jitter
        game.told(observation, trial=trial)
        if game.state.outage is not None:
            assert game.until_trial() <= 5 * MINUTE * (1 + JITTER)
            assert MINUTE <= game.state.outage.backoff <= 5 * MINUTE
