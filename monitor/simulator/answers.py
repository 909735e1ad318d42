"""The documented shapes, composed: a connection, a token, and each kind of refusal.

Sources: "Get Connection" of Wix External Calendar V2 for the connection; "About Errors" of the Wix API
documentation for the envelope `{"message": …, "details": {…}}`, whose 5xx and 403 are seen empty;
RFC 6749, 5.2, and "Create Access Token" for the token endpoint.
"""

import json
from collections.abc import Mapping
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from aiohttp import web

from monitor.simulator.scenario import Connection
from monitor.simulator.world import Shown

CANARY_EMAIL: Final = "canary-email@example.invalid"
"""The `externalAccountEmail` of every connection: personal data that must turn up nowhere else."""

Document = Mapping[str, Any]

_GOOGLE: Final = "6c533722-f1f9-4847-95c7-d4c4922ae9b0"
_PROVIDERS: Final = {
    "GOOGLE": _GOOGLE,
    "I_CAL": "9f084ae8-b3a6-4eb6-a29d-bc682c04b5fc",
    "MICROSOFT": "ae0d26b4-7e04-4735-a15e-1b1acaba2f00",
}
_GENERIC_CODES: Final = {  # none for a 403 or a 5xx: Wix leaves those empty on purpose
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    429: "RESOURCE_EXHAUSTED",
}
_ODD_CALENDARS: Final = frozenset({"I_CAL"})  # Wix's sample of an Apple calendar lists calendars one by one


def connection_document(connection: Connection, shown: Shown, *, print_undefined: bool) -> dict[str, Any]:
    """The body of a 200: the whole documented object. An empty word leaves its field out."""
    unsaid = "UNDEFINED" if print_undefined else ""
    words = {
        "calendarType": connection.calendar_type,
        "status": shown.status,
        "errorReason": unsaid if shown.reason is None else shown.reason,
    }
    fields = {
        "id": connection.id,
        "providerId": _PROVIDERS.get(connection.calendar_type or "", _GOOGLE),
        **{field: word for field, word in words.items() if word != ""},
        "scheduleId": _guid("schedule", connection.id),
        "userId": _guid("user", connection.id),
        "appId": _guid("app", connection.id),
        "externalAccountEmail": CANARY_EMAIL,
    }
    sync_config = _sync_config(connection)
    return {"connection": fields | ({"syncConfig": sync_config} if sync_config else {})}


def token_document(token: str, lifetime: float) -> dict[str, Any]:
    """The body of a granted token; `lifetime` in seconds."""
    whole = int(lifetime) if lifetime == int(lifetime) else lifetime
    return {"access_token": token, "token_type": "Bearer", "expires_in": whole}


def as_json(document: Document, status: int = 200) -> web.Response:
    """Answer with a JSON body."""
    return web.Response(status=status, text=json.dumps(document), content_type="application/json")


def envelope(status: int, code: str | None = None, message: str = "") -> web.Response:
    """Wix's error envelope, with the status's generic code unless another is given."""
    code = _GENERIC_CODES.get(status, "") if code is None else code
    details = {"applicationError": {"code": code, "description": message, "data": {}}} if code else {}
    return as_json({"message": message, "details": details}, status)


def page(status: int) -> web.Response:
    """A gateway's page, as no API would answer."""
    text = f"<!DOCTYPE html><html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>"
    return web.Response(status=status, text=text, content_type="text/html")


def token_refusal(status: int, error: str, description: str, shape: str = "error") -> web.Response:
    """The token endpoint's refusal, in the IETF's shape or in the other one that Wix is seen to use."""
    if shape == "message":
        return as_json({"message": error}, status)
    return as_json({"error": error, "error_description": description}, status)


def _guid(kind: str, connection_id: str) -> str:
    return str(uuid5(NAMESPACE_URL, f"{kind}:{connection_id}"))


def _sync_config(connection: Connection) -> dict[str, Any]:
    halves: dict[str, Any] = {}
    if connection.import_enabled is not None:
        listed = {"calendars": {"calendars": [{"id": "primary", "name": "Primary"}]}}
        source = listed if connection.calendar_type in _ODD_CALENDARS else {"primaryCalendar": {}}
        halves["listEventFromCalendars"] = source | {"enabled": connection.import_enabled}
    if connection.export_enabled is not None:
        halves["syncToCalendar"] = {"dedicatedCalendar": {}, "enabled": connection.export_enabled}
    return halves
