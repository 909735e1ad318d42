"""One connection and one site as they are shown."""

from datetime import timedelta

import msgspec
import pytest

from monitor.core.model import FailureReason, PollFailed, Status
from monitor.core.site import SiteState
from monitor.view.look import ConnectionView, look_at, look_at_site
from tests.view.scene import MINUTE, NOW, POLICY, UNSEEN, Watched, facts_of, outage, site_of, state, watched

SECOND = timedelta(seconds=1)


def looked(one: Watched, known: SiteState | None = None, ahead: timedelta = timedelta()) -> ConnectionView:
    site = site_of([one], state=known or SiteState(answered=True))
    return look_at(one, site, facts_of(site, correction=ahead))


def test_a_well_connection_is_shown_with_all_that_is_known() -> None:
    view = looked(watched("anna", team="front-desk", labels=(("staff", "anna"),)))
    assert (view.site, view.name, view.id, view.team) == ("downtown", "anna", "id-anna", "front-desk")
    assert (view.status, view.reason, view.healthy, view.stale, view.move) == (
        "SYNCED",
        None,
        True,
        False,
        None,
    )
    assert (view.since, view.last_success) == (NOW - timedelta(days=2), NOW - 30 * SECOND)
    assert (view.next_poll, view.interval, view.labels) == (NOW + 30 * SECOND, MINUTE, {"staff": "anna"})
    assert (view.failures, view.failure, view.maintenance_until) == ((), None, None)


def test_all_moments_are_the_machines_own() -> None:
    view = looked(watched("anna"), ahead=timedelta(hours=1))
    assert view.since == NOW - timedelta(days=2) + timedelta(hours=1)
    assert view.next_poll == NOW + 30 * SECOND + timedelta(hours=1)


@pytest.mark.parametrize("known", [UNSEEN, state(last_success_at=NOW - timedelta(hours=1))])
def test_what_is_unseen_or_stale_is_neither_healthy_nor_not(known: object) -> None:
    assert isinstance(known, type(UNSEEN))
    view = looked(watched("anna", known))
    assert view.healthy is None
    assert view.stale is (known is not UNSEEN)


def test_an_extra_poll_is_the_next_one() -> None:
    assert looked(watched("anna", extra_at=103.0)).next_poll == NOW + 3 * SECOND


def test_a_poll_that_waits_for_its_turn_is_due_now() -> None:
    assert looked(watched("anna", next_at=40.0)).next_poll == NOW + 0 * SECOND


def test_a_site_that_is_down_is_not_polled_and_one_that_waits_is_later() -> None:
    assert looked(watched("anna"), outage()).next_poll is None
    waits = SiteState(answered=True, wait_until=NOW + 95 * SECOND)
    assert looked(watched("anna"), waits).next_poll == NOW + 150 * SECOND


def test_what_is_long_dead_is_polled_when_its_turn_comes() -> None:
    policy = msgspec.structs.replace(POLICY, dead_every=10)
    dead = state(status=Status.NOT_FOUND)
    view = looked(watched("anna", dead, policy=policy))
    assert (view.interval, view.next_poll) == (10 * MINUTE, NOW + 9 * MINUTE + 30 * SECOND)


def test_failures_are_told_while_the_last_poll_is_one() -> None:
    one = watched("anna", state(last_poll_succeeded=False, failures_in_a_row=1))
    site = site_of([one])
    facts = facts_of(site, correction=SECOND)
    facts.failures.note("downtown", "id-anna", PollFailed(FailureReason.TIMEOUT, "", None, "req-9"), NOW)
    view = look_at(one, site, facts)
    assert view.failure is not None
    assert (view.failure.at, view.failure.request_id) == (NOW + SECOND, "req-9")
    one.state = state()
    recovered = look_at(one, site, facts)
    assert (recovered.failure, len(recovered.failures)) == (None, 1)


def test_maintenance_is_shown_until_it_ends() -> None:
    assert looked(watched("anna", maintenance_until=NOW + SECOND)).maintenance_until == NOW + SECOND
    assert looked(watched("anna", maintenance_until=NOW)).maintenance_until is None


@pytest.mark.parametrize(
    ("known", "up", "credential"),
    [
        (SiteState(), None, "unknown"),
        (SiteState(answered=True), True, "accepted"),
        (outage(), False, "unknown"),
        (outage(FailureReason.UNAUTHORIZED), False, "refused"),
    ],
)
def test_a_site_is_shown_with_its_credentials_state(known: SiteState, up: object, credential: str) -> None:
    site = site_of([watched("anna")], state=known)
    view = look_at_site(site, facts_of(site))
    assert (view.up, view.credential, view.credential_state) == (up, "oauth", credential)
    assert (view.connections, view.used, view.requests_per_minute) == (1, 12, 160)


def test_a_site_that_is_down_says_why_since_when_and_when_it_is_tried() -> None:
    site = site_of([], state=outage())
    view = look_at_site(site, facts_of(site, correction=SECOND))
    assert (view.down_reason, view.down_since) == ("timeout", NOW - 5 * MINUTE + SECOND)
    assert (view.next_trial, view.request_id) == (NOW + MINUTE + SECOND, "req-1")


def test_a_sites_wait_and_maintenance_are_shown_while_they_last() -> None:
    ends = NOW + MINUTE
    on = site_of([], state=SiteState(wait_until=ends), maintenance_until=ends)
    over = site_of([], state=SiteState(wait_until=NOW), maintenance_until=NOW)
    assert [look_at_site(each, facts_of(each)).wait_until for each in (on, over)] == [ends, None]
    assert [look_at_site(each, facts_of(each)).maintenance_until for each in (on, over)] == [ends, None]
