"""`poll`: one poll now, through the daemon's own code path, with everything shown that is no secret."""

import json
import re
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final

import msgspec

from monitor.clock import Clock
from monitor.config import Settings, SiteSettings
from monitor.core.machine import advance
from monitor.core.model import (
    HEALTHY_BY_DEFAULT,
    Answer,
    Connection,
    ConnectionState,
    NotFound,
    Observation,
    PollFailed,
    Status,
)
from monitor.errors import WithheldError
from monitor.logs import Redactor
from monitor.metrics.exposition import Dialect, slices
from monitor.metrics.snapshot import Snapshot
from monitor.wix.client import TOKEN_PATH, Api, Exchange
from monitor.wix.pace import Slots
from monitor.wix.site import connect_site

_SECRET_HEADERS: Final = frozenset({"authorization"})
_SECRET_WORDS: Final = ("email", "token", "secret", "password")
_TEXT_SHOWN: Final = 500
_ADDRESS: Final = re.compile(r"[^\s@\"<>(){}\[\],;:=\\]+@[^\s@\"'<>(){}\[\],;:=\\]+")


class Verdict(IntEnum):
    """What the one poll says, as an exit code."""

    HEALTHY = 0
    UNHEALTHY = 1
    COULD_NOT_ASK = 3


async def poll_once(
    settings: Settings, site: SiteSettings, connection: Connection, clock: Clock, say: Callable[[str], None]
) -> Verdict:
    """Poll one connection and say what was sent, what came back and what it means; writes no state."""
    redactor = Redactor()

    def shown(text: str) -> str:
        return _ADDRESS.sub("[REDACTED]", redactor.clean(text))

    say(
        "This spends a request or a few (a token, a retry) of the reserve between the site's budget "
        f"({site.requests_per_minute} a minute) and Wix's 200; the daemon, if it runs, does not count them."
    )
    api = Api(settings.api, clock, lambda _: None, lambda seen: say(shown(_show(seen))))
    await api.open()
    client = connect_site(site, api, Slots(1), clock, hide=redactor.hide, on_renewed=lambda: None)
    try:
        observation = await client.get_connection(connection.id, on_started=lambda: None)
    except WithheldError:
        observation = None
    finally:
        await client.close()
        await api.close()
    if observation is None:
        say("observation  none: Wix told the site to wait")
        return Verdict.COULD_NOT_ASK
    now = clock.now()
    state = advance(connection, ConnectionState(watched_since=now), observation, now).state
    say(shown(f"observation  {_describe(observation)}"))
    verdict, words = _judge(connection, observation, state)
    say(f"verdict      {words}")
    snapshot = Snapshot(
        now=now, correction=clock.wall(now) - now, connections=[(connection, state)], sites=[]
    )
    say("\nseries it would expose:")
    page = b"".join(slices(snapshot, Dialect.TEXT)).decode()
    say("\n".join(line for line in page.splitlines() if not line.startswith("#")))
    return verdict


def _judge(connection: Connection, observation: Observation, state: ConnectionState) -> tuple[Verdict, str]:
    if isinstance(observation, PollFailed):
        return Verdict.COULD_NOT_ASK, "could not ask: nothing is known of the calendar by this"
    if state.status is None:
        needed = connection.policy.not_found_confirmations
        return Verdict.UNHEALTHY, f"unconfirmed: the daemon believes a 404 at the {needed}. in a row"
    if state.is_healthy(connection.policy):
        return Verdict.HEALTHY, "healthy"
    connected = {Status.CONNECTED} if state.export_enabled else set()
    expected = connection.policy.expected or HEALTHY_BY_DEFAULT - connected
    words = ", ".join(sorted(expected))
    return Verdict.UNHEALTHY, f"unhealthy: {state.status} is not what is expected ({words})"


def _describe(observation: Observation) -> str:
    kind = "not found" if isinstance(observation, NotFound) else type(observation).__name__.lower()
    facts = {k: v for k, v in msgspec.structs.asdict(observation).items() if v not in (None, "", (), False)}
    return f"{kind}  " + "  ".join(f"{key}={value}" for key, value in facts.items())


def _show(seen: Exchange) -> str:
    lines = [f"\n> {seen.method} {seen.url}"]
    for name, value in seen.headers.items():
        lines.append(f"> {name}: {'[REDACTED]' if name.lower() in _SECRET_HEADERS else value}")
    millis = round(seen.seconds * 1000)
    if isinstance(seen.answer, Answer):
        lines.append(f"< {seen.answer.http_status} in {millis} ms")
        if seen.answer.request_id:
            lines.append(f"< x-wix-request-id: {seen.answer.request_id}")
        lines.append(_show_body(seen.answer.body, of_token=seen.url.endswith(TOKEN_PATH)))
    else:
        lines.append(f"< no answer after {millis} ms: {seen.answer.reason}: {seen.answer.detail}")
    return "\n".join(lines) + "\n"


def _show_body(body: bytes, *, of_token: bool) -> str:
    try:
        return json.dumps(_blot(json.loads(body)), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        if of_token:  # which we have not learnt, and so could not blot out
            return f"{len(body)} bytes that are no JSON"
        text = body[:_TEXT_SHOWN].decode(errors="replace")
        return f"{len(body)} bytes that are no JSON, beginning: {text!r}"


def _blot(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "[REDACTED]" if _is_secret(key) else _blot(item) for key, item in value.items()}
    return [_blot(item) for item in value] if isinstance(value, list) else value


def _is_secret(key: str) -> bool:
    return any(word in key.lower() for word in _SECRET_WORDS)
