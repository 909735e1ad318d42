"""`poll SITE/NAME` over a real socket: what is shown, what it means, how it ends."""

import json
from pathlib import Path

import pytest

from monitor.clock import Clock
from monitor.config import load
from monitor.oneshot import Verdict, poll_once
from monitor.simulator import CANARY_EMAIL, Connection, Scenario, Simulator
from tests.fleet import API_KEY, CLIENT_SECRET, key_site, oauth_site, write_config

OWNER = "anna.o'neill@salon.example"


async def polled(folder: Path, simulator: Simulator, scenario: Scenario) -> tuple[Verdict, str]:
    settings = load(write_config(folder, simulator.base_url, scenario), environ={}).settings
    site = settings.sites[0]
    said: list[str] = []
    verdict = await poll_once(settings, site, site.connections[0], Clock(), said.append)
    return verdict, "\n".join(said)


@pytest.mark.parametrize(
    ("status", "reason", "verdict", "words"),
    [
        ("SYNCED", None, Verdict.HEALTHY, "verdict      healthy"),
        ("ERROR", "TOKEN_REVOKED", Verdict.UNHEALTHY, "verdict      unhealthy"),
        ("NOT_FOUND", None, Verdict.UNHEALTHY, "verdict      unconfirmed"),
    ],
)
async def test_the_exit_code_is_the_verdict(
    tmp_path: Path, status: str, reason: str | None, verdict: Verdict, words: str
) -> None:
    scenario = Scenario(sites=(key_site("downtown", [Connection(id="anna", status=status, reason=reason)]),))
    async with Simulator(scenario) as simulator:
        got, said = await polled(tmp_path, simulator, scenario)
    assert got is verdict
    assert words in said


async def test_an_exchange_is_shown_with_its_series_and_without_its_secrets(tmp_path: Path) -> None:
    scenario = Scenario(sites=(oauth_site("downtown", [Connection(id="anna", import_enabled=True)]),))
    async with Simulator(scenario) as simulator:
        _, said = await polled(tmp_path, simulator, scenario)
    assert f"> POST {simulator.base_url}/oauth2/token" in said
    assert f"> GET {simulator.base_url}/bookings/v2/external-calendars/connections/anna" in said
    assert "> Authorization: [REDACTED]" in said
    assert "< 200 in " in said
    assert "< x-wix-request-id: " in said
    assert 'wix_calendar_connection_status{site="downtown",connection="anna",status="SYNCED"} 1' in said
    assert 'wix_calendar_connection_healthy{site="downtown",connection="anna"} 1' in said
    assert [secret for secret in (CLIENT_SECRET, CANARY_EMAIL, "OauthNG.JWS.") if secret in said] == []


async def test_what_could_not_be_asked_is_no_word_about_the_calendar(tmp_path: Path) -> None:
    scenario = Scenario(sites=(key_site("downtown", [Connection(id="anna")]),))
    async with Simulator(scenario) as simulator:
        simulator.set_fault({"status": 503, "body": "html"})
        verdict, said = await polled(tmp_path, simulator, scenario)
    assert verdict is Verdict.COULD_NOT_ASK
    assert "reason=server_error" in said
    assert "verdict      could not ask" in said
    assert "wix_calendar_connection_status{" not in said


async def test_a_server_that_echoes_the_key_in_its_page_does_not_print_it(tmp_path: Path) -> None:
    scenario = Scenario(sites=(key_site("downtown", [Connection(id="anna")]),))
    async with Simulator(scenario) as simulator:
        simulator.set_fault({"status": 403, "code": API_KEY})
        _, said = await polled(tmp_path, simulator, scenario)
    assert API_KEY not in said
    assert "reason=forbidden" in said


async def test_a_body_keeps_its_other_facts(tmp_path: Path) -> None:
    scenario = Scenario(sites=(key_site("downtown", [Connection(id="anna", calendar_type="I_CAL")]),))
    async with Simulator(scenario) as simulator:
        _, said = await polled(tmp_path, simulator, scenario)
    body = json.loads(said[said.index("{\n") : said.rindex("\n}\n") + 2])
    assert body["connection"]["calendarType"] == "I_CAL"
    assert body["connection"]["externalAccountEmail"] == "[REDACTED]"


async def test_half_a_token_is_not_shown(tmp_path: Path) -> None:
    scenario = Scenario(sites=(oauth_site("downtown", [Connection(id="anna")]),))
    async with Simulator(scenario) as simulator:
        simulator.set_fault("truncated_json", endpoint="token")
        verdict, said = await polled(tmp_path, simulator, scenario)
    assert verdict is Verdict.COULD_NOT_ASK
    assert "bytes that are no JSON" in said
    assert "OauthNG" not in said


@pytest.mark.parametrize("fault", [{"status": 400, "code": OWNER}, {"unknown_status": OWNER}])
async def test_nobody_s_address_is_shown_wherever_it_stands(tmp_path: Path, fault: dict[str, object]) -> None:
    scenario = Scenario(sites=(key_site("downtown", [Connection(id="anna")]),))
    async with Simulator(scenario) as simulator:
        simulator.set_fault(fault)
        _, said = await polled(tmp_path, simulator, scenario)
    assert "[REDACTED]" in said.partition("\n< ")[2]
    assert not any(part in said for part in ("anna.", "neill", "salon"))
