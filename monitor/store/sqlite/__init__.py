"""A store in one SQLite file, for one process; see `monitor.store.sqlite.file` for what is promised."""
