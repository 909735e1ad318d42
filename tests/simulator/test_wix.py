"""Both of Wix's URLs, over a real socket."""

import re
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import aiohttp
import pytest
import yarl

from monitor.simulator import CANARY_EMAIL, Connection, Scenario, Simulator, Site
from tests.simulator.talk import CONNECTIONS, KEY, Ask, HandClock, code_of


async def test_a_known_connection_is_the_whole_documented_object(ask_connection: Ask) -> None:
    reply = await ask_connection()

    assert reply.status == 200
    connection = reply.json["connection"]
    guids = {field: connection.pop(field) for field in ("providerId", "scheduleId", "userId", "appId")}
    assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", guid) for guid in guids.values())
    assert connection == {
        "id": "anna",
        "calendarType": "GOOGLE",
        "externalAccountEmail": CANARY_EMAIL,
        "status": "SYNCED",
        "syncConfig": {
            "listEventFromCalendars": {"primaryCalendar": {}, "enabled": True},
            "syncToCalendar": {"dedicatedCalendar": {}, "enabled": True},
        },
    }


async def test_an_empty_word_leaves_its_field_out_and_undefined_is_printed_where_asked(
    ask_connection: Ask,
) -> None:
    connection = (await ask_connection("bare")).json["connection"]

    assert connection["errorReason"] == "UNDEFINED"
    assert not {"status", "calendarType", "syncConfig"} & connection.keys()


async def test_a_null_status_is_null_and_one_half_of_the_sync_settings_may_be_missing(
    ask_connection: Ask,
) -> None:
    connection = (await ask_connection("odd / ?%✓")).json["connection"]

    assert connection["status"] is None
    assert list(connection["syncConfig"]) == ["listEventFromCalendars"]
    assert connection["syncConfig"]["listEventFromCalendars"]["enabled"] is False
    assert connection["syncConfig"]["listEventFromCalendars"]["calendars"]["calendars"]


async def test_the_timeline_moves_with_the_clock_and_repeats(ask_connection: Ask, clock: HandClock) -> None:
    seen = []
    for seconds in (0, 39.9, 0.1, 49.9, 0.1, 29.9, 40.1):
        clock.advance(seconds)
        connection = (await ask_connection()).json["connection"]
        seen.append((connection["status"], connection.get("errorReason")))

    synced, revoked = ("SYNCED", None), ("ERROR", "TOKEN_REVOKED")
    assert seen == [synced, synced, revoked, revoked, synced, synced, revoked]


@pytest.mark.parametrize("odd", ["a/b", "a?b=c", "a%2Fb", "a b", "#", "..", "é✓😀", "x" * 300, "😀" * 300])
async def test_any_id_arrives_as_one_encoded_segment(odd: str, session: aiohttp.ClientSession) -> None:
    site = Site(
        name="north",
        api_key=KEY["Authorization"],
        site_id=KEY["wix-site-id"],
        connections=(Connection(id=odd),),
    )
    async with Simulator(Scenario(sites=(site,))) as simulator:
        url = yarl.URL(
            simulator.base_url + CONNECTIONS + quote(odd, safe="").replace(".", "%2E"), encoded=True
        )
        async with session.get(url, headers=KEY) as answer:
            body = await answer.json()

    assert body["connection"]["id"] == odd


@pytest.mark.parametrize(
    "path",
    [
        f"{CONNECTIONS}an/na",
        CONNECTIONS,
        CONNECTIONS.rstrip("/"),
        f"{CONNECTIONS}anna/",
        f"/{CONNECTIONS}anna",
        "/bookings/v2/external-calendar/connections/anna",
        "/oauth2/token/",
        "/",
    ],
)
async def test_a_path_that_wix_does_not_have_gets_a_page_and_no_envelope(
    path: str, ask: Ask, simulator: Simulator
) -> None:
    reply = await ask(path, headers=KEY)

    assert (reply.status, reply.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert simulator.record.strays == 1


@pytest.mark.parametrize(("method", "path"), [("POST", f"{CONNECTIONS}anna"), ("GET", "/oauth2/token")])
async def test_another_method_is_a_path_that_wix_does_not_have(method: str, path: str, ask: Ask) -> None:
    assert (await ask(path, method, headers=KEY)).json is None


@pytest.mark.parametrize("connection_id", ["stranger", "ben"])
async def test_an_unknown_connection_and_another_sites_are_alike_a_404_with_the_envelope(
    connection_id: str, ask_connection: Ask
) -> None:
    reply = await ask_connection(connection_id)

    assert (reply.status, code_of(reply.json)) == (404, "NOT_FOUND")


@pytest.mark.parametrize("path", [f"{CONNECTIONS}anna", "/oauth2/token", "/nowhere"])
async def test_every_answer_has_a_request_id_of_its_own(path: str, ask: Ask) -> None:
    ids = {(await ask(path, headers=KEY)).headers["x-wix-request-id"] for _ in range(3)}

    assert len(ids) == 3
    assert all(re.fullmatch(r"\d{10}\.\d{18}", request_id) for request_id in ids)


@pytest.mark.parametrize("form", ["seconds", "date", "none"])
async def test_requests_over_the_limit_of_any_rolling_minute_are_turned_away(
    form: str, scenario: Scenario, clock: HandClock, session: aiohttp.ClientSession
) -> None:
    north = scenario.sites[0].model_copy(update={"rate_limit_per_minute": 2, "retry_after": form})
    statuses, told, asked_at = [], "", 0
    async with Simulator(Scenario(sites=(north,)), clock) as simulator:
        for seconds in (0, 30, 12, 18, 0):
            clock.advance(seconds)
            async with session.get(f"{simulator.base_url}{CONNECTIONS}anna", headers=KEY) as answer:
                statuses.append(answer.status)
                if seconds == 12:
                    assert code_of(await answer.json()) == "RESOURCE_EXHAUSTED"
                    told = answer.headers.get("Retry-After", "")
                    asked_at = int(answer.headers["x-wix-request-id"].partition(".")[0])

    assert statuses == [200, 200, 429, 200, 429]
    if form == "date":
        assert parsedate_to_datetime(told).timestamp() - asked_at in (18, 19)  # whichever second it is
    else:
        assert told == {"seconds": "18", "none": ""}[form]
