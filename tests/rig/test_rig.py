"""The parts of the rig do what the proof takes for granted."""

import asyncio
from pathlib import Path
from typing import Final

import pytest

from tests.judge.evidence import Claim
from tests.judge.verdict import judge
from tests.rig.apart import Apart, apart
from tests.rig.campaign import Plan, trial
from tests.rig.database import Database, database
from tests.rig.history import claims, watch_leases

pytestmark = pytest.mark.real

TABLES: Final = """
CREATE SCHEMA wix_calendar_monitor;
CREATE TABLE wix_calendar_monitor.node (name text, incarnation uuid);
CREATE TABLE wix_calendar_monitor.lease (site text, part int, owner uuid, epoch bigint, since timestamptz);
INSERT INTO wix_calendar_monitor.node VALUES ('a', '0aaaaaaa-aaaa-4aaa-aaaa-aaaaaaaaaaaa');
INSERT INTO wix_calendar_monitor.lease
    VALUES ('north', 0, '0aaaaaaa-aaaa-4aaa-aaaa-aaaaaaaaaaaa', 1, to_timestamp(7)),
        ('south', 0, NULL, 0, to_timestamp(7));
"""
GIVE_UP: Final = "UPDATE wix_calendar_monitor.lease SET owner = NULL WHERE site = 'north'"
TAKE: Final = (
    "UPDATE wix_calendar_monitor.lease SET epoch = epoch + 1, since = now(), "
    "owner = (SELECT incarnation FROM wix_calendar_monitor.node)"
)


async def reach(place: Apart, its: Database) -> int:
    """Reach for the database from in there; 0, or 124 where a second passes without a word."""
    process = await asyncio.create_subprocess_exec(
        *place.started_by,
        *("timeout", "1", "bash", "-c", f"exec 3<>/dev/tcp/{place.database}/{its.port}"),
        stderr=asyncio.subprocess.DEVNULL,
    )
    return await process.wait()


async def test_a_cut_link_loses_all_in_silence_and_a_healed_one_carries_again() -> None:
    with apart() as place:
        async with database([place.database]) as its:
            assert await reach(place, its) == 0
            place.cut()
            assert await reach(place, its) == 124
            place.heal()
            assert await reach(place, its) == 0


async def test_a_database_that_was_stopped_or_has_crashed_goes_on_with_what_it_had() -> None:
    async with database() as its:
        await its.execute("CREATE TABLE kept AS SELECT 1 AS n")
        for end in (its.stop, its.kill):
            await end()
            await its.start()
            assert await its.query("SELECT n FROM kept") == [{"n": 1}]


async def test_the_history_of_leases_begins_with_what_stands_and_has_each_change_of_an_owner() -> None:
    async with database() as its:
        await its.execute(TABLES)
        await watch_leases(its)
        await its.execute(f"BEGIN; {GIVE_UP}; SELECT pg_sleep(0.2); COMMIT")
        await its.execute("UPDATE wix_calendar_monitor.lease SET since = now()")
        await its.execute(f"BEGIN; {TAKE}; ROLLBACK")
        await its.execute(TAKE)
        found = await claims(its)
    assert found[:2] == [Claim("north", "a", 1, 7.0, 7.0), Claim("south", None, 0, 7.0, 7.0)]
    assert [(claim.site, claim.node, claim.epoch) for claim in found[2:]] == [
        ("north", None, 1),
        ("south", "a", 1),
        ("north", "a", 2),
    ]
    assert 0.2 <= found[2].committed - found[2].at < 5


@pytest.mark.alone
async def test_one_daemon_with_a_file_of_its_own_is_acquitted(tmp_path: Path) -> None:
    plan = Plan(
        nodes=1, sites=4, database=False, seed=20261123, kills=2, naps=1, ttl=2.0, pause=4.0, gone=2.0
    )
    verdict = judge(await trial(tmp_path, plan), plan.terms)
    assert verdict.is_clean, str(verdict)
    assert verdict.figures["of them surely heard"] > 10
