"""Each fault, as a client meets it on a real socket."""

import asyncio
import gzip
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, get_args

import aiohttp
import pytest

from monitor.simulator import Fault, Scenario, Simulator
from monitor.simulator.faults import BOMB, HUGE, told
from monitor.simulator.scenario import Kind
from monitor.simulator.world import Shown
from tests.simulator.talk import CONNECTIONS, KEY, Ask, HandClock, OpenRaw, Reply

A_MOMENT = aiohttp.ClientTimeout(total=0.15)


def test_every_kind_of_fault_has_a_test_here() -> None:
    tested = {Fault.model_validate(fault).kind for fault, *_ in (*WHOLE, *BROKEN, *ON_TOKENS)}

    assert tested | {"latency"} == set(get_args(Kind))


@pytest.mark.parametrize(
    ("fault", "status", "body"),
    [
        ({"status": 500}, 500, {"message": "", "details": {}}),
        ({"status": 403}, 403, {"message": "", "details": {}}),
        ({"status": 401}, 401, "UNAUTHENTICATED"),
        ({"status": 429}, 429, "RESOURCE_EXHAUSTED"),
        ({"status": 403, "code": "PREMIUM_FEATURE_NOT_ENABLED"}, 403, "PREMIUM_FEATURE_NOT_ENABLED"),
        ({"status": 404, "code": ""}, 404, {"message": "", "details": {}}),
        ({"status": 400, "body": "message", "code": "odd"}, 400, {"message": "odd"}),
        ({"status": 502, "body": "html"}, 502, None),
        ({"status": 503, "body": "empty"}, 503, None),
        ({"status": 204}, 204, None),
    ],
)
async def test_a_status_comes_with_the_body_asked_for(
    fault: dict[str, Any], status: int, body: Any, ask_connection: Ask, simulator: Simulator
) -> None:
    simulator.set_fault(fault)
    reply = await ask_connection()

    assert reply.status == status
    if isinstance(body, str):
        assert reply.json["details"]["applicationError"]["code"] == body
    else:
        assert reply.json == body
    assert (reply.body == b"") == (status in (204, 503))
    assert (b"<html>" in reply.body) == (status == 502)


@pytest.mark.parametrize("text", ["7", "Fri, 31 Dec 2027 23:59:59 GMT", "soon", ""])
async def test_a_retry_after_is_sent_word_for_word(
    text: str, ask_connection: Ask, simulator: Simulator
) -> None:
    simulator.set_fault({"status": 429, "retry_after": text})

    assert (await ask_connection()).headers["retry-after"] == text


def is_whole_200(reply: Reply) -> bool:
    return reply.status == 200 and reply.json["connection"]["id"] == "anna"


def is_cut_json(reply: Reply) -> bool:
    with pytest.raises(json.JSONDecodeError):
        json.loads(reply.body)
    return reply.status == 200 and reply.body.startswith(b'{"connection"')


def is_not_utf8(reply: Reply) -> bool:
    with pytest.raises(UnicodeDecodeError):
        reply.body.decode()
    return json.loads(reply.body.decode("latin-1"))["connection"]["status"].startswith("SYNC")  # type: ignore[no-any-return]


def is_all_null(reply: Reply) -> bool:
    connection = reply.json["connection"]
    return (
        connection.pop("id") == "anna"
        and connection.keys() > {"status", "syncConfig"}
        and not any(connection.values())
    )


def is_bomb(reply: Reply) -> bool:
    unpacked = gzip.decompress(reply.body)
    return (
        reply.headers["content-encoding"] == "gzip" and len(reply.body) < BOMB // 500 and len(unpacked) > BOMB
    )


WHOLE: list[tuple[Any, Callable[[Reply], bool]]] = [
    ("not_found_html", lambda reply: (reply.status, reply.json) == (404, None) and b"<html>" in reply.body),
    ("not_found_other_json", lambda reply: (reply.status, reply.json) == (404, {"message": "no route"})),
    ("not_json", lambda reply: (reply.status, reply.json) == (200, None) and b"<html>" in reply.body),
    ("truncated_json", is_cut_json),
    ("not_utf8", is_not_utf8),
    ("null_fields", is_all_null),
    ("no_connection", lambda reply: (reply.status, reply.json) == (200, {})),
    ("wrong_id", lambda reply: reply.status == 200 and reply.json["connection"]["id"] != "anna"),
    ("unknown_status", lambda reply: bool(reply.json["connection"]["status"] == "HIBERNATING")),
    ({"unknown_status": "MOVED"}, lambda reply: bool(reply.json["connection"]["status"] == "MOVED")),
    (
        {"redirect": "http://else.invalid/x"},
        lambda reply: reply.headers["location"] == "http://else.invalid/x",
    ),
    ({"drip": "1ms"}, is_whole_200),
    ("huge", lambda reply: len(reply.body) > HUGE and is_whole_200(reply)),
    ("gzip_bomb", is_bomb),
]


@pytest.mark.parametrize(("fault", "is_met"), WHOLE, ids=lambda one: "" if callable(one) else str(one))
async def test_an_answer_that_is_wrong_in_itself_arrives_whole(
    fault: Any, is_met: Callable[[Reply], bool], ask: Ask, simulator: Simulator
) -> None:
    simulator.set_fault(fault)

    assert is_met(await ask(f"{CONNECTIONS}anna", headers=KEY))


BROKEN: list[tuple[str, type[Exception]]] = [
    ("truncated", aiohttp.ClientPayloadError),
    ("reset", aiohttp.ClientOSError),
    ("close", aiohttp.ServerDisconnectedError),
    ("hang", TimeoutError),
    ("hang_after_headers", TimeoutError),
    ("drip", TimeoutError),
    ("endless", TimeoutError),
]


@pytest.mark.parametrize(("fault", "error"), BROKEN)
async def test_a_fault_on_the_wire_breaks_the_answer_off(
    fault: str, error: type[Exception], ask_connection: Ask, simulator: Simulator
) -> None:
    simulator.set_fault(fault)
    with pytest.raises(error):
        await ask_connection(timeout=A_MOMENT)

    assert simulator.record.site("north").faults == {fault: 1}
    assert simulator.record.runs("anna") == ()


async def test_a_reset_is_one_and_no_orderly_end(open_raw: OpenRaw, simulator: Simulator) -> None:
    simulator.set_fault("reset")
    reader = await open_raw()

    with pytest.raises(ConnectionResetError):
        await reader.read()


async def test_headers_come_before_a_hang_after_them(open_raw: OpenRaw, simulator: Simulator) -> None:
    simulator.set_fault("hang_after_headers")
    head = await (await open_raw()).readuntil(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_an_endless_answer_outlasts_a_huge_one(open_raw: OpenRaw, simulator: Simulator) -> None:
    simulator.set_fault("endless")
    reader = await open_raw()

    assert len(await reader.readexactly(2 * HUGE)) == 2 * HUGE


async def test_latency_passes_before_the_true_answer_and_before_any_fault(
    ask_connection: Ask, simulator: Simulator
) -> None:
    loop = asyncio.get_running_loop()
    for fault, status in (({"latency": "60ms"}, 200), ({"status": 503, "latency": "60ms"}, 503)):
        simulator.set_fault(fault)
        began = loop.time()
        assert (await ask_connection()).status == status
        assert loop.time() - began >= 0.06


async def test_the_scenarios_own_latency_is_in_every_answer(
    scenario: Scenario, session: aiohttp.ClientSession
) -> None:
    slow = Simulator(scenario.model_copy(update={"latency": timedelta(milliseconds=60)}))
    began = asyncio.get_running_loop().time()
    async with slow, session.get(f"{slow.base_url}{CONNECTIONS}anna", headers=KEY) as answer:
        assert answer.status == 200

    assert asyncio.get_running_loop().time() - began >= 0.06


ON_TOKENS: list[tuple[Any, int, dict[str, Any]]] = [
    ("refuse", 401, {"error": "invalid_client", "error_description": "Refused by the scenario."}),
    ("message_shape", 401, {"message": "invalid_client"}),
    ("null_fields", 200, {"access_token": None, "token_type": None, "expires_in": None}),
    ({"status": 500}, 500, {"message": "", "details": {}}),
    *(({"expires_in": odd}, 200, {"expires_in": odd}) for odd in (0, -1, "soon", None, 1e300)),
    ("expires_in", 200, {"expires_in": None}),
]


@pytest.mark.parametrize(("fault", "status", "fields"), ON_TOKENS)
async def test_the_token_endpoint_has_faults_of_its_own(
    fault: Any, status: int, fields: dict[str, Any], ask_token: Ask, ask_connection: Ask, simulator: Simulator
) -> None:
    simulator.set_fault(fault, endpoint="token")
    reply = await ask_token()

    assert (reply.status, reply.json) == (status, reply.json | fields)
    assert (await ask_connection()).status == 200


async def test_a_token_fault_changes_its_field_and_nothing_else(ask_token: Ask, simulator: Simulator) -> None:
    simulator.set_fault({"expires_in": "soon"})
    told = (await ask_token()).json

    assert (told.keys(), told["token_type"]) == ({"access_token", "token_type", "expires_in"}, "Bearer")


@pytest.mark.parametrize("fault", ["not_json", "truncated_json", "not_utf8"])
async def test_an_unreadable_token_answer_is_unreadable(
    fault: str, ask_token: Ask, simulator: Simulator
) -> None:
    simulator.set_fault(fault, endpoint="token")
    reply = await ask_token()

    with pytest.raises(ValueError, match=r"."):
        json.loads(reply.body)


async def test_a_fault_meets_those_it_is_for_whoever_asks(ask_connection: Ask, simulator: Simulator) -> None:
    simulator.set_fault({"status": 503}, ["bare"])
    simulator.set_fault({"status": 500}, sites=["south"])

    assert [(await ask_connection(name)).status for name in ("anna", "bare")] == [200, 503]
    assert (await ask_connection("bare", {})).status == 503
    assert (await ask_connection("anna", {})).status == 403


async def test_the_fault_set_last_goes_first_and_each_can_be_ended(
    ask_connection: Ask, simulator: Simulator
) -> None:
    simulator.set_fault({"status": 501}, ["anna"])
    simulator.set_fault({"status": 502})
    both = (await ask_connection()).status
    simulator.set_fault({"status": 503}, ["anna"])
    simulator.set_fault({"status": 504}, ["anna"])
    replaced = (await ask_connection()).status
    simulator.set_fault(None, ["anna"])
    general = (await ask_connection()).status
    simulator.set_fault(None)

    assert (both, replaced, general, (await ask_connection()).status) == (502, 504, 502, 200)


async def test_a_scripted_fault_comes_and_goes_with_the_clock(
    scenario: Scenario, clock: HandClock, session: aiohttp.ClientSession
) -> None:
    window = {"from": "30s", "until": "50s", "repeat": "2m", "sites": ["north"], "fault": {"status": 503}}
    scripted = Scenario.model_validate({"sites": scenario.sites, "faults": [window]})
    statuses = []
    async with Simulator(scripted, clock) as simulator:
        for seconds in (29.9, 0.1, 19.9, 0.1, 99.9, 0.1):
            clock.advance(seconds)
            async with session.get(f"{simulator.base_url}{CONNECTIONS}bare", headers=KEY) as answer:
                statuses.append(answer.status)

    assert statuses == [200, 503, 503, 200, 200, 503]


SHOWN = Shown("ERROR", "TOKEN_REVOKED")


@pytest.mark.parametrize(
    ("fault", "shown"),
    [
        ({"unknown_status": "MOVED"}, Shown("MOVED", "TOKEN_REVOKED")),
        ("null_fields", Shown(None)),
        ("drip", SHOWN),
        ({"status": 404}, Shown("NOT_FOUND")),
        ({"status": 404, "body": "message"}, None),
        ({"status": 503}, None),
        *(
            (kind, None)
            for kind in ("huge", "wrong_id", "no_connection", "not_found_other_json", "truncated_json")
        ),
    ],
)
def test_the_record_holds_what_a_faulty_answer_tells(fault: Any, shown: Shown | None) -> None:
    assert told(Fault.model_validate(fault), SHOWN) == shown
