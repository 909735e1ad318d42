"""State and the history made from it; see README.md for what is promised."""

from monitor.store.face import Booking, Key, Opened, Store
from monitor.store.opening import engine_of, open_store, reading
from monitor.store.rows import Announcement

__all__ = ["Announcement", "Booking", "Key", "Opened", "Store", "engine_of", "open_store", "reading"]
