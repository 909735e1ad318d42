"""Wix's limit of requests, as an option: so many in any rolling minute, for each site."""

from collections import deque
from datetime import datetime, timedelta
from email.utils import format_datetime
from math import ceil
from typing import Final

from monitor.simulator.scenario import Site

_WINDOW: Final = timedelta(minutes=1)


class Quota:
    """Counts what each site sent within the last minute; a request turned away is not counted."""

    def __init__(self) -> None:
        self._sent: dict[str, deque[timedelta]] = {}

    def wait(self, site: Site, elapsed: timedelta) -> timedelta | None:
        """Count one request; where it is over the limit, how long until there is room again."""
        if site.rate_limit_per_minute is None:
            return None
        sent = self._sent.setdefault(site.name, deque())
        while sent and elapsed - sent[0] >= _WINDOW:
            sent.popleft()
        if len(sent) >= site.rate_limit_per_minute:
            return sent[0] + _WINDOW - elapsed
        sent.append(elapsed)
        return None


def retry_after(site: Site, wait: timedelta, now: datetime) -> dict[str, str]:
    """The header that tells the wait in the site's form: whole seconds, a date, or nothing."""
    if site.retry_after == "none":
        return {}
    if site.retry_after == "seconds":
        return {"Retry-After": str(max(1, ceil(wait.total_seconds())))}
    whole = (now + wait).replace(microsecond=0) + timedelta(seconds=1)  # a date has no parts of a second
    return {"Retry-After": format_datetime(whole, usegmt=True)}
