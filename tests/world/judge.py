"""The judge: what must hold in every world, checked after every step.

A step is the start of a request, its end, a booked poll, a tick. The judge knows what the world saw and
what is public; what the code keeps for itself it does not ask.

| promise | |
|---|---|
| 1 budget | never more requests of a site in any 60 s, by start or by any arrival between start and end |
| 2 slots, one poll at a time | per site, in all, and half of all for those whose last poll failed |
| 3 what is known | exactly what was truly answered last and came whole |
| 4 breaker | opens at the n-th failure; then one trial a back-off, which walks on, with a new token |
| 5 Retry-After | nothing before the wait is over |
| 6 in time | a due poll waits only while something holds its site back, and never for ever |
| 7 story | each change told once, in order, as one unbroken chain |
| 8 tokens | one request at a time, no renewal without a reason, no poll with what has ended |
| 9 back on phase | once nothing is wrong any more |
| 10 end | no crash, nothing cut, nothing left |
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from monitor.clock import Clock
from monitor.core.model import ConnectionState, FailureReason
from monitor.sweep import Sweep
from tests.world import rules
from tests.world.facts import (
    TOUCH,
    WINDOW,
    Meaning,
    Poll,
    Request,
    Result,
    Seen,
    Shown,
    SiteFacts,
    Task,
    Traffic,
)
from tests.world.script import World

_SHOWN_BEFORE: Final = 60  # steps told with a verdict
_CHANGES: Final = ("connection_first_seen", "connection_transition")
_SITES: Final = ("site_up", "site_down")

Line = Mapping[str, Any]


class Asked(NamedTuple):
    """A request, as a story remembers it; `connection` None: for a token."""

    at: float
    site: int
    connection: str | None


class Judge:
    """Hears of each step, keeps the facts, and asks every rule."""

    def __init__(self, world: World, clock: Clock) -> None:
        self.traffic = Traffic(world)
        self.sites: list[SiteFacts] = []
        self.broken: list[str] = []
        self.requests: list[Asked] = []
        self.lines: list[tuple[float, Line]] = []
        self.steps = 0
        self.polls = 0
        self.on_broken: Callable[[], None] = lambda: None
        self._world = world
        self._quiet = _quiet_from(world)
        self._clock = clock
        self._began = clock.monotonic()
        self._trace: deque[tuple[float, str, str]] = deque(maxlen=_SHOWN_BEFORE)
        self._story: list[Line] = []
        self._ids: set[str] = set()
        self._answers = 0

    @property
    def now(self) -> float:
        return self._clock.monotonic() - self._began

    def watch(self, sweep: Sweep, epoch: float, secret: str) -> None:
        """Hold a site's sweep against its script."""
        index, name = len(self.sites), sweep.pace.site.name

        def broken(rule: str, told: str) -> None:
            self.broken.append(f"{rule}: {told} ({name} at {self.now:.3f})")
            self._trace.append((self.now, name, f"*** {rule}: {told}"))
            self.on_broken()

        interval = sweep.pace.site.interval.total_seconds()
        site = SiteFacts(name, index, self._world.sites[index], interval, sweep, self.traffic, broken)
        site.secret = secret
        site.put_in_phase(epoch)
        self.sites.append(site)

    def verdict(self) -> str:
        """The first broken promise, and the steps before it."""
        steps = "\n".join(f"  {at:12.3f} {site} {told}" for at, site, told in self._trace)
        return f"{self.broken[0]}\n{steps}\nin {self._world!r}"

    def events(self, name: str) -> list[tuple[float, Line]]:
        """The lines of that name, and when they were told."""
        return [(at, line) for at, line in self.lines if line["event"] == name]

    # What is heard

    def asked(self, request: Request) -> None:
        site = self._step(request.site, f"asks {request.connection or 'a token'} as {request.credential}")
        self.requests.append(Asked(site.now, request.site, request.connection))
        rules.check_wait(site)
        if site.drained:
            rules.check_end(site, request)
        if request.connection is None:
            rules.check_token_request(site, request)
        else:
            rules.check_credential(site, request)
            self._poll_asks(site, request, site.connections[request.connection])
        site.started(request)
        rules.check_budget(site)
        rules.check_slots(site, request)
        self._look()

    def answered(self, request: Request, meaning: Meaning) -> None:
        told = meaning.failure or meaning.shown or meaning.token
        site = self._step(request.site, f"is answered {request.connection or 'a token'}: {told}")
        self._answers += 1
        request.meaning, request.order = meaning, self._answers
        site.ended(request)
        site.doubtful |= meaning.failure not in (None, FailureReason.BAD_RESPONSE)
        if meaning.wait:
            site.be_told_to_wait(meaning.wait)
        if request.connection is None:
            rules.note_token(site, request, meaning)
        elif meaning.failure is FailureReason.UNAUTHORIZED:
            rules.note_refused(site, request)
        if request.started > self._quiet:
            rules.check_peace(site, meaning)
        self._look()

    def cut(self, request: Request) -> None:
        site = self._step(request.site, f"is cut {request.connection or 'a token'}")
        site.ended(request)
        if request.connection is not None:
            site.connections[request.connection].poll = None
        if not site.drained:
            site.broken("10 end", "a request was cut before the drain")

    def told(self, line: Line) -> None:
        self.lines.append((self.now, line))
        if line["event"] in _CHANGES or line["event"] in _SITES:
            self._story.append(line)

    def booked(self, index: int, connection: str, state: ConnectionState, task: Task) -> None:
        """A poll has ended, its ledger has its new state, and what it changed is told."""
        site = self._step(index, f"books {connection}")
        seen = site.connections[connection]
        self.polls += 1
        result = self._result(site, seen, task)
        if result is not None:
            before, since = seen.known, seen.known_since
            changed = rules.note_known(site, seen, result.meaning)
            line = rules.note_outcome(site, seen, result, task)
            self._check_story(site, line)
            self._check_change(site, seen, before if changed else seen.known, since)
            rules.note_unsettled(site, seen)
        seen.poll, seen.waiting, seen.booked = None, None, site.now
        rules.check_state(site, seen, state)
        rules.check_breaker(site)
        self._look(but=seen)

    def ticked(self, index: int) -> None:
        site = self._step(index, "")
        rules.note_tick(site)
        self._look()

    def paused(self, seconds: float) -> None:
        """The loop stood still, and goes on."""
        for site in self.sites:
            self._step(site.index, f"stood still for {seconds}")
            site.disturb(seconds, WINDOW + 3 * site.sweep.tick_period.total_seconds() + self._world.timeout)

    def rotated(self, index: int, secret: str) -> None:
        site = self._step(index, f"has a new secret in its file, {secret}")
        site.secret, site.secret_is_new = secret, True

    def crashed(self, index: int, error: BaseException) -> None:
        self._step(index, repr(error)).broken("10 end", f"a crash: {error!r}")

    def drained(self, index: int) -> None:
        """From here on the site may start nothing new."""
        site = self._step(index, "is drained")
        rules.check_settled(site, self._quiet)
        site.drained = True

    def ended(self, left: list[str], errors: list[BaseException]) -> None:
        """All is drained."""
        for told in [*left, *(repr(error) for error in errors)]:
            self.sites[0].broken("10 end", told)
        for site in self.sites:
            if site.flying:
                site.broken("10 end", f"{len(site.flying)} requests are still in flight")

    # What is made of it

    def _step(self, index: int, told: str) -> SiteFacts:
        self.steps += 1
        now = self.now
        for site in self.sites:
            site.pass_to(now)
        site = self.sites[index]
        if told:
            self._trace.append((now, site.name, told))
        return site

    def _look(self, but: Seen | None = None) -> None:
        """Check what is always to hold; but for the connection whose new state is just being taken over."""
        for site in self.sites:
            rules.check_known(site, but)
            if not site.drained:
                rules.check_attention(site)
                rules.check_trial_comes(site)
        if self._story:
            self.sites[0].broken("7 story", f"told without a poll: {self._story[0]}")
            self._story.clear()

    def _poll_asks(self, site: SiteFacts, request: Request, seen: Seen) -> None:
        if seen.poll is not None:
            rules.check_one_at_a_time(site, seen, seen.poll, request)
            if site.outage is not None and request.task in site.outage.older:
                site.broken("4 breaker", "an older poll asks again while the site is down")
            seen.poll.last = request
            return
        seen.poll = Poll(request.task, request, site.held)
        if site.outage is not None:
            rules.check_trial(site, site.outage, request, seen)
        elif seen.waiting is not None:
            rules.check_lateness(site, seen)
        elif not seen.may and site.now >= site.disturbed_until:
            rules.check_extra(site, seen)
            request.extra = True
        seen.waiting, seen.may = None, site.now < site.disturbed_until

    def _result(self, site: SiteFacts, seen: Seen, task: Task) -> Result | None:
        """The answer by which a poll ended: its own last one, or that of the token that it waited for."""
        own = seen.poll.last if seen.poll is not None else None
        if seen.poll is not None and seen.poll.task is not task:
            site.broken("2 one poll at a time", f"two polls of {seen.id}")
        failed = site.token_failure
        if (
            failed is not None
            and site.now - (failed.request.ended or 0.0) < TOUCH + site.stood_still
            and (own is None or own.order < failed.request.order)
        ):
            return Result(failed.meaning, rules.is_shared(site, failed))
        if own is None or own.meaning is None:
            site.broken("3 what is known", f"a poll of {seen.id} ended, and nothing was answered")
            return None
        return Result(own.meaning)

    def _check_story(self, site: SiteFacts, expected: str) -> None:
        """The site's own line is told exactly where it came up or went down."""
        told = [line for line in self._story if line["event"] in _SITES]
        self._story = [line for line in self._story if line["event"] not in _SITES]
        if [line["event"] for line in told] != ([expected] if expected else []):
            site.broken("7 story", f"{expected or 'nothing'} is to be told of the site, not {told}")

    def _check_change(self, site: SiteFacts, seen: Seen, before: Shown | None, since: float) -> None:
        """One line, from what was known to what is known, where they differ."""
        lines, self._story = self._story, []
        if before == seen.known:
            if lines:
                site.broken("7 story", f"told without a change: {lines}")
            return
        if len(lines) != 1:
            site.broken("7 story", f"{seen.id} changed from {before}, and {len(lines)} lines are told")
            return
        (line,) = lines
        self._check_line(site, seen, before, line)
        if before is not None and abs(line["duration_seconds"] - (site.now - since)) > TOUCH:
            site.broken("7 story", f"{before} lasted for {site.now - since:.3f} s: {line}")

    def _check_line(self, site: SiteFacts, seen: Seen, before: Shown | None, line: Line) -> None:
        if before is None:
            right = (line.get("status"), line.get("reason")) == seen.known
        else:
            right = (line.get("from_status"), line.get("from_reason")) == before
            right = right and (line.get("to_status"), line.get("to_reason")) == seen.known
        if not right or line["connection_id"] != seen.id:
            site.broken("7 story", f"{seen.id} went from {before} to {seen.known}, and told is {line}")
        if line["transition_id"] in self._ids:
            site.broken("7 story", f"an id that was told before: {line}")
        self._ids.add(line["transition_id"])


def _quiet_from(world: World) -> float:
    """From when on nothing is wrong any more."""
    ends = [fault.end for site in world.sites for fault in site.faults]
    ends += [each.at + each.later for site in world.sites for each in site.rotations]
    ends += [pause.at + pause.seconds + WINDOW for pause in world.pauses]
    return max(ends, default=0.0) + sum(pause.seconds for pause in world.pauses) + world.timeout
