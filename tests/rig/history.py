"""What the database knows of a trial: who owned which site when, by a trigger of ours, and what was kept."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tests.judge.evidence import Calendar, Claim, Row, Shown
from tests.rig.database import Database

_WATCH: Final = """
BEGIN;
LOCK wix_calendar_monitor.lease IN SHARE ROW EXCLUSIVE MODE;
CREATE TABLE public.lease_history (
    n bigserial, site text, part int, owner uuid, node text, epoch bigint,
    at timestamptz, committed timestamptz
);
CREATE FUNCTION public.watch_lease() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO public.lease_history (site, part, epoch, at)
            VALUES (OLD.site, OLD.part, OLD.epoch, clock_timestamp());
    ELSIF TG_OP = 'INSERT' OR NEW.owner IS DISTINCT FROM OLD.owner OR NEW.epoch <> OLD.epoch THEN
        INSERT INTO public.lease_history (site, part, owner, node, epoch, at)
            SELECT NEW.site, NEW.part, NEW.owner,
                (SELECT name FROM wix_calendar_monitor.node WHERE incarnation = NEW.owner),
                NEW.epoch, clock_timestamp();
    END IF;
    RETURN NULL;
END $$;
INSERT INTO public.lease_history (site, part, owner, node, epoch, at, committed)
    SELECT site, part, owner, (SELECT name FROM wix_calendar_monitor.node WHERE incarnation = owner),
        epoch, coalesce(since, to_timestamp(0)), coalesce(since, to_timestamp(0))
    FROM wix_calendar_monitor.lease;
CREATE TRIGGER watch_lease AFTER INSERT OR UPDATE OR DELETE ON wix_calendar_monitor.lease
    FOR EACH ROW EXECUTE FUNCTION public.watch_lease();
COMMIT;
"""
_CLAIMS: Final = """
SELECT site, part, owner, node, epoch, extract(epoch FROM at)::float8 AS at,
    extract(epoch FROM coalesce(committed, pg_xact_commit_timestamp(xmin), at))::float8 AS committed
FROM public.lease_history ORDER BY at, n  -- a sequence made with wal_level = minimal goes back in a crash
"""
_ROWS: Final = """
SELECT n, transition_id, site, connection_id, from_status, from_reason, to_status, to_reason,
    observed_at, node, epoch
FROM wix_calendar_monitor.transition ORDER BY n
"""


async def watch_leases(database: Database) -> None:
    """From here on each change of an owner is kept, with what stands now."""
    await database.execute(_WATCH)


async def claims(database: Database) -> list[Claim]:
    """All changes of owners; of a node that is no longer known only that it is a stranger."""
    return [_claim(each) for each in await database.query(_CLAIMS)]


async def rows(database: Database) -> list[Row]:
    """All transitions that were kept."""
    return [
        row_of(each, node=str(each["node"]), epoch=int(each["epoch"])) for each in await database.query(_ROWS)
    ]


def row_of(found: dict[str, Any], node: str, epoch: int) -> Row:
    """A row of the table, as the judge reads it."""
    before: Shown | None = (found["from_status"], found["from_reason"])
    return Row(
        n=found["n"],
        transition_id=found["transition_id"],
        calendar=Calendar(found["site"], found["connection_id"]),
        before=before if found["from_status"] is not None else None,
        after=(found["to_status"], found["to_reason"]),
        observed_at=found["observed_at"] / 1_000_000,
        node=node,
        epoch=epoch,
    )


def seconds(moment: str) -> float:
    """A log's moment in seconds since 1970."""
    return datetime.fromisoformat(moment).timestamp()


def _claim(found: dict[str, Any]) -> Claim:
    node = None if found["owner"] is None else found["node"] or f"stranger {found['owner']}"
    return Claim(found["site"], node, found["epoch"], found["at"], found["committed"], found["part"])


def rows_of_file(path: Path, node: str) -> Iterator[Row]:
    """The same out of the file of one daemon that is alone."""
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        for found in db.execute("SELECT * FROM transition ORDER BY n"):
            yield row_of(dict(found), node, 0)
