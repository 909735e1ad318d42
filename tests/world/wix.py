"""Wix by a script: what each request is answered, when, and what that answer means."""

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from datetime import UTC, timedelta
from email.utils import format_datetime
from typing import Final, Protocol

from monitor.clock import Clock
from monitor.config import ApiSettings
from monitor.core.model import Answer, FailureReason, NoAnswer, Status
from monitor.wix.client import Api
from monitor.wix.network import StaleConnection
from tests.stage import ENVELOPE
from tests.world.facts import STALE, Meaning, Request
from tests.world.script import Fault, Kind, SiteScript, World

QUICK: Final = 0.05  # seconds to a refused connection
_PREMIUM: Final = json.dumps(
    {"message": "", "details": {"applicationError": {"code": "PREMIUM_FEATURE_NOT_ENABLED"}}}
).encode()
_PAGE: Final = b"<html>no such page</html>"

_POLLS: Final[dict[Kind, tuple[Answer | NoAnswer, Meaning]]] = {
    "server_error": (Answer(500, ENVELOPE), Meaning(FailureReason.SERVER_ERROR)),
    "refused": (NoAnswer(FailureReason.CONNECT), Meaning(FailureReason.CONNECT)),
    "tls": (NoAnswer(FailureReason.TLS), Meaning(FailureReason.TLS)),
    "unauthorized": (Answer(401, ENVELOPE), Meaning(FailureReason.UNAUTHORIZED, again=True)),
    "forbidden": (Answer(403, ENVELOPE), Meaning(FailureReason.FORBIDDEN)),
    "premium": (Answer(403, _PREMIUM), Meaning(FailureReason.PREMIUM_REQUIRED)),
    "absent": (Answer(404, ENVELOPE), Meaning(shown=(Status.NOT_FOUND, None))),
    "gateway": (Answer(404, _PAGE), Meaning(FailureReason.BAD_RESPONSE)),
    "wrong_id": (
        Answer(200, json.dumps({"connection": {"id": "another", "status": "ERROR"}}).encode()),
        Meaning(FailureReason.BAD_RESPONSE),
    ),
    "truncated": (Answer(200, b'{"connection": {"id": "d'), Meaning(FailureReason.BAD_RESPONSE)),
    "rejected": (Answer(400, ENVELOPE), Meaning(FailureReason.REJECTED)),
    "stale": (StaleConnection(FailureReason.CONNECT), STALE),
}
_REFUSED: Final = Meaning(FailureReason.UNAUTHORIZED, refuses=True)
_TOKENS: Final[dict[Kind, tuple[Answer | NoAnswer, Meaning]]] = {
    **_POLLS,
    "unauthorized": (Answer(401, b'{"message": "UNAUTHENTICATED", "details": {}}'), _REFUSED),
    "forbidden": (Answer(403, ENVELOPE), _REFUSED),
    "premium": (Answer(403, _PREMIUM), _REFUSED),
    "absent": (Answer(404, ENVELOPE), Meaning(FailureReason.REJECTED)),
    "wrong_id": (Answer(200, b'{"access_token": ""}'), Meaning(FailureReason.BAD_RESPONSE)),
    "truncated": (Answer(200, b'{"access_token": "t'), Meaning(FailureReason.BAD_RESPONSE)),
    "rejected": (Answer(400, b'{"error": "invalid_client"}'), _REFUSED),
}
_TIMED_OUT: Final = (NoAnswer(FailureReason.TIMEOUT), Meaning(FailureReason.TIMEOUT))

Reply = Callable[[], tuple[Answer | NoAnswer, Meaning]]


class Listener(Protocol):
    """Who hears of each request."""

    def asked(self, request: Request) -> None: ...

    def answered(self, request: Request, meaning: Meaning) -> None: ...

    def cut(self, request: Request) -> None: ...


class ScriptedApi(Api):
    """One site's session: answers by the world's script, and is cut at the timeout as a real one is."""

    def __init__(self, world: World, index: int, clock: Clock, listener: Listener) -> None:
        settings = ApiSettings("https://wix.invalid", timedelta(seconds=world.timeout), 256)
        super().__init__(settings, clock, lambda _: None)
        self._site: SiteScript = world.sites[index]
        self._index = index
        self._timeout = world.timeout
        self._clock = clock
        self._listener = listener
        self._chance = random.Random(world.seed * 100 + index)
        self._began = clock.monotonic()
        self._tokens: dict[str, tuple[float, float]] = {}

    @property
    def now(self) -> float:
        return self._clock.monotonic() - self._began

    def secret(self, at: float) -> str:
        """The secret that is taken."""
        return f"secret-{self._index}-{sum(each.at <= at for each in self._site.rotations)}"

    async def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Mapping[str, str] | None = None,
        may_go: Callable[[], bool] = lambda: True,
    ) -> Answer | NoAnswer:
        assert may_go()
        connection = path.rpartition("/")[2] if method == "GET" else None
        credential = headers["Authorization"] if body is None else body["client_secret"]
        task = asyncio.current_task()
        assert task is not None
        request = Request(self._index, connection, credential, self.now, task)
        self._listener.asked(request)
        delay, reply = self._look_up(request)
        late = delay > self._timeout
        try:
            await asyncio.sleep(min(delay, self._timeout))
        except asyncio.CancelledError:
            self._listener.cut(request)
            raise
        answer, meaning = _TIMED_OUT if late else reply()
        self._listener.answered(request, meaning)
        return answer

    def _look_up(self, request: Request) -> tuple[float, Reply]:
        """Seconds to the answer, and what it will be."""
        delay = self._site.latency * self._chance.uniform(0.5, 1.5)
        for fault in self._faults(request):
            if fault.kind == "slow":
                delay += fault.delay
            elif fault.kind == "hangs":
                return self._timeout * 2, lambda: _TIMED_OUT
            else:
                quick = fault.kind in ("refused", "stale")
                return QUICK if quick else delay, lambda fault=fault: self._fail(request, fault)
        return delay, (lambda: self._grant(request)) if request.connection is None else self._show(request)

    def _faults(self, request: Request) -> list[Fault]:
        number = None if request.connection is None else _number(request.connection)
        on = "tokens" if request.connection is None else "polls"
        return [
            each
            for each in self._site.faults
            if each.start <= self.now < each.end
            and each.on in (on, "all")
            and each.only in (None, number)
            and self._befalls(each, request)
        ]

    def _befalls(self, fault: Fault, request: Request) -> bool:
        if fault.kind != "revoked":
            return True
        issued, _ = self._tokens.get(request.credential, (-1.0, 0.0))
        return request.connection is not None and issued < fault.start

    def _fail(self, request: Request, fault: Fault) -> tuple[Answer | NoAnswer, Meaning]:
        if fault.kind == "limited":
            text, wait = self._retry_after(fault.wait)
            return Answer(429, ENVELOPE, "", text), Meaning(FailureReason.RATE_LIMITED, wait=wait)
        kind: Kind = "unauthorized" if fault.kind == "revoked" else fault.kind
        return (_TOKENS if request.connection is None else _POLLS)[kind]

    def _retry_after(self, text: str) -> tuple[str, float]:
        """The header as it is sent, and the seconds that are to be waited for it."""
        wall = self._clock.wall(self._clock.now())
        if text.startswith(("+", "-")):
            date = (wall + timedelta(seconds=float(text))).astimezone(UTC).replace(microsecond=0)
            return format_datetime(date, usegmt=True), _within((date - wall).total_seconds())
        return text, _within(float(text)) if text.isdigit() else 60.0

    def _grant(self, request: Request) -> tuple[Answer, Meaning]:
        if request.credential != self.secret(self.now):
            return Answer(400, b'{"error": "invalid_client"}'), _REFUSED
        life = self._site.token_life or 0.0
        token = f"token-{self._index}-{len(self._tokens)}"
        self._tokens[token] = (request.started, request.started + life)
        body = json.dumps({"access_token": token, "token_type": "Bearer", "expires_in": life})
        return Answer(200, body.encode()), Meaning(token=token)

    def _show(self, request: Request) -> Reply:
        if not self._lets_in(request.credential):
            return lambda: _POLLS["unauthorized"]
        status, reason = self._status(request.connection or "")
        if status == Status.NOT_FOUND:
            return lambda: _POLLS["absent"]
        body = {"connection": {"id": request.connection, "status": status, "errorReason": reason}}
        answer, meaning = Answer(200, json.dumps(body).encode()), Meaning(shown=(status, reason))
        return lambda: (answer, meaning)

    def _lets_in(self, credential: str) -> bool:
        if self._site.token_life is None:
            return credential == self.secret(self.now)
        return credential in self._tokens and self.now < self._tokens[credential][1]

    def _status(self, connection: str) -> tuple[str, str | None]:
        number = _number(connection)
        past = [each for each in self._site.changes if each.connection == number and each.at <= self.now]
        newest = max(past, key=lambda each: each.at, default=None)
        return ("SYNCED", None) if newest is None else (newest.status, newest.reason)


def _within(seconds: float) -> float:
    return min(max(seconds, 1.0), 3600.0)


def _number(connection: str) -> int:
    return int(connection.rpartition("-")[2])
