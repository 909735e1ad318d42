"""The simulator's own URLs."""

from typing import Any

import pytest

from monitor.simulator import CANARY_EMAIL, Simulator
from tests.simulator.talk import Ask, HandClock


async def test_the_connections_are_listed_with_what_they_show(
    ask: Ask, simulator: Simulator, clock: HandClock
) -> None:
    clock.advance(40)
    simulator.set_fault("hang", ["ben"])
    listed = (await ask("/_simulator/connections")).json["connections"]

    quiet = {"reason": None, "by_hand": False, "fault": None}
    assert listed == [
        {**quiet, "site": "north", "id": "anna", "status": "ERROR", "reason": "TOKEN_REVOKED"},
        {**quiet, "site": "north", "id": "bare", "status": ""},
        {**quiet, "site": "north", "id": "odd / ?%✓", "status": None},
        {**quiet, "site": "south", "id": "ben", "status": "SYNCED", "fault": "hang"},
        {**quiet, "site": "south", "id": "gone", "status": "NOT_FOUND"},
    ]


@pytest.mark.parametrize(
    ("connection_id", "segment"), [("anna", "anna"), ("odd / ?%✓", "odd%20%2F%20%3F%25%E2%9C%93")]
)
async def test_a_connection_is_flipped_and_released(
    connection_id: str, segment: str, ask: Ask, ask_connection: Ask
) -> None:
    path = f"/_simulator/connections/{segment}"
    flipped = await ask(path, "POST", data='{"status": "ERROR", "reason": "EXTERNAL_CALENDAR_DELETED"}')
    connection = (await ask_connection(connection_id)).json["connection"]
    released = await ask(path, "DELETE")

    assert (connection["status"], connection["errorReason"]) == ("ERROR", "EXTERNAL_CALENDAR_DELETED")
    assert flipped.json["connections"][0]["by_hand"] is True
    assert released.json["connections"][0]["by_hand"] is False
    assert (await ask_connection(connection_id)).json["connection"]["status"] != "ERROR"


@pytest.mark.parametrize(
    ("path", "method", "body", "status", "problem"),
    [
        ("connections/stranger", "POST", '{"status": "SYNCED"}', 404, "no connection 'stranger'"),
        ("connections/anna?site=south", "DELETE", None, 404, "no connection 'anna'"),
        ("connections/anna", "GET", None, 405, "POST a status, or DELETE to follow the script again"),
        ("connections/anna", "POST", "{", 400, "Invalid JSON"),
        ("connections/anna", "POST", '{"reason": "TOKEN_REVOKED"}', 400, "status: Field required"),
        ("connections/anna", "POST", '{"status": "SYNCED", "sttus": 1}', 400, "sttus: Extra inputs"),
        ("faults", "POST", '{"fault": "hung"}', 400, "fault.kind: Input should be 'latency'"),
        ("faults", "POST", '{"fault": "refuse", "endpoint": "any"}', 400, "is a fault of the token endpoint"),
        ("faults", "GET", None, 404, "no GET of /_simulator/faults here"),
        ("", "GET", None, 404, "no GET of /_simulator/ here"),
    ],
)
async def test_what_cannot_be_done_by_hand_is_said(
    path: str, method: str, body: str | None, status: int, problem: str, ask: Ask
) -> None:
    reply = await ask(f"/_simulator/{path}", method, data=body)

    assert reply.status == status
    assert problem in reply.json["problems"][0]


async def test_a_fault_is_set_and_all_are_ended(ask: Ask, ask_connection: Ask) -> None:
    await ask("/_simulator/faults", "POST", data='{"fault": {"status": 503}, "connections": ["anna"]}')
    met = [(await ask_connection(name)).status for name in ("anna", "bare")]
    await ask("/_simulator/faults", "DELETE")

    assert [*met, (await ask_connection()).status] == [503, 200, 200]


async def test_the_record_tells_what_was_asked_and_answered_and_no_secret(
    ask: Ask, ask_connection: Ask, ask_token: Ask, clock: HandClock, simulator: Simulator
) -> None:
    headers = {"Authorization": (await ask_token()).json["access_token"]}
    await ask_token(client_secret="canary-wrong")
    for seconds in (0, 30, 30):
        clock.advance(seconds)
        await ask_connection()
        await ask_connection("ben", headers)
    simulator.set_fault({"status": 503})
    await ask_connection()
    reply = await ask("/_simulator/record")
    north, south = reply.json["sites"]["north"], reply.json["sites"]["south"]

    assert north == {
        "requests": {"connection": 4},
        "answers": {"200": 3, "503": 1},
        "faults": {"status": 1},
        "wrong_credentials": 0,
        "busiest_minute": 3,
        "under_way": 0,
        "most_under_way": 1,
    }
    assert (south["requests"], south["answers"]) == ({"token": 2, "connection": 3}, {"200": 4, "401": 1})
    assert (south["wrong_credentials"], south["busiest_minute"]) == (1, 4)
    anna = next(one for one in reply.json["connections"] if one["id"] == "anna")
    synced = {"status": "SYNCED", "reason": None, "first_at": 0, "last_at": 30, "count": 2}
    revoked = {"status": "ERROR", "reason": "TOKEN_REVOKED", "first_at": 60, "last_at": 60, "count": 1}
    assert anna["runs"] == [synced, revoked]
    for secret in ("canary", CANARY_EMAIL, headers["Authorization"]):
        assert secret not in reply.body.decode()


async def test_the_moments_of_the_requests_are_there_when_asked_for(
    ask: Ask, ask_connection: Ask, clock: HandClock, simulator: Simulator
) -> None:
    await ask_connection()
    clock.advance(2.5)
    await ask_connection()
    account: dict[str, Any] = (await ask("/_simulator/record?moments=true")).json

    assert account["sites"]["north"]["moments"] == [[0, "connection"], [2.5, "connection"]]
    asked = {one["id"]: one["requests"] for one in account["connections"]}
    shown = {
        "address": simulator.base_url.removeprefix("http://"),
        "told": {"status": "SYNCED", "reason": None},
    }
    assert asked["anna"] == [{**shown, "arrived": 0, "ended": 0}, {**shown, "arrived": 2.5, "ended": 2.5}]
    assert asked["ben"] == []
    assert account["began"] == str(simulator.began).replace(" ", "T")
