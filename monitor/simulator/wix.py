"""Wix's side of the talk: both URLs that the daemon uses, answered as Wix is known to.

The way of a request: who asks (gate) → is there room (quota) → what goes wrong (world) → the true answer.
A fault stands before the credentials, as a gateway would.
"""

import asyncio
import sys
from datetime import timedelta
from typing import Final
from urllib.parse import unquote

from aiohttp import web

from monitor.simulator.answers import envelope, page
from monitor.simulator.calls import Answer, Call, ConnectionCall, TokenCall
from monitor.simulator.faults import play, told, until_lost
from monitor.simulator.gate import Caller, Gate
from monitor.simulator.quota import Quota, retry_after
from monitor.simulator.record import Record, Request
from monitor.simulator.scenario import Fault, Scenario
from monitor.simulator.watch import Watch
from monitor.simulator.world import World

CONNECTIONS_PATH: Final = "/bookings/v2/external-calendars/connections/"
TOKEN_PATH: Final = "/oauth2/token"  # noqa: S105  a path


class Wix:
    """Answers requests out of a scenario, and keeps the record of it."""

    def __init__(self, scenario: Scenario, watch: Watch) -> None:
        self.world = World(scenario)
        self.gate = Gate(scenario)
        self.record = Record(scenario)
        self._scenario = scenario
        self._watch = watch
        self._quota = Quota()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; a path that Wix does not have gets a gateway's page."""
        call = await self._understand(request)
        if call is None:
            self.record.strays += 1
            return page(404)
        try:
            return await self._serve(request, call)
        except ConnectionError:  # the client went while we wrote; aiohttp ends this request
            await until_lost()
            raise

    async def _understand(self, request: web.Request) -> Call | None:
        path = request.rel_url.raw_path  # undecoded: %2F is a part of the id, not the end of a segment
        segment = path.removeprefix(CONNECTIONS_PATH)
        if request.method == "GET" and segment not in ("", path) and "/" not in segment:
            caller = self.gate.caller(request.headers, self._watch.elapsed())
            return ConnectionCall(caller, unquote(segment), self.world, self._scenario.print_undefined)
        if request.method == "POST" and path == TOKEN_PATH:
            caller = self.gate.client(request.content_type, await request.read())
            return TokenCall(caller, self.gate)
        return None

    async def _serve(self, request: web.Request, call: Call) -> web.StreamResponse:
        trusted = call.caller.refusal is None
        with self.record.under_way(
            call.target, _address(request), self._watch.elapsed, trusted=trusted
        ) as kept:
            over_limit = self._over_limit(call.caller, kept.arrived)
            fault = self.world.fault(call.target, kept.arrived)
            await self._delay(fault)
            if over_limit is not None:
                return await self._send(request, kept, Answer(over_limit))
            if fault is None or fault.kind == "latency":
                return await self._send(request, kept, call.answer(self._watch.elapsed()))
            return await self._send(request, kept, await self._misbehave(request, call, fault))

    async def _delay(self, fault: Fault | None) -> None:
        delay = self._scenario.latency + (fault.latency if fault is not None else timedelta())
        if delay:
            await asyncio.sleep(delay.total_seconds())

    async def _send(self, request: web.Request, kept: Request, answer: Answer) -> web.StreamResponse:
        await answer.response.prepare(request)
        await answer.response.write_eof()
        self.record.answered(kept, answer.response.status, answer.shown, self._watch.elapsed())
        return answer.response

    async def _misbehave(self, request: web.Request, call: Call, fault: Fault) -> Answer:
        self.record.misbehaved(call.target, fault.kind)
        now = self._watch.elapsed()
        response = await play(request, fault, call.document(now))
        return Answer(response, told(fault, call.shown(now)))

    def _over_limit(self, caller: Caller, elapsed: timedelta) -> web.Response | None:
        if caller.site is None:
            return None
        wait = self._quota.wait(caller.site, elapsed)
        if wait is None:
            return None
        refusal = envelope(429)
        refusal.headers.update(retry_after(caller.site, wait, self._watch.now()))
        return refusal


def _address(request: web.Request) -> str:
    """The address of ours that a request came to, as it stands in a URL."""
    name = None if request.transport is None else request.transport.get_extra_info("sockname")
    return sys.intern(in_url(*name[:2])) if name else ""  # one text for all the requests that are kept


def in_url(host: str, port: int) -> str:
    """An address as it stands in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
