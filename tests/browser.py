"""A real browser: the machine's own Chromium, what it complains of, and axe-core."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import Browser, Page, async_playwright

from tests.real_parts import require

ARTEFACTS: Final = Path(__file__).resolve().parent / "artefacts"
PATIENCE: Final = 20_000  # milliseconds
WIDE: Final = 1280
NARROW: Final = 360

_FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_AXE: Final = "axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations)"


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The browser, started; without one the test is skipped."""
    path = require("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(_FLAGS))
        try:
            yield browser
        finally:
            await browser.close()


class Visit:
    """A tab, and whatever it complained of."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", lambda said: self.complaints.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"a dialog: {dialog.message}"))
        page.on("requestfailed", self._failed)

    async def picture(self, name: str) -> None:
        """Leave a screenshot to be looked at."""
        ARTEFACTS.mkdir(exist_ok=True)
        await self.page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)

    async def hindrances(self) -> str:
        """What axe-core finds that hinders people, as text; empty where there is nothing."""
        await self.page.evaluate(AXE_SCRIPT)
        found: list[dict[str, Any]] = await self.page.evaluate(_AXE)
        return "\n".join(
            f"{each['id']}: {json.dumps([node['html'][:200] for node in each['nodes'][:3]])}"
            for each in found
        )

    async def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        wide: int = await self.page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth")
        return wide

    def _failed(self, request: Any) -> None:
        if not request.url.endswith("/events"):  # an open stream is cut by leaving the page
            self.complaints.append(f"{request.url}: {request.failure}")


@asynccontextmanager
async def visit(browser: Browser, **context: Any) -> AsyncIterator[Visit]:
    """A tab of its own; what it complains of fails the test."""
    width = context.pop("width", WIDE)
    made = await browser.new_context(viewport={"width": width, "height": 800}, **context)
    made.set_default_timeout(PATIENCE)
    visiting = Visit(await made.new_page())
    yield visiting
    await made.close()
    assert visiting.complaints == []
