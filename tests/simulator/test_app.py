"""Starting, stopping and steering the simulator."""

import asyncio
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from monitor.errors import CannotStartError
from monitor.simulator import Scenario, Simulator, run
from tests.simulator.talk import CONNECTIONS, KEY, Ask, HandClock, OpenRaw

ADDRESSES = (("127.0.0.11", 0), ("127.0.0.12", 0))


async def status_of(session: aiohttp.ClientSession, base_url: str, **options: Any) -> int:
    async with session.get(f"{base_url}{CONNECTIONS}bare", headers=KEY, **options) as answer:
        await answer.read()
        return answer.status


async def until_under_way(number: int, simulator: Simulator, ask_connection: Ask) -> None:
    """Keep the server busy with another connection's requests until so many hang."""
    for _ in range(1_000):
        await ask_connection("bare")
        if simulator.record.site("north").under_way.now == number:
            return
    pytest.fail(f"{simulator.record.site('north').under_way.now} are under way, not {number}")


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    made = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    told = ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*made, *told, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


async def test_it_listens_on_a_free_loopback_port_and_says_where(
    simulator: Simulator, session: aiohttp.ClientSession
) -> None:
    assert simulator.base_url.startswith("http://127.0.0.1:")
    assert await status_of(session, simulator.base_url) == 200


async def test_an_ipv6_address_is_bracketed_in_the_base_url(
    scenario: Scenario, session: aiohttp.ClientSession
) -> None:
    async with Simulator(scenario) as simulator:
        await simulator.stop()
        assert (await simulator.start("::1")).startswith("http://[::1]:")
        assert await status_of(session, simulator.base_url) == 200


async def test_a_taken_port_cannot_be_started_on(scenario: Scenario, simulator: Simulator) -> None:
    port = int(simulator.base_url.rpartition(":")[2])

    with pytest.raises(CannotStartError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
        await Simulator(scenario).start(port=port)


async def test_it_speaks_tls_with_a_context(
    tmp_path: Path, scenario: Scenario, session: aiohttp.ClientSession
) -> None:
    certificate, key = self_signed(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=certificate)
    simulator = Simulator(scenario)
    base_url = await simulator.start(ssl_context=context)
    async with simulator:
        assert base_url.startswith("https://")
        assert await status_of(session, base_url, ssl=trusting) == 200
        simulator.set_fault("reset")
        with pytest.raises(aiohttp.ClientOSError):
            await status_of(session, base_url, ssl=trusting)


@pytest.mark.parametrize("fault", ["hang", "hang_after_headers", "endless", "drip", {"latency": "30s"}])
async def test_a_stop_is_prompt_and_silent_whatever_hangs(
    fault: Any, simulator: Simulator, ask_connection: Ask, open_raw: OpenRaw, caplog: pytest.LogCaptureFixture
) -> None:
    simulator.set_fault(fault, ["anna"])
    readers = [await open_raw() for _ in range(3)]
    await until_under_way(3, simulator, ask_connection)
    began = asyncio.get_running_loop().time()
    await simulator.stop()

    assert asyncio.get_running_loop().time() - began < 0.5
    assert simulator.record.site("north").under_way.now == 0
    assert caplog.records == []
    for reader in readers:
        with suppress(ConnectionError):  # the end of what came, or a reset: both end at once
            await reader.read()


async def test_a_client_that_leaves_ends_its_request(simulator: Simulator, ask_connection: Ask) -> None:
    simulator.set_fault("hang", ["anna"])
    with pytest.raises(TimeoutError):
        await ask_connection("anna", timeout=aiohttp.ClientTimeout(total=0.05))
    await until_under_way(0, simulator, ask_connection)

    assert simulator.record.connection("anna").under_way.most == 1


async def test_it_goes_on_with_all_it_knows_after_a_restart(
    simulator: Simulator, session: aiohttp.ClientSession, clock: HandClock
) -> None:
    port = int(simulator.base_url.rpartition(":")[2])
    simulator.set_status("bare", "ERROR")
    await status_of(session, simulator.base_url)
    await simulator.stop()
    await simulator.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        await status_of(session, simulator.base_url)
    clock.advance(50)
    await simulator.start(port=port)
    await status_of(session, simulator.base_url)

    (run_of_errors,) = simulator.record.runs("bare")
    assert (run_of_errors.status, run_of_errors.count, run_of_errors.last_at.total_seconds()) == (
        "ERROR",
        2,
        50,
    )


async def test_a_status_set_by_hand_stays_until_the_script_is_followed_again(
    simulator: Simulator, ask_connection: Ask, clock: HandClock
) -> None:
    simulator.set_status("anna", "DISCONNECTED")
    clock.advance(45)
    by_hand = (await ask_connection()).json["connection"]["status"]
    simulator.follow_script("anna")

    assert [by_hand, (await ask_connection()).json["connection"]["status"]] == ["DISCONNECTED", "ERROR"]


async def test_a_connection_can_be_made_unknown(simulator: Simulator, ask_connection: Ask) -> None:
    simulator.set_status("anna", "NOT_FOUND")
    reply = await ask_connection()

    assert (reply.status, reply.json["details"]["applicationError"]["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize("site", [None, "south"])
def test_an_id_that_no_site_has_cannot_be_set(site: str | None, scenario: Scenario) -> None:
    simulator = Simulator(scenario)
    wrong = "anna" if site else "stranger"

    with pytest.raises(KeyError):
        simulator.set_status(wrong, "SYNCED", site=site)
    with pytest.raises(KeyError):
        simulator.follow_script(wrong, site=site)


async def test_run_announces_where_it_serves_and_ends_when_cancelled(
    scenario: Scenario, session: aiohttp.ClientSession
) -> None:
    announced: asyncio.Queue[str] = asyncio.Queue()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        serving = group.create_task(run(scenario, ADDRESSES, announced.put_nowait))
        base_urls = [await announced.get() for _ in ADDRESSES]
        for base_url in base_urls:
            assert await status_of(session, base_url) == 200
        serving.cancel()

    for base_url in base_urls:
        with pytest.raises(aiohttp.ClientConnectionError):
            await status_of(session, base_url)


async def test_run_that_cannot_listen_at_all_its_addresses_listens_at_none(
    scenario: Scenario, simulator: Simulator, session: aiohttp.ClientSession
) -> None:
    taken = int(simulator.base_url.rpartition(":")[2])
    announced: list[str] = []
    with pytest.raises(CannotStartError, match=f"cannot listen on 127.0.0.1:{taken}"):
        await run(scenario, [("127.0.0.11", 0), ("127.0.0.1", taken)], announced.append)

    with pytest.raises(aiohttp.ClientConnectionError):
        await status_of(session, announced[0])


async def test_it_listens_at_several_addresses_and_tells_who_came_to_which(
    simulator: Simulator, session: aiohttp.ClientSession, clock: HandClock
) -> None:
    base_urls = [simulator.base_url, await simulator.start("127.0.0.12"), await simulator.start("::1")]
    for base_url in base_urls:
        await status_of(session, base_url)
        clock.advance(1)

    kept = [
        (f"http://{each.address}", each.arrived.total_seconds())
        for each in simulator.record.requests("north")
    ]
    assert kept == list(zip(base_urls, (0, 1, 2), strict=True))
    assert simulator.base_url == base_urls[0]
