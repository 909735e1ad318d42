"""State and the history made from it, in one SQLite file; see `monitor.store.sqlite` for what is promised."""

from monitor.store.rows import Announcement
from monitor.store.sqlite import Booking, Key, Opened, Store, open_store

__all__ = ["Announcement", "Booking", "Key", "Opened", "Store", "open_store"]
