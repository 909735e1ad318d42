"""The promises, one function each: what may be sent when, and what must follow.

A rule is held against the facts of a site and says what is broken; the number is that of the promise in the
judge's table.
"""

import math
from typing import Final

from monitor.core.model import ConnectionState, FailureReason
from monitor.core.plan import SITE_SLOTS
from tests.world.facts import (
    COUNTED,
    JITTER,
    LONGEST_BACKOFF,
    REFUSALS,
    STALE,
    TOUCH,
    WINDOW,
    Meaning,
    Outage,
    Poll,
    Request,
    Result,
    Seen,
    SiteFacts,
    Task,
    Token,
    TokenFailure,
    Traffic,
)

SLACK: Final = 0.05
"""Seconds that a start may take beyond what holds it: turns of the loop, roundings of its clock."""

TRIAL_SLACK: Final = 1.0
TRUSTED_FOR: Final = 30.0
ON_PHASE: Final = 1.0


def longest_wait(site: SiteFacts) -> float:
    """The longest that a due poll may wait for its start while its site is up and not told to wait.

    At the site's gate stand at most q = n + 2 requests: each connection's one poll, a token, a trial. They
    go in the order they came, so who comes last waits for

    * the budget: in 60 s and one answer everything in the window has left it, so it lets `budget` through in
      each such while: ceil(q / budget) · (60 + a);
    * the site's own slots: ceil(q / 8) · a;
    * the slots of all: the head of the queue waits behind one head of each other site, first among the
      doubtful for one of the half, then among all: q · (ceil(K / half) + ceil(K / slots)) · a, which is
      nothing where there are enough for all.

    a is the longest that an answer takes, the client's timeout. A poll by token may go through the queue
    twice, for the token and for itself, and begin anew twice where the token has ended meanwhile.

    A wait is allowed this long only where something that the world saw held the site back all the time (a
    full window, slots in use, a token under way): in the free time of a site nobody waits at all.
    """
    traffic = site.traffic
    queue = site.n + 2
    budget = -(-queue // site.script.budget) * (WINDOW + traffic.timeout)
    own = -(-queue // SITE_SLOTS) * traffic.timeout
    turns = -(-traffic.sites // traffic.half) - (-traffic.sites // traffic.limit)
    once = budget + own + (queue * turns * traffic.timeout if is_scarce(traffic) else 0.0)
    return once if site.script.token_life is None else 3 * (2 * once + traffic.timeout)


def is_scarce(traffic: Traffic) -> bool:
    """Whether sites may ever wait for each other's slots."""
    return SITE_SLOTS * traffic.sites > traffic.half


# 1, 2, 5: what holds each request back


def check_budget(site: SiteFacts) -> None:
    if site.window > site.script.budget:
        site.broken("1 budget", f"{site.window} requests in a minute, whenever each arrived")


def check_slots(site: SiteFacts, request: Request) -> None:
    traffic = site.traffic
    if len(site.flying) > SITE_SLOTS:
        site.broken("2 slots", f"{len(site.flying)} of the site in flight")
    if len(traffic.in_flight) > traffic.limit:
        site.broken("2 slots", f"{len(traffic.in_flight)} in flight")
    if request.doubtful and traffic.doubtful > traffic.half:
        site.broken("2 slots", f"{traffic.doubtful} doubtful ones in flight")


def check_one_at_a_time(site: SiteFacts, seen: Seen, poll: Poll, request: Request) -> None:
    if poll.task is not request.task or poll.last.ended is None:
        site.broken("2 one poll at a time", f"two polls of {seen.id}")
    elif poll.last.meaning is None or not may_ask_again(poll.last, request.credential):
        site.broken("2 one poll at a time", f"{seen.id} asks again after an answer that stands")


def may_ask_again(last: Request, credential: str) -> bool:
    """After some answers; after a refusal with what has replaced the refused credential."""
    assert last.meaning is not None
    return last.meaning.again or (last.meaning.failure in REFUSALS and credential != last.credential)


def check_end(site: SiteFacts, request: Request) -> None:
    """Once drained only what had begun may go on, to the end of its one retry; so may a renewal."""
    if request.connection is None:
        return
    poll = site.connections[request.connection].poll
    if poll is None or poll.task is not request.task:
        site.broken("10 end", "a request after the drain began")


def check_wait(site: SiteFacts) -> None:
    if site.now < site.wait_until - TOUCH and site.now > site.told_to_wait + TOUCH:
        site.broken("5 Retry-After", f"a request {site.wait_until - site.now:.3f} s before the wait is over")


# 3: what is known


def note_known(site: SiteFacts, seen: Seen, meaning: Meaning) -> bool:
    """Book what a poll was truly told; whether that is a change."""
    if meaning.shown is None:
        return False
    shown = meaning.shown
    seen.absent = seen.absent + 1 if shown[0] == "NOT_FOUND" else 0
    if 0 < seen.absent < site.script.confirmations or shown == seen.known:
        return False
    seen.transitions += seen.known is not None
    seen.known, seen.known_since, seen.state = shown, site.now, None
    return True


def check_known(site: SiteFacts, but: Seen | None) -> None:
    watched = site.sweep.watched
    for seen in site.connections.values():
        state = watched[seen.number].state
        if state is not seen.state and seen is not but:  # a state is frozen: checked once, it is right
            check_state(site, seen, state)


def check_state(site: SiteFacts, seen: Seen, state: ConnectionState) -> None:
    seen.state = state
    known = None if state.status is None else (state.status, state.reason)
    if known != seen.known:
        site.broken("3 what is known", f"{seen.id} is {seen.known}, and is held to be {known}")


# 4: the breaker


def note_outcome(site: SiteFacts, seen: Seen, result: Result, task: Task) -> str:
    """Book how a poll ended into the plain model of the breaker; the line that is to be told."""
    meaning, outage = result.meaning, site.outage
    site.doubtful = meaning.failure is not None
    if meaning.failure is None:
        site.failures, site.outage = 0, None
        site.up_since = site.up_since if outage is None else site.now
        return "" if outage is None else "site_up"
    counts = meaning.refuses or (meaning.failure in COUNTED and not result.shared)
    if outage is not None:
        return "" if task in outage.older else _trial_failed(site, outage, seen, meaning)
    site.failures += counts
    if not counts or (site.failures < site.script.breaker and not meaning.refuses):
        return ""
    older = frozenset(each.task for each in site.sweep.watched if each.task is not None)
    backoff = first_backoff(site)
    latest = site.now + (1 + JITTER) * backoff
    site.outage = Outage(meaning.failure, site.now, site.now, backoff, latest, site.held, older)
    site.drop_waits()
    return "site_down"


def _trial_failed(site: SiteFacts, outage: Outage, seen: Seen, meaning: Meaning) -> str:
    outage.mark = outage.failed = site.now
    outage.backoff = min(2 * outage.backoff, LONGEST_BACKOFF)
    outage.latest, outage.held = site.now + (1 + JITTER) * outage.backoff, site.held
    outage.trial, outage.tried = None, seen.id
    if meaning.failure in (None, FailureReason.RATE_LIMITED, outage.reason):
        return ""
    assert meaning.failure is not None
    outage.reason = meaning.failure
    return "site_down"


def first_backoff(site: SiteFacts) -> float:
    return min(max(site.interval, 1.0), LONGEST_BACKOFF)


def note_tick(site: SiteFacts) -> None:
    """A tick finds a new secret: a site that is down by a refusal is tried at once, its back-off anew."""
    if not site.secret_is_new:
        return
    site.secret_is_new, site.replaced = False, site.now
    if site.outage is not None and site.outage.reason in REFUSALS:
        site.outage.backoff = first_backoff(site)
        site.outage.mark = -1e9
        site.outage.latest, site.outage.held = site.now, site.held


def is_shared(site: SiteFacts, failed: TokenFailure) -> bool:
    """Whether another poll stands for this renewal that failed; which of them it is may be seen only."""
    failed.booked = True
    state = site.sweep.pace.state
    if site.outage is None:
        stands = state.outage is not None or state.failures_in_a_row > site.failures
    else:
        stands = state.outage is not None and state.outage.reason is failed.meaning.failure
    shared = failed.counted or not stands
    failed.counted = failed.counted or stands
    return shared


def check_counted(site: SiteFacts, failed: TokenFailure) -> None:
    """A renewal that failed, and for which polls were booked, was counted once."""
    ended = (failed.request.ended or 0.0) + site.stood_still + TOUCH
    if not failed.booked or failed.counted or failed.meaning.failure not in COUNTED or site.now < ended:
        return
    failed.counted = True
    if site.outage is None and site.up_since < ended:
        site.broken("4 breaker", "a renewal failed, and does not count")


def check_breaker(site: SiteFacts) -> None:
    state = site.sweep.pace.state
    row = f"{site.failures} of {site.script.breaker} failures in a row"
    if (state.outage is not None) != (site.outage is not None):
        site.broken("4 breaker", f"after {row} it is {'closed' if site.outage is not None else 'open'}")
    elif site.outage is None and state.failures_in_a_row != site.failures:
        site.broken("4 breaker", f"after {row} it counts {state.failures_in_a_row}")


def check_trial(site: SiteFacts, outage: Outage, request: Request, seen: Seen) -> None:
    """A poll is started while the site is down."""
    if request.task in outage.older:
        site.broken("4 breaker", "a poll while the site is down")
    if outage.trial is not None and not outage.trial.done():
        site.broken("4 breaker", "two trials at a time")
    check_backoff(site, outage, "a trial")
    if seen.id == outage.tried and not _all_others_busy(site, outage, seen):
        site.broken("4 breaker", f"the trial does not walk on from {seen.id}")
    if outage.reason in REFUSALS and _credential_is_old(site, outage, request):
        site.broken("4 breaker", f"a trial after a refusal with {request.credential}, as before")
    outage.trial, outage.tried = request.task, seen.id


def _credential_is_old(site: SiteFacts, outage: Outage, request: Request) -> bool:
    if site.script.token_life is None:
        return request.credential != site.secret and not site.secret_is_new
    return site.token is None or site.token.got < outage.failed


def check_backoff(site: SiteFacts, outage: Outage, what: str) -> None:
    earliest = outage.mark + (1 - JITTER) * outage.backoff
    if site.now < earliest - TOUCH:
        site.broken("4 breaker", f"{what} {earliest - site.now:.3f} s before the back-off is over")


def _all_others_busy(site: SiteFacts, outage: Outage, seen: Seen) -> bool:
    """Whether each other connection had a poll under way since the last trial."""
    return all(
        each.poll is not None
        or site.sweep.watched[each.number].task is not None
        or each.booked > outage.failed
        for each in site.connections.values()
        if each is not seen
    )


def check_trial_comes(site: SiteFacts) -> None:
    """A site that is down is tried once its back-off and its wait are over and a connection is free."""
    outage = site.outage
    if outage is None or (outage.trial is not None and not outage.trial.done()):
        return
    if all(each.task is not None for each in site.sweep.watched):
        outage.latest = max(outage.latest, site.now + TRIAL_SLACK)
    due = max(outage.latest, site.wait_until, site.disturbed_until)
    late = site.now - due - min(site.held - outage.held, longest_wait(site))
    if late > TRIAL_SLACK:
        outage.latest = site.now + LONGEST_BACKOFF
        site.broken("4 breaker", f"no trial {late:.3f} s after it was due")


# 6, 9: nobody is forgotten


def check_lateness(site: SiteFacts, seen: Seen) -> None:
    """Whoever waits for a due poll does so only while something holds the site back, and not for ever."""
    if seen.waiting is None:
        return
    waited = site.now - seen.waiting
    held = site.held - seen.held
    if waited > ON_PHASE and not (site.extras_of_the_minute and site.script.token_life):
        site.late = max(site.late, seen.waiting)
    if waited > min(held, longest_wait(site)) + SLACK:
        seen.waiting = None
        bound = min(held, longest_wait(site))
        site.broken("6 in time", f"{seen.id} waits for {waited:.3f} s, and may for {bound:.3f} s")


def check_attention(site: SiteFacts) -> None:
    waiting = False
    if site.token_failure is not None:
        check_counted(site, site.token_failure)
    for seen in site.connections.values():
        if seen.waiting is not None:
            waiting = True
            check_lateness(site, seen)
        poll = seen.poll
        if poll is not None and poll.last.ended is not None:
            check_booking(site, seen, poll.last)
    if waiting and site.window >= site.script.budget:
        check_room(site)


def check_booking(site: SiteFacts, seen: Seen, last: Request) -> None:
    assert last.meaning is not None
    assert last.ended is not None
    again = may_ask_again(last, newest_credential(site))
    patience = 2 * longest_wait(site) + site.traffic.timeout if again else TOUCH
    if site.now > max(last.ended, site.disturbed_until) + patience:
        seen.poll = None
        site.broken("3 what is known", f"{seen.id} was answered, and it is not booked")


def newest_credential(site: SiteFacts) -> str:
    """What a poll would go with now; of tokens none while one is wanted."""
    if site.script.token_life is None:
        return site.secret
    return "" if site.token is None else site.token.name


def check_room(site: SiteFacts) -> None:
    """Extra looks take what the budget leaves: they hold up no due poll."""
    room = max(site.script.budget - int(site.n * WINDOW / site.interval) - 1, 0)
    extras = site.extras_of_the_minute
    if extras > room and site.now >= site.disturbed_until:
        site.broken("6 in time", f"{extras} extra looks in a minute that is full, not {room}")


def check_peace(site: SiteFacts, meaning: Meaning) -> None:
    """A request that was sent when nothing was wrong any more is answered well."""
    if meaning.failure is None or (site.token is not None and _may_have_ended(site, site.token)):
        return
    site.broken("9 back on phase", f"{meaning.failure} though nothing is wrong any more")


def check_settled(site: SiteFacts, quiet: float) -> None:
    """Where nothing is wrong any more each poll is at its phase again, an interval and a backlog later.

    But for plans so narrow that a token or a neighbour puts them off their phases: there promise 6 is all.
    """
    narrow = site.script.budget < int(site.n * WINDOW / site.interval) + 3 or is_scarce(site.traffic)
    settled = max(quiet, site.up_since, site.wait_until) + site.interval + backlog(site)
    if not narrow and site.outage is None and site.late > settled:
        site.broken("9 back on phase", f"due at {site.late:.3f}, and late; all is well from {settled:.3f}")


def backlog(site: SiteFacts) -> float:
    """How long it may take until polls that were held back by the budget have been made up for.

    What is in the window leaves it; then each connection's one late poll takes what the plan leaves free.
    """
    script = site.script
    carries = script.budget / (WINDOW + 2 * script.latency)
    life = script.token_life
    asks = site.n / site.interval + (0.0 if life is None else 1 / max(life / 2, life - 600))
    free = carries - asks
    return math.inf if free <= 0 else WINDOW + site.traffic.timeout + (site.n + 1) / free


def check_extra(site: SiteFacts, seen: Seen) -> None:
    """A poll that is not due is a sooner look at what is unsettled."""
    if not seen.unsettled:
        site.broken("6 in time", f"{seen.id} is polled off its phase, and is settled")
    elif site.now < seen.booked + site.script.unsettled - TOUCH:
        site.broken("6 in time", f"{seen.id} is looked at too soon")


def note_unsettled(site: SiteFacts, seen: Seen) -> None:
    """Whether a sooner look is due after this poll: syncing, a not-found to confirm, or just changed."""
    syncing = seen.known is not None and seen.known[0] == "SYNC_IN_PROGRESS"
    unconfirmed = 0 < seen.absent < site.script.confirmations
    changed = seen.transitions > 0 and site.now - seen.known_since < site.interval
    seen.unsettled = site.script.unsettled < site.interval and (syncing or unconfirmed or changed)


# 8: tokens


def check_token_request(site: SiteFacts, request: Request) -> None:
    if site.token_request is not None:
        site.broken("8 tokens", "two requests for a token at a time")
    if request.credential != site.secret:
        site.broken("8 tokens", f"asked for with {request.credential}, and the file holds {site.secret}")
    failed = site.token_failure
    again = failed is not None and failed.meaning == STALE
    if site.outage is not None and not again:
        check_renewal_while_down(site, site.outage)
    token = site.token
    if token is not None and token.refused is not None:
        site.dropped = token.refused
        return
    if token is None or site.now >= token.renew_at - TOUCH or site.replaced >= token.got:
        return
    token.forgotten |= site.outage is not None and site.outage.reason in REFUSALS
    if not token.forgotten:
        site.broken("8 tokens", f"{token.name} is renewed, and is good")


def check_renewal_while_down(site: SiteFacts, outage: Outage) -> None:
    """No token is asked for before the trial; but for one that was wanted before, and waited for its turn."""
    if not outage.older_renewal:
        check_backoff(site, outage, "a token")
    outage.older_renewal = False


def note_token(site: SiteFacts, request: Request, meaning: Meaning) -> None:
    """Book what the token endpoint answered."""
    if meaning.failure is None:
        life = site.script.token_life or 0.0
        margin = min(max(life / 10, 75.0), 600.0, life / 2)
        ends = site.now + life
        site.token = Token(meaning.token, site.now, ends, ends - margin, site.held)
        site.token_failure = None
        return
    site.token_failure = TokenFailure(request, meaning)
    if meaning.refuses:
        site.token = None
    elif site.token is not None and not meaning.again:
        site.token.renew_at = min(site.now + TRUSTED_FOR, site.token.ends)


def note_refused(site: SiteFacts, request: Request) -> None:
    """A poll's first 401 costs the token, unless a 401 cost one just now."""
    poll = site.connections[request.connection or ""].poll
    token = site.token
    if poll is None or poll.refused:
        return
    poll.refused = True
    if token is not None and token.name == request.credential and token.refused is None:
        token.refused = site.now if site.now >= site.dropped + TRUSTED_FOR - TOUCH else None


def check_credential(site: SiteFacts, request: Request) -> None:
    """A poll goes with the newest token, and not with one whose end the client knows.

    But for the second try over another connection, which is the same request sent again, and for a poll that
    was sent back twice already: its third turn is its last.
    """
    if site.script.token_life is None or _may_be_outdated(site, site.connections[request.connection or ""]):
        return
    token = site.token
    if token is None or token.name != request.credential:
        newest = None if token is None else token.name
        site.broken("8 tokens", f"sent with {request.credential}, and the newest is {newest}")
    elif token.refused is not None and site.now > token.refused + TOUCH:
        site.broken("8 tokens", f"sent with {token.name}, which was refused")
    elif site.now > token.ends + TOUCH and not _may_have_ended(site, token):
        site.broken("8 tokens", f"sent with {token.name}, which has ended")


def _may_be_outdated(site: SiteFacts, seen: Seen) -> bool:
    if seen.poll is not None and seen.poll.last.meaning == STALE:
        return True
    held = seen.held if seen.poll is None else seen.poll.held
    return site.held - held > 2 * WINDOW - SLACK


def _may_have_ended(site: SiteFacts, token: Token) -> bool:
    """Whether a poll may have waited for its turn longer than the token in its hand lasted.

    It lasts a little less than the client was told: it was on its way for a while.
    """
    return site.held - token.held > token.ends - token.renew_at - ON_PHASE
