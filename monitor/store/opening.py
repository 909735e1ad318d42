"""One door to all engines."""

from monitor.clock import Clock
from monitor.config import StoreSettings
from monitor.store.face import Opened
from monitor.store.sqlite.threaded import open_sqlite


async def open_store(settings: StoreSettings, clock: Clock) -> Opened:
    """Open the store that is configured, make it or bring it up to date. Raises CannotStartError."""
    return await open_sqlite(settings.path, clock)
