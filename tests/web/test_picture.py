"""The picture that the README shows: `deploy/page.png` is a copy of what this leaves in `tests/artefacts`."""

from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from monitor.core.model import CalendarType, ConnectionState, ErrorReason, FailureReason, Status
from monitor.view.facts import Facts
from tests.browser import ARTEFACTS, chromium, visit
from tests.view.scene import MINUTE, NOW, facts_of, outage, site_of, state, watched
from tests.web.shown import served

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("browser")]

PICTURE: Final = Path(__file__).resolve().parents[2] / "deploy" / "page.png"
LARGEST: Final = 150_000  # bytes
STAFF: Final = ("bruno", "carla", "dario", "elena", "farah", "goran", "hanna", "ivo", "jana", "karim")
LOOK: Final = timedelta(seconds=20)


def sample() -> Facts:
    """A fleet on an ordinary bad night."""
    revoked = state(
        status=Status.ERROR,
        reason=ErrorReason.TOKEN_REVOKED,
        status_since=NOW - 47 * MINUTE,
        last_success_at=NOW - LOOK,
    )
    gone = state(
        status=Status.DISCONNECTED,
        status_since=NOW - timedelta(hours=9, minutes=12),
        calendar_type=CalendarType.MICROSOFT,
    )
    blind = state(last_success_at=NOW - 9 * MINUTE, last_poll_succeeded=False)
    downtown = [watched("anna", revoked, team="front-desk"), watched("anton", gone, team="front-desk")]
    downtown += [watched(name, _well(number)) for number, name in enumerate(STAFF)]
    harbour = [watched(f"{name}-google", _well(number), "harbour") for number, name in enumerate(STAFF)]
    spa = [watched(f"{name}-spa", blind, "old-town-spa") for name in ("mia", "noah")]
    return facts_of(
        site_of(downtown),
        site_of(harbour, "harbour"),
        site_of(spa, "old-town-spa", state=outage(FailureReason.UNAUTHORIZED)),
    )


def _well(number: int) -> ConnectionState:
    kind = (CalendarType.GOOGLE, CalendarType.MICROSOFT, CalendarType.I_CAL)[number % 3]
    return state(status_since=NOW - timedelta(days=3 + number, hours=number), calendar_type=kind)


async def test_the_readmes_picture_is_taken() -> None:
    with served(sample()) as url:
        async with chromium() as browser, visit(browser, width=1100) as tab:
            await tab.page.goto(url)
            ARTEFACTS.mkdir(exist_ok=True)
            await tab.page.screenshot(path=ARTEFACTS / "readme.png")


def test_the_readmes_picture_is_small() -> None:
    assert 0 < PICTURE.stat().st_size < LARGEST
