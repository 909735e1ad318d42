"""The page in a real browser, before a real daemon over the bundled stand-in for Wix."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import bcrypt
import pytest
from aiohttp import ClientSession
from playwright.async_api import Page, Route, expect

from monitor.simulator import Connection, Scenario, Simulator
from tests.browser import NARROW, chromium, visit
from tests.daemon import Daemon, running
from tests.fleet import key_site, oauth_site, write_config
from tests.view.scene import BLIND
from tests.web.shown import fleet, served

pytestmark = [pytest.mark.real, pytest.mark.timeout(120), pytest.mark.xdist_group("browser")]

SCRIPT: Final = "<script>alert(1)</script>"
MIRRORED: Final = "\u202egnp.exe\u202c \u2067abc\u2069"
LONG: Final = "long-" + "x" * 195
ANNA: Final = {"id": "anna", "calendar_type": "GOOGLE", "import": True, "export": True}
FLEET: Final = Scenario(
    sites=(
        oauth_site(
            "downtown",
            [
                Connection.model_validate(ANNA),
                Connection(id="ben", calendar_type="I_CAL", status="CONNECTED"),
                Connection(id="cleo", calendar_type="MICROSOFT", status="ERROR", reason="TOKEN_REVOKED"),
                Connection(id="dora", status="DISCONNECTED"),
                Connection(id="emil", status="NOT_FOUND"),
            ],
        ),
        key_site("uptown", [Connection(id=name) for name in (SCRIPT, MIRRORED, LONG, "a/b?c#d%2F")]),
    )
)
PAGES: Final = (
    "/",
    "/?status=ERROR",
    "/sites",
    "/sites/uptown",
    "/connections/downtown/cleo",
    f"/connections/uptown/{quote(LONG, safe='')}",
    "/runbooks/WixCalendarTokenRevoked",
    "/connections/downtown/nobody",
)


class Stage:
    """A daemon whose calendars a test changes."""

    def __init__(self, daemon: Daemon, simulator: Simulator, url: str) -> None:
        self.daemon = daemon
        self.url = url
        self._simulator = simulator

    async def change(self, name: str, **to: Any) -> None:
        """Let a calendar have another status at Wix."""
        where = f"{self._simulator.base_url}/_simulator/connections/{name}?site=downtown"
        async with ClientSession() as session, session.post(where, data=json.dumps(to)) as answer:
            assert answer.status == 200, await answer.text()


@asynccontextmanager
async def staged(folder: Path, *flags: str) -> AsyncIterator[Stage]:
    async with Simulator(FLEET) as simulator:
        config = write_config(folder, simulator.base_url, FLEET)
        async with running(config, *flags) as daemon:
            url = await daemon.url()
            for site in FLEET.sites:
                for each in site.connections:
                    await daemon.event("connection_first_seen", connection=each.id)
            yield Stage(daemon, simulator, url)
            assert daemon.events("poll_crashed") == daemon.events("task_failed") == []


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as made:
        yield made


def row(page: Page, name: str) -> Any:
    return page.get_by_role("row").filter(
        has=page.get_by_role("rowheader").get_by_role("link", name=name, exact=True)
    )


async def test_the_page_says_what_is_wrong_and_the_filters_narrow_it(stage: Stage) -> None:
    async with chromium() as browser, visit(browser) as tab:
        page = tab.page
        await page.goto(stage.url)
        await expect(page.get_by_role("heading", level=1)).to_have_text("3 calendars of 9 broken, at 1 site")
        await expect(page.get_by_role("row")).to_have_count(10)
        await expect(row(page, "cleo")).to_contain_text("the calendar's owner")
        await tab.picture("page-fleet")
        await page.get_by_role("searchbox", name="Text").fill("EMIL")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("row")).to_have_count(2)
        await expect(row(page, "emil")).to_contain_text("NOT_FOUND")
        await page.get_by_role("link", name="Show all").click()
        await page.get_by_role("combobox", name="Status").select_option("SYNCED")
        await page.get_by_role("combobox", name="Site").fill("downtown")
        await page.get_by_role("button", name="Show").click()
        await expect(page.get_by_role("row")).to_have_count(2)
        await expect(row(page, "anna")).to_be_visible()
        await page.get_by_role("link", name=re.compile("^DISCONNECTED")).click()
        await expect(row(page, "dora")).to_be_visible()


async def test_the_keyboard_alone_reaches_everything(stage: Stage) -> None:
    async with chromium() as browser, visit(browser) as tab:
        page = tab.page
        await page.goto(stage.url)
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("main")).to_be_focused()
        for _ in range(40):
            await page.keyboard.press("Tab")
            if (
                await page.evaluate("document.activeElement.getAttribute('href')")
                == "/connections/downtown/cleo"
            ):
                break
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_have_text("cleo")


async def test_an_open_page_follows_a_change_behind_a_password(tmp_path: Path) -> None:
    web = tmp_path / "web-config.yml"
    web.touch(mode=0o600)
    web.write_text(f"basic_auth_users:\n  alice: {bcrypt.hashpw(b'canary', bcrypt.gensalt(4)).decode()}\n")
    credentials = {"username": "alice", "password": "canary"}
    async with (
        staged(tmp_path, f"--web.config.file={web}") as stage,
        chromium() as browser,
        visit(browser, http_credentials=credentials) as tab,
    ):
        page = tab.page
        await page.goto(stage.url)
        await expect(row(page, "anna")).to_contain_text("SYNCED")
        await page.evaluate("window.mark = 'the same page'")
        await row(page, "dora").get_by_role("rowheader").get_by_role("link", name="dora").focus()
        await stage.change("anna", status="ERROR", reason="EXTERNAL_CALENDAR_DELETED")
        await expect(row(page, "anna")).to_contain_text("EXTERNAL_CALENDAR_DELETED", timeout=20_000)
        await expect(page.get_by_role("heading", level=1)).to_contain_text("4 calendars of 9 broken")
        await expect(page.get_by_role("status")).to_contain_text("downtown/anna is ERROR")
        await expect(page.locator("tbody tr").first).to_contain_text("anna")
        await expect(page).to_have_title(re.compile("^4 calendars"))
        assert await page.evaluate("window.mark") == "the same page"
        assert await page.evaluate("document.activeElement.textContent") == "dora"
        await tab.picture("page-changed")
        await page.get_by_role("button", name="Pause").click()
        await stage.change("anna", status="SYNCED")
        await stage.daemon.event("connection_transition", connection="anna", to_status="SYNCED")
        await expect(row(page, "anna")).to_contain_text("ERROR")
        await page.get_by_role("button", name="Go on").click()
        await expect(page.get_by_role("status")).not_to_contain_text("Paused")
        await expect(row(page, "anna")).to_contain_text("SYNCED", timeout=20_000)


async def test_a_page_that_waits_for_an_answer_does_not_ask_again(stage: Stage) -> None:
    answered = asyncio.Event()
    asked = 0

    async def wait(route: Route) -> None:
        nonlocal asked
        asked += 1
        await answered.wait()
        await route.continue_()

    async with chromium() as browser, visit(browser) as tab:
        page = tab.page
        await page.goto(stage.url)
        await page.route(f"{stage.url}/", wait)
        for status in ("ERROR", "DISCONNECTED", "CONNECTED", "NOT_FOUND"):  # each is told two seconds later
            await stage.change("anna", status=status)
            await expect(page.get_by_role("status")).to_contain_text(f"downtown/anna is {status}")
        assert asked == 1
        answered.set()
        await expect(row(page, "anna")).to_contain_text("NOT_FOUND")


async def test_a_calendars_page_draws_its_past_and_follows_it(stage: Stage) -> None:
    async with chromium() as browser, visit(browser) as tab:
        page = tab.page
        await page.goto(f"{stage.url}/connections/downtown/anna")
        await expect(
            page.get_by_role("img", name=re.compile("The last 24 hours: never unwell"))
        ).to_be_visible()
        await stage.change("anna", status="DISCONNECTED")
        await expect(page.locator("#now .status")).to_contain_text("DISCONNECTED", timeout=20_000)
        pictures = page.get_by_role("img", name=re.compile("unwell 1 time,"))
        await expect(pictures).to_have_count(3)
        assert await page.locator("rect.bad").count() >= 3
        await expect(page.get_by_role("row").filter(has_text="DISCONNECTED")).to_contain_text("so far")
        await expect(page.get_by_text("wix-calendar-monitor poll --config.file=")).to_be_visible()
        await tab.picture("page-calendar")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, NARROW])
async def test_nothing_hinders_people_in_either_theme_or_width(stage: Stage, theme: str, width: int) -> None:
    grounds = {"light": "rgb(250, 249, 247)", "dark": "rgb(19, 22, 26)"}
    # The one page that is not there is a 404, which the browser tells as well.
    async with chromium() as browser, visit(browser, width=width, color_scheme=theme) as tab:
        for number, path in enumerate(PAGES):
            await tab.page.goto(stage.url + path)
            await expect(tab.page.locator("body")).to_have_css("background-color", grounds[theme])
            assert await tab.hindrances() == "", path
            assert await tab.overflow() <= 0, path
            await tab.picture(f"page-{theme}-{width}-{number}")
        tab.complaints = [each for each in tab.complaints if "404" not in each]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, NARROW])
async def test_a_node_that_may_not_poll_says_so_to_everybody(theme: str, width: int) -> None:
    with served(replace(fleet(), node=BLIND)) as url:
        async with chromium() as browser, visit(browser, width=width, color_scheme=theme) as tab:
            for number, path in enumerate(("/", "/sites", "/sites/midtown", "/connections/downtown/ben")):
                await tab.page.goto(url + path)
                told = tab.page.get_by_text("This node may not poll since 2026-03-01 11:13 UTC").first
                await expect(told).to_be_visible()
                await expect(tab.page.get_by_role("contentinfo")).to_contain_text("This is node a, one of 3")
                assert await tab.hindrances() == "", path
                assert await tab.overflow() <= 0, path
                await tab.picture(f"page-node-{theme}-{width}-{number}")


async def test_without_a_script_all_is_there(stage: Stage) -> None:
    async with chromium() as browser, visit(browser, java_script_enabled=False) as tab:
        page = tab.page
        await page.goto(stage.url)
        await expect(page.get_by_role("row")).to_have_count(10)
        await expect(page.get_by_text("Reload the page to see what is newer.")).to_be_visible()
        await expect(page.get_by_role("button", name="Pause")).to_have_count(0)
        await page.get_by_role("searchbox", name="Text").fill("cleo")
        await page.get_by_role("button", name="Show").click()
        await row(page, "cleo").get_by_role("rowheader").get_by_role("link", name="cleo").click()
        await expect(page.get_by_role("img")).to_have_count(3)
        await page.get_by_role("link", name="Wix may no longer use the calendar").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("WixCalendarTokenRevoked")


@pytest.mark.parametrize("name", [SCRIPT, MIRRORED, LONG, "a/b?c#d%2F"])
async def test_a_hostile_name_is_text_and_its_page_is_found(stage: Stage, name: str) -> None:
    async with chromium() as browser, visit(browser) as tab:
        page = tab.page
        await page.goto(f"{stage.url}/?site=uptown")
        await expect(page.get_by_role("row")).to_have_count(5)
        assert await page.locator("main script").count() == 0
        shown = page.locator("tbody th .name bdi")
        assert name in await shown.all_text_contents()
        await page.locator(f"a.name[href='/connections/uptown/{quote(name, safe='')}']").click()
        assert await page.locator("h1 bdi").text_content() == name
        await expect(page.locator("#timeline")).to_be_visible()
        await tab.picture(f"page-hostile-{len(name)}")
