"""The stand-in as a server: started, stopped and steered from outside."""

import asyncio
import os
import secrets
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Literal, Self

from aiohttp import web

from monitor.errors import CannotStartError
from monitor.simulator.by_hand import PREFIX, Desk
from monitor.simulator.record import Record
from monitor.simulator.scenario import Endpoint, Fault, FaultWindow, Scenario
from monitor.simulator.watch import Watch
from monitor.simulator.wix import Wix, in_url
from monitor.simulator.world import Shown

_PATIENCE: Final = 1.0  # seconds a stop waits for what it could not cut off; nothing is known to need it


class Simulator:
    """Stands in for Wix on a real socket; `clock` (monotonic seconds) moves the scenario along.

    Delays and pauses on the wire take real time, whatever the clock. The scenario begins at the first
    start; a simulator that was stopped may be started again and goes on with all it knows.
    """

    def __init__(self, scenario: Scenario, clock: Callable[[], float] = time.monotonic) -> None:
        self.base_url = ""
        self._watch = Watch(clock)
        self._wix = Wix(scenario, self._watch)
        self._desk = Desk(self._wix, self._watch)
        self._runner: web.AppRunner | None = None
        self._under_way: set[asyncio.Transport] = set()

    @property
    def record(self) -> Record:
        """What was asked and answered so far."""
        return self._wix.record

    @property
    def began(self) -> datetime | None:
        """When the scenario began, in UTC: what the record's moments count from."""
        return self._watch.began

    async def start(
        self, host: str = "127.0.0.1", port: int = 0, ssl_context: ssl.SSLContext | None = None
    ) -> str:
        """Listen, on a free port unless one is given; the base URL. Raises CannotStartError.

        Started again, it listens there too; `base_url` stays the first one.
        """
        runner = self._runner or await self._new_runner()
        try:
            await web.TCPSite(runner, host, port, ssl_context=ssl_context).start()
        except OSError as error:
            if self._runner is None:
                await runner.cleanup()
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise CannotStartError(f"cannot listen on {host}:{port}: {why}") from error
        self._watch.begin()
        scheme = "http" if ssl_context is None else "https"
        base_url = f"{scheme}://{in_url(host, runner.addresses[-1][1])}"
        if self._runner is None:
            self._runner, self.base_url = runner, base_url
        return base_url

    async def stop(self) -> None:
        """Stop listening and cut off what is under way; a second stop does nothing."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        if self._runner is None:
            await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def set_status(
        self, connection_id: str, status: str | None, reason: str | None = None, *, site: str | None = None
    ) -> None:
        """Show this from now on, whatever the script says; raises KeyError where there is no such id."""
        if not self._wix.world.set_shown(connection_id, Shown(status, reason), site):
            raise KeyError(connection_id)

    def follow_script(self, connection_id: str, *, site: str | None = None) -> None:
        """Undo set_status; raises KeyError where there is no such id."""
        if not self._wix.world.set_shown(connection_id, None, site):
            raise KeyError(connection_id)

    def set_fault(
        self,
        fault: Fault | str | Mapping[str, Any] | None,
        connections: Iterable[str] | None = None,
        *,
        sites: Iterable[str] | None = None,
        endpoint: Endpoint | Literal["any"] | None = None,
    ) -> None:
        """Meet requests with this fault from now on, written as in the file; all requests by default.

        None ends what was set for exactly these connections and sites, or everything where none is named.
        The fault set last goes first. Raises pydantic's ValidationError where there is no such fault.
        """
        whose = {"connections": tuple(connections or ()), "sites": tuple(sites or ())}
        if fault is None:
            self._wix.world.clear_faults(**whose)
        else:
            window = FaultWindow.model_validate({"fault": fault, "endpoint": endpoint, **whose})
            self._wix.world.set_fault(window)

    def revoke_tokens(self, site: str | None = None) -> int:
        """End the access tokens of a site, or all of them; how many."""
        return self._wix.gate.revoke(site)

    async def _new_runner(self) -> web.AppRunner:
        runner = web.AppRunner(
            self._application(), handler_cancellation=True, access_log=None, shutdown_timeout=_PATIENCE
        )
        await runner.setup()
        return runner

    def _application(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        app.on_response_prepare.append(self._sign)
        app.on_shutdown.append(self._cut_off)
        return app

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        if transport is None:
            raise asyncio.CancelledError  # the client went before we looked at its request
        self._under_way.add(transport)  # held, so that a stop can cut it off
        try:
            room = self._desk if request.rel_url.raw_path.startswith(PREFIX) else self._wix
            return await room.answer(request)
        finally:
            self._under_way.discard(transport)

    async def _sign(self, _: web.Request, response: web.StreamResponse) -> None:
        number = f"{secrets.randbelow(10**18):018}"
        response.headers["x-wix-request-id"] = f"{int(self._watch.now().timestamp())}.{number}"

    async def _cut_off(self, _: web.Application) -> None:
        for transport in self._under_way:
            transport.abort()


async def run(
    scenario: Scenario, addresses: Sequence[tuple[str, int]], announce: Callable[[str], None]
) -> None:
    """Serve until cancelled; `announce` is told each base URL as it listens. Raises CannotStartError."""
    simulator = Simulator(scenario)
    try:
        for host, port in addresses:
            announce(await simulator.start(host, port))
        await asyncio.Event().wait()
    finally:
        await simulator.stop()
