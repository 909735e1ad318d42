"""A site that hangs holds up no other."""

import asyncio
from pathlib import Path

import pytest

from monitor.core.model import FailureReason, Observed, PollFailed
from monitor.core.plan import SITE_SLOTS
from monitor.wix.client import WixClient
from monitor.wix.pace import Slots
from tests.wix.conftest import OpenParty
from tests.wix.servers import RawServer, ShiftedClock, api_settings, good, hang, key_credential, until

INTERVAL = 1.0  # seconds: the shortest that can be configured


def nothing() -> None:
    """Nobody counts the starts."""


async def poll_all(client: WixClient, count: int) -> list[bool]:
    polls = [client.get_connection(f"c{number}", on_started=nothing) for number in range(count)]
    return [isinstance(observation, Observed) for observation in await asyncio.gather(*polls)]


@pytest.mark.parametrize(
    ("total", "doubtful", "held"),
    [(2 * SITE_SLOTS, False, SITE_SLOTS), (8, True, 4), (2, True, 1)],
    ids=["the first time", "after a failed poll", "with two slots in all"],
)
async def test_while_one_site_hangs_the_other_is_polled_within_its_interval(
    open_party: OpenParty, tmp_path: Path, total: int, held: int, *, doubtful: bool
) -> None:
    slots = Slots(total)
    async with RawServer(hang) as hanging, RawServer(good) as answering:
        hung = (await open_party(api_settings(hanging.url, 60), key_credential(tmp_path), slots=slots)).client
        fine = (await open_party(api_settings(answering.url), key_credential(tmp_path), slots=slots)).client
        if doubtful:
            hung.pace.settle(PollFailed(FailureReason.TIMEOUT), ShiftedClock().now(), trial=False)
        stuck = asyncio.get_running_loop().create_task(poll_all(hung, 40))
        await until(lambda: len(hanging.heard) == held)
        for _ in range(3):
            async with asyncio.timeout(INTERVAL):
                assert all(await poll_all(fine, 20))
        assert len(hanging.heard) == held
        assert len(answering.heard) == 60
        stuck.cancel()
        await asyncio.gather(stuck, return_exceptions=True)


async def test_when_the_hanging_site_gives_up_its_own_waiters_go_on(
    open_party: OpenParty, tmp_path: Path
) -> None:
    async with RawServer(hang) as server:
        party = await open_party(api_settings(server.url, 0.1), key_credential(tmp_path))
        answers = await asyncio.gather(
            *(party.client.get_connection(f"c{number}", on_started=nothing) for number in range(20))
        )
        assert {answer.reason for answer in answers if isinstance(answer, PollFailed)} == {
            FailureReason.TIMEOUT
        }
        assert party.client.pace.requests == 20
