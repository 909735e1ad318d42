"""What the tests of this room say to the simulator and hear from it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

CONNECTIONS = "/bookings/v2/external-calendars/connections/"
KEY = {"Authorization": "canary-key-north", "wix-site-id": "site-north"}
EMPTY_ENVELOPE = {"message": "", "details": {}}


class HandClock:
    """Monotonic seconds, moved by the test."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


class Reply(NamedTuple):
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    json: Any


Ask = Callable[..., Awaitable[Reply]]
OpenRaw = Callable[..., Awaitable[asyncio.StreamReader]]


def json_of(body: bytes) -> Any:
    """The body as JSON, None where it is none."""
    try:
        return json.loads(body)
    except ValueError:
        return None


def code_of(body: Any) -> str:
    """The code of Wix's error envelope."""
    return str(body["details"]["applicationError"]["code"])
