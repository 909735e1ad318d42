"""What the operator is told: simulator, daemon, Prometheus, Alertmanager, webhook, over the shipped files.

All that the files wait for is shorter by one factor, and the polling interval with it: what comes first, and
what comes together, is as it is with the true ones.

Most of it is waiting. So all but the largest stage stand side by side, and stories of different sites are
played on one stage at the same time; each is a test.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import pytest_asyncio
import yaml

from monitor.demo.children import free_address
from monitor.demo.programs import Programs
from monitor.simulator import Connection, Scenario, Simulator
from tests.daemon import Daemon, running
from tests.deploy.stack import Inbox, Stack, heading, installed, newest, stack, until
from tests.fleet import oauth_site, write_config

TEAM: Final = "front-desk"
OTHER_TEAMS: Final = {"old-town": "evening", "riverside": "spa"}
LONG: Final = "2099-12-31T00:00:00Z"
REVOKED: Final = "WixCalendarTokenRevoked"
REFUSED: Final = "WixCalendarCredentialRefused"
ABSENT: Final = "WixCalendarMonitorAbsent"
UNREACHABLE: Final = "WixUnreachable"
SILENT: Final = "WixCalendarWatchdog|WixCalendar(Site)?Maintenance"


@dataclass
class Stage:
    """A fleet that is watched, and the way from it to the operator."""

    sites: Sequence[str]
    simulator: Simulator
    config: Path
    address: str
    daemons: AsyncExitStack
    daemon: Daemon
    stack: Stack
    curtain: asyncio.Barrier

    @property
    def mail(self) -> Inbox:
        return self.stack.mail

    def part(self, sites: Sequence[str], curtain: asyncio.Barrier) -> "Stage":
        """As if there were only those sites; the curtain is that of all stories that are played meanwhile."""
        stack = replace(self.stack, mail=self.mail.part(sites))
        return replace(self, sites=sites, stack=stack, curtain=curtain)

    async def known(self, name: str) -> list[dict[str, Any]]:
        """What Alertmanager knows by the name of an alert."""
        return [each for each in await self.stack.known(name) if each["labels"]["site"] in self.sites]

    def revoke(self, *connections: str) -> None:
        for each in connections:
            self.simulator.set_status(each, "ERROR", "TOKEN_REVOKED")

    def mend(self, *connections: str) -> None:
        for each in connections:
            self.simulator.follow_script(each)

    async def start(self) -> None:
        """Start the daemon where Prometheus looks for it."""
        self.daemon = await start(self.daemons, self.config, self.address)

    def maintain(self, connection: str, until: str | None) -> None:
        """Put a connection in maintenance, or take it out, and reload."""
        write_maintenance(self.config, connection, until)
        self.daemon.process.send_signal(signal.SIGHUP)

    async def calm(self) -> None:
        """Until nothing is wrong, here nor in stories beside, and what could yet be told would have been."""
        sites = "|".join(("", *self.sites))
        await self.stack.sees(f'absent(ALERTS{{alertname!~"{SILENT}", site=~"{sites}"}})', 60)
        with suppress(asyncio.BrokenBarrierError):  # another story failed, and says so itself
            await self.curtain.wait()
        await self.mail.beats(1)


async def start(daemons: AsyncExitStack, config: Path, address: str) -> Daemon:
    daemon = await daemons.enter_async_context(running(config, f"--web.listen-address={address}"))
    await daemon.url()
    return daemon


@asynccontextmanager
async def stage(
    programs: Programs, folder: Path, scenario: Scenario, interval: int, factor: float
) -> AsyncIterator[Stage]:
    """A fleet that is all well, polled every `interval` seconds, the shipped waits divided by the factor."""
    polling = {"interval": f"{interval}s", "unsettled_interval": f"{interval}s"}
    address = free_address()
    async with Simulator(scenario) as simulator, AsyncExitStack() as daemons:
        config = write_config(folder, simulator.base_url, scenario, polling=polling)
        give_to_teams(config)
        write_maintenance(config, "cleo", LONG)
        daemon = await start(daemons, config, address)
        async with stack(programs, folder, address, factor) as told:
            count = sum(len(site.connections) for site in scenario.sites)
            await told.sees(f"count(wix_calendar_connection_healthy == 1) == {count}")
            sites = [site.name for site in scenario.sites]
            yield Stage(sites, simulator, config, address, daemons, daemon, told, asyncio.Barrier(1))


def give_to_teams(config: Path) -> None:
    """Some sites have a team of their own.

    For 15 minutes Alertmanager may list an end again with the next message of its group (its issue 1755).
    """
    document = yaml.safe_load(config.read_text())
    for site in document["sites"]:
        site["team"] = OTHER_TEAMS.get(site["name"], TEAM)
    config.write_text(yaml.safe_dump(document))


def write_maintenance(config: Path, connection: str, until: str | None) -> None:
    """Write until when a connection is in maintenance; None: it is not."""
    document = yaml.safe_load(config.read_text())
    for each in (each for site in document["sites"] for each in site["connections"]):
        if each["id"] == connection:
            each.pop("maintenance_until", None)
            each.update({} if until is None else {"maintenance_until": until})
    config.write_text(yaml.safe_dump(document))


def sites(count: int, connections: int) -> Scenario:
    """A fleet of so many sites with so many connections each: `s0-c0` and so on."""
    return Scenario(
        sites=tuple(
            oauth_site(f"s{site}", [Connection(id=f"s{site}-c{number}") for number in range(connections)])
            for site in range(count)
        )
    )


def names(scenario: Scenario) -> list[str]:
    return [each.id for site in scenario.sites for each in site.connections]


# The site of many keeps what is unknown of one below what the objective's alerts are for.
TOWN: Final = Scenario(
    sites=(
        oauth_site("downtown", [Connection(id="anna"), Connection(id="ben")]),
        oauth_site("uptown", [Connection(id="cleo"), Connection(id="dora")]),
        oauth_site("harbour", [Connection(id="emil")]),
        oauth_site("riverside", [Connection(id="fay")]),
        oauth_site("old-town", [Connection(id=f"gus-{number}") for number in range(24)]),
    )
)
HUNDREDS: Final = sites(10, 30)
THOUSAND: Final = sites(10, 100)


# --- the stories ----------------------------------------------------------------------------------------


async def a_revoked_token_and_its_end_are_told_but_not_while_in_maintenance(town: Stage) -> None:
    town.revoke("anna", "cleo")
    began = await town.mail.told("firing", REVOKED)
    await town.stack.sees(f'ALERTS{{alertname="{REVOKED}", alertstate="firing", connection="cleo"}}')
    known = {each["labels"]["connection"]: each["status"] for each in await town.known(REVOKED)}
    town.mend("anna", "cleo")
    ended = await town.mail.told("resolved", REVOKED)
    await town.calm()
    assert town.mail.messages == [began, ended]
    [alert] = began["alerts"]
    assert alert["labels"] == {
        "alertname": REVOKED,
        "site": "downtown",
        "connection": "anna",
        "calendar_type": "GOOGLE",
        "team": TEAM,
        "severity": "warning",
    }
    assert f"through team {TEAM}" in alert["annotations"]["description"]
    assert [each["labels"] for each in ended["alerts"]] == [alert["labels"]]
    assert {name: status["state"] for name, status in known.items()} == {
        "anna": "active",
        "cleo": "suppressed",
    }
    assert len(known["cleo"]["inhibitedBy"]) == 1


async def a_refused_credential_is_one_alert_of_its_site(town: Stage) -> None:
    town.simulator.set_fault("refuse", sites=["harbour"])
    town.simulator.revoke_tokens("harbour")
    began = await town.mail.told("firing", REFUSED)
    town.simulator.set_fault(None)
    ended = await town.mail.told("resolved", REFUSED)
    await town.calm()
    assert town.mail.messages == [began, ended]
    assert [each["labels"] for each in began["alerts"]] == [
        {"alertname": REFUSED, "site": "harbour", "severity": "critical"}
    ]


async def a_killed_monitor_is_told_and_what_it_had_said_is_neither_over_nor_told_again(
    town: Stage,
) -> None:
    town.revoke("gus-0")
    revoked = await town.mail.told("firing", REVOKED)
    await town.daemons.aclose()
    gone = await town.mail.told("firing", ABSENT)
    await town.mail.beats(4)
    await town.stack.sees(f'ALERTS{{alertname="{REVOKED}", alertstate="firing", connection="gus-0"}}')
    assert town.mail.messages == [revoked, gone]
    await town.start()
    back = await town.mail.told("resolved", ABSENT)
    await town.stack.sees('wix_calendar_connection_healthy{connection="gus-0"} == 0')
    town.mend("gus-0")
    mended = await town.mail.told("resolved", REVOKED)
    assert [each for each in town.mail.messages if heading(each)[1] in (REVOKED, ABSENT)] == [
        revoked,
        gone,
        back,
        mended,
    ]


async def what_is_mended_in_maintenance_is_told_after_it_and_breaks_anew_not_unheard(
    town: Stage,
) -> None:
    town.revoke("fay")
    await town.mail.told("firing", REVOKED)
    town.maintain("fay", LONG)
    await town.stack.sees('ALERTS{alertname="WixCalendarMaintenance", connection="fay"}')
    town.mend("fay")
    await town.stack.sees('wix_calendar_connection_healthy{connection="fay"} == 1')
    await town.mail.beats(8)  # longer than keep_firing_for
    assert len(town.mail.messages) == 1
    town.maintain("fay", None)
    await town.mail.told("resolved", REVOKED)
    again = len(town.mail.messages)
    town.revoke("fay")
    await town.mail.told("firing", REVOKED, again)
    town.mend("fay")
    await town.mail.told("resolved", REVOKED, again)
    await town.calm()


async def tokens_that_are_revoked_together_are_one_message(its: Stage) -> None:
    its.revoke(*names(HUNDREDS))
    message = await its.mail.told("firing", REVOKED)
    await its.mail.beats(4)
    assert its.mail.messages == [message]
    assert {each["labels"]["connection"] for each in message["alerts"]} == {*names(HUNDREDS)}
    assert (len(message["alerts"]), message["truncatedAlerts"]) == (300, 0)


async def an_outage_is_one_message_and_its_end_another(its: Stage) -> None:
    async def all_are_known() -> bool:
        return len(await its.known("WixCalendarSiteUnreachable")) == 10

    its.simulator.set_fault({"status": 503})
    began = await its.mail.told("firing", UNREACHABLE)
    await until(all_are_known, seconds=60)
    sites_alone = await its.known("WixCalendarSiteUnreachable")
    its.simulator.set_fault(None)
    ended = await its.mail.told("resolved", UNREACHABLE)
    await its.calm()
    assert its.mail.messages == [began, ended]
    assert {each["status"]["state"] for each in sites_alone} == {"suppressed"}


# --- all of them ----------------------------------------------------------------------------------------

Story = Callable[[Stage], Coroutine[Any, Any, None]]


class Play(NamedTuple):
    """A stage, the stories of some sites each that it has at the same time, and one of all sites."""

    name: str
    programs: Callable[[], Programs]
    scenario: Scenario
    interval: int
    factor: float
    at_once: dict[Story, Sequence[str]]
    at_last: Story

    @property
    def stories(self) -> list[Story]:
        return [*self.at_once, self.at_last]


in_town: Final = partial(
    Play,
    scenario=TOWN,
    interval=1,
    factor=60,
    at_once={
        a_revoked_token_and_its_end_are_told_but_not_while_in_maintenance: ("downtown", "uptown"),
        a_refused_credential_is_one_alert_of_its_site: ("harbour",),
        what_is_mended_in_maintenance_is_told_after_it_and_breaks_anew_not_unheard: ("riverside",),
    },
    at_last=a_killed_monitor_is_told_and_what_it_had_said_is_neither_over_nor_told_again,
)
BESIDE: Final = [
    in_town("installed", installed),
    in_town("newest", newest),
    Play("hundreds", installed, HUNDREDS, 3, 20, {}, tokens_that_are_revoked_together_are_one_message),
]
# It needs a processor for itself, and is played after them.
LARGE: Final = Play("thousand", installed, THOUSAND, 4, 40, {}, an_outage_is_one_message_and_its_end_another)
PLAYS: Final = [*BESIDE, LARGE]
TOLD: Final = [(play.name, story) for play in PLAYS for story in play.stories]
WRONG: Final = (Exception, pytest.skip.Exception, pytest.fail.Exception)
Runs = dict[tuple[str, Story], asyncio.Future[None]]


async def follow(story: Story, its: Stage, run: asyncio.Future[None]) -> None:
    try:
        await story(its)
    except WRONG as error:
        await its.curtain.abort()
        run.set_exception(error)
    else:
        run.set_result(None)


async def perform(play: Play, folder: Path, wanted: Runs) -> None:
    """Play the stories that are wanted; where there is no stage for them each fails, or is skipped."""
    runs = {story: wanted[play.name, story] for story in play.stories if (play.name, story) in wanted}
    at_once = {story: sites for story, sites in play.at_once.items() if story in runs}
    curtain = asyncio.Barrier(len(at_once) or 1)
    try:
        async with stage(play.programs(), folder, play.scenario, play.interval, play.factor) as its:
            parts = {story: its.part(sites, curtain) for story, sites in at_once.items()}
            await asyncio.gather(*(follow(story, part, runs[story]) for story, part in parts.items()))
            if play.at_last in runs:
                await follow(play.at_last, its.part(its.sites, its.curtain), runs[play.at_last])
    except WRONG as error:
        unplayed = [run for run in runs.values() if not run.done()]
        if not unplayed:
            raise
        for run in unplayed:
            run.set_exception(error)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Runs]:
    """The stories that are wanted, all under way."""
    loop = asyncio.get_running_loop()
    tests = [item for item in request.session.items if isinstance(item, pytest.Function)]
    asked = [test.callspec.params for test in tests if test.function is test_the_operator_is_told]
    told = [each for each in TOLD if dict(zip(("play", "story"), each, strict=True)) in asked]
    wanted: Runs = {each: loop.create_future() for each in told}

    async def perform_if_wanted(play: Play) -> None:
        if any(name == play.name for name, _ in told):
            await perform(play, tmp_path_factory.mktemp(play.name), wanted)

    async def perform_all() -> None:
        await asyncio.gather(*map(perform_if_wanted, BESIDE))
        await perform_if_wanted(LARGE)

    playing = loop.create_task(perform_all())
    yield wanted
    if not all(run.done() for run in wanted.values()):
        playing.cancel()
    with suppress(asyncio.CancelledError):
        await playing


@pytest.mark.real
@pytest.mark.alone
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("play", "story"), TOLD, ids=[f"{play}: {story.__name__.replace('_', ' ')}" for play, story in TOLD]
)
async def test_the_operator_is_told(play: str, story: Story, runs: Runs) -> None:
    await runs[play, story]
