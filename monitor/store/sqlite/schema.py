"""The tables, one migration a version; `PRAGMA user_version` of the file says how many it has had.

Times are whole microseconds since 1970 in UTC, on the machine's clock; spans are microseconds.
A transition without `from_status` is the first sight of a connection.
"""

from typing import Final

MIGRATIONS: Final = (
    """
    CREATE TABLE connection (
        site TEXT NOT NULL,
        id TEXT NOT NULL,
        name TEXT NOT NULL,
        kept_at INTEGER NOT NULL,           -- when a running monitor last had it in its configuration
        healthy INTEGER NOT NULL,
        watched_since INTEGER NOT NULL,
        status TEXT,
        reason TEXT,
        status_since INTEGER,
        calendar_type TEXT,
        import_enabled INTEGER,
        export_enabled INTEGER,
        last_poll_at INTEGER,
        last_success_at INTEGER,
        last_poll_succeeded INTEGER,
        not_found_in_a_row INTEGER NOT NULL,
        failures_in_a_row INTEGER NOT NULL,
        failure_row TEXT NOT NULL,
        transitions INTEGER NOT NULL,
        unhealthy_for INTEGER NOT NULL,
        PRIMARY KEY (site, id)
    ) WITHOUT ROWID;

    CREATE TABLE transition (
        n INTEGER PRIMARY KEY,
        transition_id TEXT NOT NULL UNIQUE,
        site TEXT NOT NULL,
        connection TEXT NOT NULL,
        connection_id TEXT NOT NULL,
        calendar_type TEXT NOT NULL,
        from_status TEXT,
        from_reason TEXT,
        to_status TEXT NOT NULL,
        to_reason TEXT,
        healthy INTEGER NOT NULL,
        from_since INTEGER,
        duration INTEGER,
        observed_at INTEGER NOT NULL,
        observed_late INTEGER NOT NULL,
        not_before INTEGER,
        announced INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX transition_by_connection ON transition (site, connection_id, n);
    CREATE INDEX transition_by_time ON transition (observed_at);
    CREATE INDEX transition_untold ON transition (n) WHERE announced = 0;
    """,
)

APPLICATION_ID: Final = 0x57434D31
"""Marks a file as ours: `WCM1` in the header field that SQLite keeps for it."""

VERSION: Final = len(MIGRATIONS)
