"""The last polls that failed, a few for each connection: enough to ask Wix's support by their request ids.

They live in the process only. Of all connections the ones that failed last are remembered, about 10 MB.
"""

from collections import OrderedDict
from datetime import datetime
from typing import Final

import msgspec

from monitor.core.model import FailureReason, PollFailed

EACH: Final = 5
"""Failures of one connection that are remembered."""

CONNECTIONS: Final = 10_000
"""Connections of which failures are remembered."""

_LONGEST_ID: Final = 100


class FailedPoll(msgspec.Struct, frozen=True, gc=False):
    """A poll that failed: when (steady), why, and what Wix's support asks for."""

    at: datetime
    reason: FailureReason
    http_status: int | None
    request_id: str


class Failures:
    """Remembers them."""

    def __init__(self, connections: int = CONNECTIONS) -> None:
        self._limit = connections
        self._kept: OrderedDict[tuple[str, str], tuple[FailedPoll, ...]] = OrderedDict()

    def note(self, site: str, connection_id: str, failed: PollFailed, at: datetime) -> None:
        """Remember one."""
        key = (site, connection_id)
        poll = FailedPoll(at, failed.reason, failed.http_status, failed.request_id[:_LONGEST_ID])
        self._kept[key] = (poll, *self._kept.pop(key, ())[: EACH - 1])
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)

    def of(self, site: str, connection_id: str) -> tuple[FailedPoll, ...]:
        """Those of a connection, newest first."""
        return self._kept.get((site, connection_id), ())
