"""Keys, tokens and what each of them opens, over a real socket."""

from typing import Any

import aiohttp
import pytest

from monitor.simulator import Connection, OAuthClient, Scenario, Simulator, Site
from tests.simulator.talk import CONNECTIONS, EMPTY_ENVELOPE, Ask, HandClock, code_of


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"wix-site-id": "site-north"},
        {"Authorization": "canary-key-north"},
        {"Authorization": "canary-key-north", "wix-site-id": "site-south"},
        {"Authorization": "another", "wix-site-id": "site-north"},
        {"Authorization": "Bearer canary-key-north", "wix-site-id": "site-north"},
        {"Authorization": "canary-secret", "wix-site-id": "site-north"},
    ],
)
async def test_a_missing_or_wrong_key_is_a_403_with_an_empty_envelope(
    headers: dict[str, str], ask_connection: Ask
) -> None:
    reply = await ask_connection(headers=headers)

    assert (reply.status, reply.json) == (403, EMPTY_ENVELOPE)


@pytest.mark.parametrize("scheme", ["", "Bearer "])
async def test_a_token_opens_its_own_site_raw_or_as_bearer(
    scheme: str, ask_connection: Ask, ask_token: Ask
) -> None:
    headers = {"Authorization": scheme + (await ask_token()).json["access_token"]}

    assert (await ask_connection("ben", headers)).json["connection"]["id"] == "ben"
    assert (await ask_connection("anna", headers)).status == 404
    assert (await ask_connection("gone", headers)).status == 404


async def test_a_token_together_with_a_site_id_confuses_wix(ask_connection: Ask, ask_token: Ask) -> None:
    token = (await ask_token()).json["access_token"]
    reply = await ask_connection("ben", {"Authorization": token, "wix-site-id": "site-south"})

    assert (reply.status, code_of(reply.json)) == (403, "UNAUTHORIZED")


async def test_each_token_is_new_and_all_are_valid(ask_connection: Ask, ask_token: Ask) -> None:
    granted = [(await ask_token()).json for _ in range(3)]

    assert all(body | {"access_token": ""} == granted[0] | {"access_token": ""} for body in granted)
    assert granted[0] | {"access_token": ""} == {
        "access_token": "",
        "token_type": "Bearer",
        "expires_in": 14400,
    }
    tokens = [body["access_token"] for body in granted]
    assert len(set(tokens)) == 3
    assert {(await ask_connection("ben", {"Authorization": token})).status for token in tokens} == {200}


async def test_an_expired_token_is_a_401_from_its_very_second(
    ask_connection: Ask, ask_token: Ask, clock: HandClock
) -> None:
    headers = {"Authorization": (await ask_token()).json["access_token"]}
    clock.advance(14_399)
    assert (await ask_connection("ben", headers)).status == 200
    clock.advance(1)
    reply = await ask_connection("ben", headers)

    assert (reply.status, code_of(reply.json)) == (401, "UNAUTHENTICATED")


@pytest.mark.parametrize(("site", "status"), [("south", 401), (None, 401), ("north", 200)])
async def test_a_revoked_token_is_a_401(
    site: str | None, status: int, ask_connection: Ask, ask_token: Ask, simulator: Simulator
) -> None:
    headers = {"Authorization": (await ask_token()).json["access_token"]}

    assert simulator.revoke_tokens(site) == (status == 401)
    assert (await ask_connection("ben", headers)).status == status


async def test_a_token_of_another_simulator_is_a_401_too(ask_connection: Ask) -> None:
    assert (await ask_connection("ben", {"Authorization": "OauthNG.JWS.unheard-of"})).status == 401


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_id": "another"}, 401, "invalid_client"),
        ({"client_id": "canary-key-north", "client_secret": "site-north"}, 401, "invalid_client"),
        ({"instance_id": "another"}, 400, "invalid_grant"),
        ({"instance_id": None}, 400, "invalid_grant"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"grant_type": None}, 400, "invalid_request"),
        ({"client_id": None}, 400, "invalid_request"),
        ({"client_secret": 7}, 400, "invalid_request"),
    ],
)
async def test_the_token_endpoint_refuses_as_rfc_6749_has_it(
    changes: dict[str, Any], status: int, error: str, ask_token: Ask
) -> None:
    reply = await ask_token(**changes)

    assert (reply.status, reply.json["error"]) == (status, error)
    assert "canary" not in reply.body.decode()


@pytest.mark.parametrize(
    "body",
    [
        {"json": []},
        {"data": b"{", "headers": {"Content-Type": "application/json"}},
        {"data": {"client_id": "app"}},
    ],
)
async def test_a_malformed_token_request_is_an_invalid_request(body: dict[str, Any], ask: Ask) -> None:
    reply = await ask("/oauth2/token", "POST", **body)

    assert (reply.status, reply.json["error"]) == (400, "invalid_request")


async def test_one_app_on_two_sites_is_told_apart_by_its_instance(session: aiohttp.ClientSession) -> None:
    sites = [
        Site(
            name=name,
            oauth=OAuthClient(client_id="app", client_secret="s", instance_id=name),
            connections=(Connection(id=f"at-{name}"),),
        )
        for name in ("east", "west")
    ]
    asked = {
        "grant_type": "client_credentials",
        "client_id": "app",
        "client_secret": "s",
        "instance_id": "west",
    }
    async with Simulator(Scenario(sites=tuple(sites))) as simulator:
        async with session.post(f"{simulator.base_url}/oauth2/token", json=asked) as answer:
            headers = {"Authorization": (await answer.json())["access_token"]}
        found = []
        for name in ("east", "west"):
            async with session.get(f"{simulator.base_url}{CONNECTIONS}at-{name}", headers=headers) as answer:
                found.append(answer.status)

    assert found == [404, 200]


async def test_a_refusal_may_take_the_other_shape(scenario: Scenario, session: aiohttp.ClientSession) -> None:
    asked = {"grant_type": "client_credentials", "client_id": "app", "client_secret": "wrong"}
    other = Simulator(scenario.model_copy(update={"token_error_shape": "message"}))
    async with other, session.post(f"{other.base_url}/oauth2/token", json=asked) as answer:
        assert (answer.status, await answer.json()) == (401, {"message": "invalid_client"})
