"""The tables in PostgreSQL, one migration a version; the table `migration` says which were made.

Times are whole microseconds since 1970 in UTC, on the clock of the node that wrote them; spans are
microseconds. Where the engine itself compares times, as for leases, they are its own.

A migration adds columns with a default and tables, and takes nothing away: nodes of the version before go on
beside it until they are replaced.
"""

from typing import Final

from monitor.core.effects import Transition
from monitor.store.rows import FLAGS, STATE_COLUMNS, WORDS

SCHEMA: Final = "wix_calendar_monitor"

MIGRATIONS: Final = (
    """
    CREATE TABLE connection (
        site text NOT NULL,
        id text NOT NULL,
        name text NOT NULL,
        kept_at bigint NOT NULL,            -- when a running monitor last had it in its configuration
        healthy boolean NOT NULL,
        watched_since bigint NOT NULL,
        status text,
        reason text,
        status_since bigint,
        calendar_type text,
        import_enabled boolean,
        export_enabled boolean,
        last_poll_at bigint,
        last_success_at bigint,
        last_poll_succeeded boolean,
        not_found_in_a_row bigint NOT NULL,
        failures_in_a_row bigint NOT NULL,
        failure_row text NOT NULL,
        transitions bigint NOT NULL,
        unhealthy_for bigint NOT NULL,
        writer uuid NOT NULL,               -- the incarnation that wrote the row, and which of its commits
        turn bigint NOT NULL,
        PRIMARY KEY (site, id)
    ) WITH (fillfactor = 80);               -- its rows are written anew all day: room for that on their page

    CREATE TABLE transition (
        n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        transition_id text NOT NULL UNIQUE,
        site text NOT NULL,
        connection text NOT NULL,
        connection_id text NOT NULL,
        calendar_type text NOT NULL,
        from_status text,
        from_reason text,
        to_status text NOT NULL,
        to_reason text,
        healthy boolean NOT NULL,
        from_since bigint,
        duration bigint,
        observed_at bigint NOT NULL,
        observed_late boolean NOT NULL,
        not_before bigint,
        announced boolean NOT NULL DEFAULT false,
        node text,
        epoch bigint
    );
    CREATE INDEX transition_by_connection ON transition (site, connection_id, n);
    CREATE INDEX transition_by_time ON transition (observed_at, n);
    CREATE INDEX transition_untold ON transition (n) WHERE NOT announced;

    CREATE TABLE node (
        name text PRIMARY KEY,
        incarnation uuid NOT NULL UNIQUE,
        lock_key bigint NOT NULL,
        expires_at timestamptz NOT NULL,
        joined_at timestamptz NOT NULL,
        version text NOT NULL,
        urls text[] NOT NULL,
        offers_version bigint NOT NULL DEFAULT 0,
        offers jsonb NOT NULL DEFAULT '[]'
    );

    CREATE TABLE lease (
        site text,
        part int,
        owner uuid NULL,
        epoch bigint NOT NULL DEFAULT 0,    -- rises with every claim; another one's writes are refused
        since timestamptz,
        PRIMARY KEY (site, part)
    );
    """,
)

VERSION: Final = len(MIGRATIONS)

TRANSITION_COLUMNS: Final = Transition.__struct_fields__


def array_of(column: str) -> str:
    """The type of an array of a column's values."""
    if column in FLAGS:
        return "boolean[]"
    texts = {"site", "id", "name", "connection", "connection_id", "transition_id", "node"}
    return "text[]" if column in texts or column in WORDS else "bigint[]"


def columns_of(prefix: str = "") -> str:
    """The columns of a state, for a SELECT."""
    return ", ".join(prefix + column for column in STATE_COLUMNS)
