"""State and the history made from it; see README.md for what is promised."""

from monitor.store.face import Booking, Key, Opened, Store
from monitor.store.opening import open_store
from monitor.store.rows import Announcement

__all__ = ["Announcement", "Booking", "Key", "Opened", "Store", "open_store"]
