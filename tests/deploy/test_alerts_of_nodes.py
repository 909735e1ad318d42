"""What the operator is told of nodes on one PostgreSQL that fall: all of it real, over the shipped files.

All that the files wait for is shorter by one factor. It is smaller than elsewhere: a dead node's sites have
another within a second, and not sooner.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import Final

import pytest

from monitor.demo.children import free_address
from monitor.demo.programs import Programs
from monitor.simulator import Connection, Scenario, Simulator
from tests.daemon import Daemon, running
from tests.deploy.stack import Stack, heading, installed, newest, stack
from tests.fleet import oauth_site, write_config
from tests.postgresql import PASSWORD
from tests.rig.database import Database, database

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

FACTOR: Final = 15
SITES: Final = 6
ANNA: Final = "c0"
FLEET: Final = Scenario(
    sites=tuple(oauth_site(f"s{number}", [Connection(id=f"c{number}")]) for number in range(SITES))
)
REVOKED: Final = "WixCalendarTokenRevoked"


@dataclass
class Nodes:
    """Two nodes by their addresses, what they share, and the way from them to the operator."""

    simulator: Simulator
    database: Database
    alive: dict[str, Daemon]
    stack: Stack

    async def who_shows(self, connection: str) -> str:
        """The address of the node that does."""
        query = f'wix_calendar_connection_stale{{connection="{connection}"}} and on (instance) up == 1'
        (found,) = await self.stack.prometheus.query(query)
        return found["instance"]


@asynccontextmanager
async def two_nodes(programs: Programs, folder: Path) -> AsyncIterator[Nodes]:
    addresses = free_address(), free_address()
    async with Simulator(FLEET) as simulator, database() as shared, AsyncExitStack() as daemons:
        word = folder / "password"
        word.touch(mode=0o600)
        word.write_text(PASSWORD)
        store = {"url": shared.url().replace(f":{PASSWORD}@", "@"), "password_file": str(word)}
        config = write_config(folder, simulator.base_url, FLEET, store=store)
        alive = {}
        for name, address in zip(("north", "south"), addresses, strict=True):  # of 6 sites each has some
            flags = (f"--web.listen-address={address}", f"--node.name={name}")
            alive[address] = await daemons.enter_async_context(running(config, *flags))
            await alive[address].url()
        async with stack(programs, folder, addresses[0], FACTOR, *addresses[1:]) as told:
            await told.sees("count(wix_calendar_monitor_nodes == 2 and wix_calendar_monitor_sites > 0) == 2")
            await told.sees(f"count(wix_calendar_connection_healthy == 1) == {SITES}")
            yield Nodes(simulator, shared, alive, told)


async def test_a_node_that_is_killed_is_told_and_what_fires_there_goes_on_with_the_one_that_took_over(
    tmp_path: Path,
) -> None:
    async with two_nodes(installed(), tmp_path) as its:
        its.simulator.set_status(ANNA, "ERROR", "TOKEN_REVOKED")
        began = await its.stack.mail.told("firing", REVOKED)
        killed = await its.who_shows(ANNA)
        await its.alive.pop(killed).stop(SIGKILL)
        gone = await its.stack.mail.told("firing", "WixCalendarNodeAbsent")
        assert [each["labels"]["instance"] for each in gone["alerts"]] == [killed]
        (left,) = its.alive
        assert await its.who_shows(ANNA) == left
        # One and the same: it has been so since then, without a break.
        (unbroken,) = await its.stack.prometheus.query(
            f'changes(ALERTS_FOR_STATE{{alertname="{REVOKED}"}}[5m]) == 0'
        )
        assert unbroken["connection"] == ANNA
        assert its.stack.mail.messages == [began, gone]
        its.simulator.follow_script(ANNA)
        ended = await its.stack.mail.told("resolved", REVOKED)
        assert its.stack.mail.messages == [began, gone, ended]


async def test_where_no_node_reaches_the_database_that_alone_is_told_and_what_fires_goes_on(
    tmp_path: Path,
) -> None:
    async with two_nodes(newest(), tmp_path) as its:
        its.simulator.set_status(ANNA, "ERROR", "TOKEN_REVOKED")
        began = await its.stack.mail.told("firing", REVOKED)
        await its.database.stop()
        nobody = await its.stack.mail.told("firing", "WixCalendarNobodyPolls")
        await its.stack.sees(
            "count(wix_calendar_connection_stale == 1) == count(wix_calendar_connection_stale)"
        )
        await its.stack.mail.beats(4)
        assert its.stack.mail.messages == [began, nobody]
        await its.database.start()
        over = await its.stack.mail.told("resolved", "WixCalendarNobodyPolls", seconds=90)
        assert [heading(each) for each in its.stack.mail.messages] == [
            heading(each) for each in (began, nobody, over)
        ]
