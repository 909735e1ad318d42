"""The simulator's own URLs, under `/_simulator/`: to look at what goes on, and to change it by hand.

They ask for no credential: the simulator belongs on a loopback address.
"""

from typing import Any, Final
from urllib.parse import unquote

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from monitor.simulator.answers import as_json
from monitor.simulator.scenario import FaultWindow
from monitor.simulator.watch import Watch
from monitor.simulator.wix import Wix
from monitor.simulator.world import Shown, Target

PREFIX: Final = "/_simulator/"

_CONNECTIONS: Final = f"{PREFIX}connections/"


class _Flip(BaseModel):
    model_config = ConfigDict(extra="forbid")

    status: str | None
    reason: str | None = None


class Desk:
    """Answers the URLs under PREFIX."""

    def __init__(self, wix: Wix, watch: Watch) -> None:
        self._wix = wix
        self._watch = watch

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one request; a body that cannot be read is a 400 that says why."""
        path = request.rel_url.raw_path
        try:
            if path.startswith(_CONNECTIONS):
                return await self._connection(request, unquote(path.removeprefix(_CONNECTIONS)))
            match request.method, path.removeprefix(PREFIX):
                case "GET", "record":
                    return as_json(self._record(moments="moments" in request.query))
                case "GET", "connections":
                    return as_json({"connections": self._connections()})
                case "POST" | "DELETE", "faults":
                    return await self._faults(request)
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            return as_json({"problems": problems}, 400)
        return as_json({"problems": [f"no {request.method} of {path} here"]}, 404)

    def _record(self, *, moments: bool) -> dict[str, Any]:
        began = self._watch.began
        account = self._wix.record.as_json(moments=moments)
        return {"began": None if began is None else began.isoformat(), **account}

    async def _connection(self, request: web.Request, connection_id: str) -> web.Response:
        shown = None
        if request.method == "POST":
            flip = _Flip.model_validate_json(await request.read())
            shown = Shown(flip.status, flip.reason)
        elif request.method != "DELETE":
            return as_json({"problems": ["POST a status, or DELETE to follow the script again"]}, 405)
        if not self._wix.world.set_shown(connection_id, shown, request.query.get("site")):
            return as_json({"problems": [f"no connection {connection_id!r}"]}, 404)
        return as_json({"connections": [one for one in self._connections() if one["id"] == connection_id]})

    async def _faults(self, request: web.Request) -> web.Response:
        if request.method == "DELETE":
            self._wix.world.clear_faults()
        else:
            self._wix.world.set_fault(FaultWindow.model_validate_json(await request.read()))
        return as_json({"connections": self._connections()})

    def _connections(self) -> list[dict[str, Any]]:
        now, world = self._watch.elapsed(), self._wix.world
        listed = []
        for site, connection in world.connections():
            shown = world.shown(site, connection, now)
            fault = world.fault(Target("connection", site, connection.id), now)
            listed.append(
                {
                    "site": site,
                    "id": connection.id,
                    "status": shown.status,
                    "reason": shown.reason,
                    "by_hand": world.is_by_hand(site, connection.id),
                    "fault": fault.kind if fault is not None else None,
                }
            )
        return listed
