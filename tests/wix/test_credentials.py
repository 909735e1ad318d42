"""API keys and tokens over real sockets: how often they are asked for, renewed, shared and shown."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

from monitor.config import ApiKeyCredential, OAuthCredential, SecretSource
from monitor.core.model import FailureReason, Observation, Observed, PollFailed
from monitor.errors import WithheldError
from monitor.wix.client import WixClient
from monitor.wix.pace import Slots
from tests.wix.conftest import OpenParty, Party
from tests.wix.servers import (
    API_KEY,
    CANARIES,
    CLIENT_SECRET,
    TOKEN,
    Play,
    RawServer,
    Talk,
    api_settings,
    as_json,
    connection_body,
    envelope,
    good,
    hang,
    id_in,
    key_credential,
    message,
    oauth_credential,
    says,
    until,
)

LIFE = 14400.0


def nothing() -> None:
    """Nobody counts the starts."""


async def poll(client: WixClient, connection_id: str = "anna") -> Observation:
    return await client.get_connection(connection_id, on_started=nothing)


def begin(client: WixClient) -> asyncio.Task[Observation]:
    return asyncio.get_running_loop().create_task(poll(client))


class TokenOffice:
    """Gives a new token at each request, and lets polls in with those it still honours."""

    def __init__(self) -> None:
        self.given: list[str] = []
        self.honoured: set[str] = set()
        self.life: Any = LIFE
        self.refusal: bytes | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, talk: Talk) -> None:
        if talk.heard.method == "POST":
            await self.gate.wait()
            await says(self.refusal or message(200, self._grant()))(talk)
        elif talk.heard.all("Authorization")[0] in self.honoured:
            await says(message(200, connection_body(id_in(talk.heard))))(talk)
        else:
            await says(message(401, envelope("UNAUTHENTICATED")))(talk)

    def _grant(self) -> bytes:
        self.given.append(f"{TOKEN}-{len(self.given)}")
        self.honoured.add(self.given[-1])
        return as_json({"access_token": self.given[-1], "token_type": "Bearer", "expires_in": self.life})


@pytest.fixture
def office() -> TokenOffice:
    return TokenOffice()


@pytest.fixture
async def server(office: TokenOffice) -> AsyncIterator[RawServer]:
    async with RawServer(office) as server:
        yield server


@pytest.fixture
async def party(server: RawServer, open_party: OpenParty, tmp_path: Path) -> Party:
    return await open_party(api_settings(server.url), oauth_credential(tmp_path))


# --- tokens ---------------------------------------------------------------------------------------------


async def test_one_token_serves_many_polls(party: Party, server: RawServer) -> None:
    for _ in range(20):
        assert isinstance(await poll(party.client), Observed)
    assert len(server.token_requests()) == 1
    assert len(party.renewals) == 1
    assert {heard.all("Authorization")[0] for heard in server.polls()} == {f"{TOKEN}-0"}


async def test_a_token_is_asked_for_as_documented(party: Party, server: RawServer) -> None:
    await poll(party.client)
    (asked,) = server.token_requests()
    assert asked.line == "POST /oauth2/token HTTP/1.1"
    assert asked.all("Content-Type") == ["application/json"]
    assert asked.all("Authorization") == asked.all("wix-site-id") == asked.all("Cookie") == []
    assert json.loads(asked.body) == {
        "grant_type": "client_credentials",
        "client_id": "the-app",
        "client_secret": CLIENT_SECRET,
        "instance_id": "the-instance",
    }


async def test_a_headless_app_names_no_instance(
    server: RawServer, open_party: OpenParty, tmp_path: Path
) -> None:
    party = await open_party(api_settings(server.url), oauth_credential(tmp_path, instance_id=None))
    await poll(party.client)
    assert "instance_id" not in json.loads(server.token_requests()[0].body)


@pytest.mark.parametrize(
    ("life", "kept", "renewed"),
    [
        (14400, 13_790, 13_810),  # ten minutes before the end
        (900, 805, 815),  # a tenth before it
        (10**12, 86_400 - 610, 86_400 - 590),  # a day, whatever the server says
        (200, 120, 130),  # 75 s before it, in which a poll may wait for its budget
        (100, 45, 55),  # half of a life that is shorter
    ],
)
async def test_a_token_is_renewed_before_it_ends(
    party: Party, office: TokenOffice, life: float, kept: float, renewed: float
) -> None:
    office.life = life
    await poll(party.client)
    party.clock.ahead = kept
    await poll(party.client)
    assert len(office.given) == 1
    party.clock.ahead = renewed
    assert isinstance(await poll(party.client), Observed)
    assert len(office.given) == 2


async def test_fifty_waiting_polls_share_one_renewal(
    party: Party, server: RawServer, office: TokenOffice
) -> None:
    office.gate.clear()
    polls = [begin(party.client) for _ in range(50)]
    await until(lambda: bool(server.token_requests()))
    office.gate.set()
    assert all(isinstance(observation, Observed) for observation in await asyncio.gather(*polls))
    assert len(server.token_requests()) == 1
    assert party.client.pace.requests == 51


async def test_a_failed_renewal_is_shared_and_the_next_poll_tries_anew(
    party: Party, server: RawServer, office: TokenOffice
) -> None:
    office.refusal = message(503, envelope())
    office.gate.clear()
    polls = [begin(party.client) for _ in range(50)]
    await until(lambda: bool(server.token_requests()))
    office.gate.set()
    failed = await asyncio.gather(*polls)
    assert len(server.token_requests()) == 1
    for observation in failed:
        assert isinstance(observation, PollFailed)
        assert (observation.reason, observation.http_status) == (FailureReason.SERVER_ERROR, 503)
        party.client.pace.settle(observation, party.clock.now(), trial=False)
    assert party.client.pace.state.failures_in_a_row == 1
    assert party.client.pace.state.outage is None
    assert dict(party.client.pace.failures) == {FailureReason.SERVER_ERROR: 1}
    office.refusal = None
    assert isinstance(await poll(party.client), Observed)
    assert len(server.token_requests()) == 2


async def test_a_cancelled_poll_does_not_cancel_the_renewal_that_others_wait_for(
    party: Party, server: RawServer, office: TokenOffice
) -> None:
    office.gate.clear()
    polls = [begin(party.client) for _ in range(3)]
    await until(lambda: bool(server.token_requests()))
    polls[0].cancel()  # the one that began it
    await asyncio.gather(polls[0], return_exceptions=True)
    office.gate.set()
    assert all(isinstance(observation, Observed) for observation in await asyncio.gather(*polls[1:]))
    assert len(server.token_requests()) == 1


async def test_a_renewal_that_nobody_waits_for_any_more_still_serves_the_next_poll(
    party: Party, server: RawServer, office: TokenOffice
) -> None:
    office.gate.clear()
    only = begin(party.client)
    await until(lambda: bool(server.token_requests()))
    only.cancel()
    await asyncio.gather(only, return_exceptions=True)
    office.gate.set()
    await until(lambda: bool(party.renewals))
    assert isinstance(await poll(party.client), Observed)
    assert len(server.token_requests()) == 1


async def test_closing_ends_a_renewal_under_way(party: Party, server: RawServer, office: TokenOffice) -> None:
    office.gate.clear()
    waiting = begin(party.client)
    await until(lambda: bool(server.token_requests()))
    await party.client.close()
    assert (await asyncio.gather(waiting, return_exceptions=True))[0].__class__ is asyncio.CancelledError
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "token renewal"]


async def test_while_renewals_fail_the_old_token_serves_on_and_half_a_minute_lies_between_them(
    party: Party, server: RawServer, office: TokenOffice
) -> None:
    await poll(party.client)
    office.refusal = message(503, envelope())
    party.clock.ahead = LIFE - 500  # inside the margin of ten minutes
    for _ in range(5):
        assert isinstance(await poll(party.client), Observed)
    assert len(server.token_requests()) == 2
    party.clock.ahead += 31
    assert isinstance(await poll(party.client), Observed)
    assert len(server.token_requests()) == 3
    assert dict(party.client.pace.failures) == {FailureReason.SERVER_ERROR: 2}
    party.clock.ahead = LIFE + 1
    observation = await poll(party.client)
    assert isinstance(observation, PollFailed)
    assert (observation.reason, observation.detail) == (FailureReason.SERVER_ERROR, "token: none given")
    assert len(server.token_requests()) == 4


async def test_a_renewal_that_is_told_to_wait_is_no_reason_to_go_on_with_the_old_token(
    party: Party, office: TokenOffice
) -> None:
    await poll(party.client)
    office.refusal = message(429, envelope(), Retry_After="17")
    party.clock.ahead = LIFE - 500
    observation = await poll(party.client)
    assert isinstance(observation, PollFailed)
    assert (observation.reason, observation.http_status) == (FailureReason.RATE_LIMITED, 429)


async def test_a_refused_renewal_ends_the_old_token_too(
    party: Party, server: RawServer, office: TokenOffice
) -> None:
    await poll(party.client)
    office.refusal = message(401, as_json({"error": "invalid_client"}))
    party.clock.ahead = LIFE - 500
    for _ in range(2):
        observation = await poll(party.client)
        assert isinstance(observation, PollFailed)
        assert observation.refused
    assert len(server.token_requests()) == 3
    assert len(server.polls()) == 1


async def test_a_poll_whose_token_ends_while_it_waits_for_its_turn_goes_with_a_new_one(
    server: RawServer, open_party: OpenParty, tmp_path: Path
) -> None:
    slots = Slots(1)
    party = await open_party(api_settings(server.url), oauth_credential(tmp_path), slots=slots)
    await poll(party.client)
    held = await slots.take(lambda: False)
    waiting = begin(party.client)
    for _ in range(20):
        await asyncio.sleep(0)
    party.clock.ahead = LIFE + 1
    for slot in held:
        slot.release()
    assert isinstance(await waiting, Observed)
    assert [heard.all("Authorization")[0] for heard in server.polls()] == [f"{TOKEN}-0", f"{TOKEN}-1"]
    assert dict(party.client.pace.failures) == {}


async def test_a_token_that_ends_before_every_turn_is_sent_at_the_third(
    open_party: OpenParty, tmp_path: Path, server: RawServer, office: TokenOffice
) -> None:
    party = await open_party(api_settings(server.url), oauth_credential(tmp_path))
    office.life = 1e-9
    assert isinstance(await poll(party.client), Observed)
    assert len(server.token_requests()) == 3
    assert len(server.polls()) == 1


# --- refused tokens -------------------------------------------------------------------------------------


async def test_after_a_401_the_token_is_renewed_once_and_the_poll_retried_once(
    party: Party, server: RawServer, office: TokenOffice
) -> None:
    await poll(party.client)
    office.honoured.clear()
    assert isinstance(await poll(party.client), Observed)
    assert len(server.token_requests()) == 2
    assert [heard.all("Authorization")[0][-2:] for heard in server.polls()] == ["-0", "-0", "-1"]
    assert dict(party.client.pace.failures) == {FailureReason.UNAUTHORIZED: 1}


async def test_the_start_of_a_poll_is_told_once_although_it_is_retried(
    party: Party, office: TokenOffice
) -> None:
    await poll(party.client)
    office.honoured.clear()
    started: list[None] = []
    await party.client.get_connection("anna", on_started=lambda: started.append(None))
    assert len(started) == 1


async def test_many_polls_refused_together_share_one_renewal(
    party: Party, server: RawServer, office: TokenOffice
) -> None:
    await poll(party.client)
    office.honoured.clear()
    observations = await asyncio.gather(*(poll(party.client) for _ in range(30)))
    assert all(isinstance(observation, Observed) for observation in observations)
    assert len(server.token_requests()) == 2


async def test_a_late_401_of_an_old_token_leaves_the_new_one_alone(
    party: Party, server: RawServer, office: TokenOffice
) -> None:
    await poll(party.client)
    go = asyncio.Event()

    async def hold_the_first(talk: Talk) -> None:
        server.play = office
        await go.wait()
        await says(message(401, envelope("UNAUTHENTICATED")))(talk)

    server.play = hold_the_first
    slow = begin(party.client)
    await until(lambda: len(server.polls()) == 2)
    party.clock.ahead = LIFE
    await poll(party.client)
    assert len(server.token_requests()) == 2
    go.set()
    assert isinstance(await slow, Observed)
    assert len(server.token_requests()) == 2


async def refuse_all(talk: Talk) -> None:
    play = good if talk.heard.method == "POST" else says(message(401, envelope("UNAUTHENTICATED")))
    await play(talk)


async def test_a_storm_of_401s_is_no_storm_of_renewals(open_party: OpenParty, tmp_path: Path) -> None:
    async with RawServer(refuse_all) as server:
        party = await open_party(api_settings(server.url), oauth_credential(tmp_path))
        for _ in range(5):
            for observation in await asyncio.gather(*(poll(party.client) for _ in range(10))):
                assert isinstance(observation, PollFailed)
                assert (observation.reason, observation.http_status) == (FailureReason.UNAUTHORIZED, 401)
                assert not observation.refused
        assert len(server.token_requests()) == 2  # the first, and the one that the first 401 earned
        assert len(server.polls()) == 100  # each asked once more, never twice
        party.clock.ahead = 31
        await poll(party.client)
        assert len(server.token_requests()) == 3


async def test_the_trial_after_a_refusal_fetches_a_new_token_first(
    open_party: OpenParty, tmp_path: Path
) -> None:
    async with RawServer(refuse_all) as server:
        party = await open_party(api_settings(server.url), oauth_credential(tmp_path))
        pace = party.client.pace
        for _ in range(5):
            pace.settle(await poll(party.client), party.clock.now(), trial=False)
        assert pace.state.outage is not None
        before = len(server.token_requests())
        server.play = good
        trial = await party.client.get_connection("anna", on_started=nothing, trial=True)
        assert isinstance(trial, Observed)
        assert len(server.token_requests()) == before + 1


async def test_the_trial_after_a_timeout_keeps_its_token(open_party: OpenParty, tmp_path: Path) -> None:
    async with RawServer(good) as server:
        party = await open_party(api_settings(server.url), oauth_credential(tmp_path))
        await poll(party.client)
        for _ in range(5):
            party.client.pace.settle(PollFailed(FailureReason.TIMEOUT), party.clock.now(), trial=False)
        await party.client.get_connection("anna", on_started=nothing, trial=True)
        assert len(server.token_requests()) == 1


@pytest.mark.parametrize(
    ("status", "body", "reason", "refused", "detail"),
    [
        (401, {"error": "invalid_client"}, FailureReason.UNAUTHORIZED, True, "token: invalid_client"),
        (400, {"error": "invalid_grant"}, FailureReason.UNAUTHORIZED, True, "token: invalid_grant"),
        (401, {"message": "invalid_client"}, FailureReason.UNAUTHORIZED, True, "token: invalid_client"),
        (
            403,
            {"message": "", "details": {"applicationError": {"code": "APP_NOT_INSTALLED"}}},
            FailureReason.UNAUTHORIZED,
            True,
            "token: APP_NOT_INSTALLED",
        ),
        (403, {"message": "", "details": {}}, FailureReason.UNAUTHORIZED, True, "token: refused"),
        (401, {"error": f"echo: {CLIENT_SECRET}"}, FailureReason.UNAUTHORIZED, True, "token: refused"),
        (500, {"message": "", "details": {}}, FailureReason.SERVER_ERROR, False, "token: none given"),
        (404, {"message": "", "details": {}}, FailureReason.REJECTED, False, "token: none given"),
        (302, {}, FailureReason.BAD_RESPONSE, False, "token: none given"),
        (
            201,
            {"access_token": TOKEN, "expires_in": 9},
            FailureReason.BAD_RESPONSE,
            False,
            "token: none given",
        ),
    ],
)
async def test_a_refusal_is_read_in_both_shapes(
    party: Party,
    office: TokenOffice,
    status: int,
    body: dict[str, object],
    reason: FailureReason,
    refused: bool,  # noqa: FBT001  a column of the table
    detail: str,
) -> None:
    office.refusal = message(status, as_json(body))
    observation = await poll(party.client)
    assert isinstance(observation, PollFailed)
    assert (observation.reason, observation.refused, observation.detail) == (reason, refused, detail)
    assert observation.http_status == status
    assert dict(party.client.pace.failures) == {reason: 1}
    assert CLIENT_SECRET not in repr(observation)


async def test_a_429_of_the_token_endpoint_carries_its_wait(party: Party, office: TokenOffice) -> None:
    office.refusal = message(429, envelope(), Retry_After="17")
    observation = await poll(party.client)
    assert isinstance(observation, PollFailed)
    assert observation.reason is FailureReason.RATE_LIMITED
    assert observation.retry_after is not None
    assert observation.retry_after.total_seconds() == 17


@pytest.mark.parametrize(
    "body",
    [
        as_json({"access_token": "canary\nSet-Cookie: x", "expires_in": 60}),
        as_json({"access_token": "", "expires_in": 60}),
        as_json({"access_token": "  ", "expires_in": 60}),
        as_json({"access_token": "tökèn", "expires_in": 60}),
        as_json({"access_token": 7, "expires_in": 60}),
        as_json({"access_token": TOKEN, "expires_in": "60"}),
        as_json({"access_token": TOKEN, "expires_in": 0}),
        as_json({"access_token": TOKEN, "expires_in": -1}),
        as_json({"access_token": TOKEN}),
        as_json([TOKEN]),
        b'{"access_token": "' + TOKEN.encode(),
        b"",
        b"\xff\xfe",
    ],
)
async def test_a_token_that_is_none_is_not_used(
    party: Party, server: RawServer, office: TokenOffice, body: bytes
) -> None:
    office.refusal = message(200, body)
    observation = await poll(party.client)
    assert isinstance(observation, PollFailed)
    assert (observation.reason, observation.http_status) == (FailureReason.BAD_RESPONSE, 200)
    assert not observation.refused
    assert server.polls() == []
    assert party.renewals == []


# --- while the site is left alone -----------------------------------------------------------------------


async def test_no_token_is_asked_for_while_the_site_is_down(party: Party, server: RawServer) -> None:
    party.client.pace.settle(
        PollFailed(FailureReason.UNAUTHORIZED, refused=True), party.clock.now(), trial=False
    )
    with pytest.raises(WithheldError):
        await poll(party.client)
    assert server.heard == []


async def test_a_401_stands_where_the_site_went_down_in_between(
    open_party: OpenParty, tmp_path: Path
) -> None:
    party: Party

    async def refuse_and_go_down(talk: Talk) -> None:
        if talk.heard.method == "GET":
            down = PollFailed(FailureReason.UNAUTHORIZED, refused=True)
            party.client.pace.settle(down, party.clock.now(), trial=False)
        await refuse_all(talk)

    async with RawServer(refuse_and_go_down) as server:
        party = await open_party(api_settings(server.url), oauth_credential(tmp_path))
        observation = await poll(party.client)
        assert isinstance(observation, PollFailed)
        assert observation.reason is FailureReason.UNAUTHORIZED
        assert [heard.method for heard in server.heard] == ["POST", "GET"]


# --- secrets in files -----------------------------------------------------------------------------------


def secrets_sent(server: RawServer) -> list[str]:
    return [json.loads(heard.body)["client_secret"] for heard in server.token_requests()]


async def test_a_rotated_client_secret_is_used_for_the_next_token(
    party: Party, server: RawServer, tmp_path: Path
) -> None:
    await poll(party.client)
    (tmp_path / "client-secret").write_text("canary-new")
    party.clock.ahead = LIFE
    await poll(party.client)
    assert secrets_sent(server) == [CLIENT_SECRET, "canary-new"]
    assert {CLIENT_SECRET, "canary-new", f"{TOKEN}-0", f"{TOKEN}-1"} <= set(party.hidden)


@asynccontextmanager
async def while_a_token_request_waits(
    server: RawServer, open_party: OpenParty, tmp_path: Path
) -> AsyncIterator[None]:
    """Until its turn comes; then it succeeds."""
    slots = Slots(1)
    party = await open_party(api_settings(server.url), oauth_credential(tmp_path), slots=slots)
    held = await slots.take(lambda: False)
    waiting = begin(party.client)
    for _ in range(20):
        await asyncio.sleep(0)
    yield
    for slot in held:
        slot.release()
    assert isinstance(await waiting, Observed)


async def test_a_token_request_that_waits_for_its_turn_goes_with_the_secret_of_that_instant(
    server: RawServer, open_party: OpenParty, tmp_path: Path
) -> None:
    async with while_a_token_request_waits(server, open_party, tmp_path):
        (tmp_path / "client-secret").write_text("canary-new")
    assert secrets_sent(server) == ["canary-new"]


async def test_a_token_request_whose_secret_is_gone_at_its_turn_goes_with_the_one_that_was_read(
    server: RawServer, open_party: OpenParty, tmp_path: Path
) -> None:
    async with while_a_token_request_waits(server, open_party, tmp_path):
        (tmp_path / "client-secret").unlink()
    assert secrets_sent(server) == [CLIENT_SECRET]


async def test_a_token_request_sent_again_goes_with_the_secret_of_that_instant(
    party: Party, server: RawServer, office: TokenOffice, tmp_path: Path
) -> None:
    async def cut(talk: Talk) -> None:
        server.play = office
        (tmp_path / "client-secret").write_text("canary-new")
        talk.writer.close()

    await poll(party.client)
    party.clock.ahead = LIFE
    server.play = cut
    assert isinstance(await poll(party.client), Observed)
    assert secrets_sent(server) == [CLIENT_SECRET, CLIENT_SECRET, "canary-new"]


async def test_a_secret_rotated_while_its_token_request_is_refused_is_tried_before_that_counts(
    party: Party, server: RawServer, office: TokenOffice, tmp_path: Path
) -> None:
    async def refuse(talk: Talk) -> None:
        server.play = office
        (tmp_path / "client-secret").write_text("canary-new")
        await says(message(401, as_json({"error": "invalid_client"})))(talk)

    server.play = refuse
    assert isinstance(await poll(party.client), Observed)
    assert secrets_sent(server) == [CLIENT_SECRET, "canary-new"]
    assert dict(party.client.pace.failures) == {FailureReason.UNAUTHORIZED: 1}


async def test_a_new_secret_that_is_refused_too_is_not_tried_again(
    party: Party, server: RawServer, office: TokenOffice, tmp_path: Path
) -> None:
    office.refusal = message(401, as_json({"error": "invalid_client"}))
    office.gate.clear()
    waiting = begin(party.client)
    await until(lambda: bool(server.token_requests()))
    (tmp_path / "client-secret").write_text("canary-new")
    assert party.client.take_new_secret()
    (tmp_path / "client-secret").unlink()
    office.gate.set()
    observation = await waiting
    assert isinstance(observation, PollFailed)
    assert observation.refused
    assert secrets_sent(server) == [CLIENT_SECRET, "canary-new"]


async def test_a_token_earned_while_its_secret_was_replaced_is_renewed_at_the_next_poll(
    party: Party, server: RawServer, office: TokenOffice, tmp_path: Path
) -> None:
    office.gate.clear()
    waiting = begin(party.client)
    await until(lambda: bool(server.token_requests()))
    (tmp_path / "client-secret").write_text("canary-new")
    assert party.client.take_new_secret()
    office.gate.set()
    assert isinstance(await waiting, Observed)
    for _ in range(2):
        assert isinstance(await poll(party.client), Observed)
    assert secrets_sent(server) == [CLIENT_SECRET, "canary-new"]


def only_key(key: str, otherwise: int) -> Play:
    async def play(talk: Talk) -> None:
        right = talk.heard.all("Authorization") == [key]
        await (good if right else says(message(otherwise, envelope())))(talk)

    return play


async def test_a_rotated_api_key_is_used_after_a_401(open_party: OpenParty, tmp_path: Path) -> None:
    async with RawServer(good) as server:
        party = await open_party(api_settings(server.url), key_credential(tmp_path))
        await poll(party.client)
        (tmp_path / "api-key").write_text("canary-new-key\n")
        await poll(party.client)
        server.play = only_key("canary-new-key", 401)
        assert isinstance(await poll(party.client), Observed)
        keys = [heard.all("Authorization") for heard in server.polls()]
        assert keys == [[API_KEY], [API_KEY], [API_KEY], ["canary-new-key"]]
        assert party.hidden == [API_KEY, "canary-new-key"]


@pytest.mark.parametrize("kind", ["api-key", "client-secret"])
async def test_a_403_to_what_was_replaced_meanwhile_is_no_word_on_the_new_one(
    open_party: OpenParty, tmp_path: Path, kind: str
) -> None:
    party: Party
    server: RawServer

    async def forbid(talk: Talk) -> None:
        server.play = good
        (tmp_path / kind).write_text("canary-new")
        assert party.client.take_new_secret()
        await says(message(403, envelope()))(talk)

    async with RawServer(good) as server:
        party = await open_party(api_settings(server.url), MAKE[kind](tmp_path))
        await poll(party.client)
        server.play = forbid
        assert isinstance(await poll(party.client), Observed)
        assert len(server.polls()) == 3


async def test_a_403_to_what_still_holds_is_not_asked_again(open_party: OpenParty, tmp_path: Path) -> None:
    async with RawServer(says(message(403, envelope()))) as server:
        party = await open_party(api_settings(server.url), key_credential(tmp_path))
        observation = await poll(party.client)
        assert isinstance(observation, PollFailed)
        assert observation.reason is FailureReason.FORBIDDEN
        assert len(server.polls()) == 1


async def test_a_rotated_api_key_is_used_by_the_trial_after_403s(
    open_party: OpenParty, tmp_path: Path
) -> None:
    async with RawServer(only_key("canary-new-key", 403)) as server:
        party = await open_party(api_settings(server.url), key_credential(tmp_path))
        for _ in range(5):
            party.client.pace.settle(await poll(party.client), party.clock.now(), trial=False)
        (tmp_path / "api-key").write_text("canary-new-key\n")
        trial = await party.client.get_connection("anna", on_started=nothing, trial=True)
        assert isinstance(trial, Observed)


MAKE: dict[str, Callable[[Path], ApiKeyCredential | OAuthCredential]] = {
    "api-key": key_credential,
    "client-secret": oauth_credential,
}


@pytest.mark.parametrize("kind", MAKE)
async def test_a_secret_that_was_replaced_is_used_from_the_next_request_on(
    open_party: OpenParty, tmp_path: Path, kind: str
) -> None:
    async with RawServer(good) as server:
        party = await open_party(api_settings(server.url), MAKE[kind](tmp_path))
        await poll(party.client)
        assert not party.client.take_new_secret()
        (tmp_path / "new").write_text("canary-new\n")
        (tmp_path / "new").rename(tmp_path / kind)
        assert party.client.take_new_secret()
        assert not party.client.take_new_secret()
        await poll(party.client)
        assert "canary-new" in party.hidden
        told = [
            *server.polls()[-1].all("Authorization"),
            *(heard.body for heard in server.token_requests()[-1:]),
        ]
        assert any("canary-new" in str(each) for each in told)


@pytest.mark.parametrize("content", [None, "", "two\nlines"])
@pytest.mark.parametrize("kind", MAKE)
async def test_a_secret_that_is_gone_or_half_written_is_left_until_it_can_be_read(
    open_party: OpenParty, tmp_path: Path, kind: str, content: str | None
) -> None:
    async with RawServer(good) as server:
        party = await open_party(api_settings(server.url), MAKE[kind](tmp_path))
        await poll(party.client)
        (tmp_path / kind).unlink()
        if content is not None:
            (tmp_path / kind).write_text(content)
        assert not party.client.take_new_secret()
        assert isinstance(await poll(party.client), Observed)
        (tmp_path / kind).write_text("canary-new")
        assert party.client.take_new_secret()


async def test_a_secret_in_the_environment_is_never_replaced(
    open_party: OpenParty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", API_KEY)
    async with RawServer(good) as server:
        credential = ApiKeyCredential(SecretSource(env="THE_KEY"), "the-site")
        party = await open_party(api_settings(server.url), credential)
        assert isinstance(await poll(party.client), Observed)
        assert not party.client.take_new_secret()


@pytest.mark.parametrize(
    ("failure", "at_once"),
    [
        (PollFailed(FailureReason.UNAUTHORIZED, refused=True), True),
        (PollFailed(FailureReason.FORBIDDEN), True),
        (PollFailed(FailureReason.PREMIUM_REQUIRED), True),
        (PollFailed(FailureReason.TIMEOUT), False),
    ],
    ids=lambda value: value.reason.value if isinstance(value, PollFailed) else "",
)
async def test_a_new_secret_lets_a_trial_go_at_once_where_a_refusal_took_the_site_down(
    party: Party,
    tmp_path: Path,
    failure: PollFailed,
    at_once: bool,  # noqa: FBT001  the expectation
) -> None:
    pace = party.client.pace
    for _ in range(5):
        pace.settle(failure, party.clock.now(), trial=False)
    assert pace.state.outage is not None
    (tmp_path / "client-secret").write_text("canary-new")
    assert party.client.take_new_secret()
    assert (pace.state.outage.trial_at <= party.clock.now()) == at_once


@pytest.mark.parametrize("content", [None, "", " \n", "two\nlines", "kéy"])
@pytest.mark.parametrize("kind", ["api-key", "client-secret"])
async def test_an_unusable_secret_is_a_refusal_and_nothing_is_sent(
    open_party: OpenParty, tmp_path: Path, kind: str, content: str | None
) -> None:
    async with RawServer(good) as server:
        make = key_credential if kind == "api-key" else oauth_credential
        party = await open_party(api_settings(server.url), make(tmp_path))
        path = tmp_path / kind
        if content is None:
            path.unlink()
        else:
            path.write_text(content)
        observation = await poll(party.client)
        assert isinstance(observation, PollFailed)
        assert (observation.reason, observation.refused) == (FailureReason.UNAUTHORIZED, True)
        assert str(path) in observation.detail
        assert server.heard == []
        path.write_text("canary-mended")
        assert isinstance(await poll(party.client), Observed)


# --- secrets in sight -----------------------------------------------------------------------------------


def graph(roots: list[object], limit: int = 200_000) -> Iterator[object]:
    """All that hangs on these objects, without wandering off into modules, classes and frames."""
    seen: set[int] = set()
    queue = list(roots)
    while queue and len(seen) < limit:
        thing = queue.pop()
        if id(thing) in seen or isinstance(thing, (ModuleType, type, FrameType)):
            continue
        seen.add(id(thing))
        yield thing
        queue += gc.get_referents(thing)


def shown(thing: object) -> str:
    return "" if isinstance(thing, (str, bytes, bytearray, dict, tuple)) else repr(thing) + str(thing)


@pytest.mark.parametrize("kind", ["key", "oauth"])
async def test_no_secret_is_in_the_repr_of_anything_of_ours(
    open_party: OpenParty, tmp_path: Path, kind: str
) -> None:
    async with RawServer(good) as server:
        make = key_credential if kind == "key" else oauth_credential
        party = await open_party(api_settings(server.url), make(tmp_path))
        headers = await party.client._credential.headers()
        observation = await poll(party.client)
        roots: list[object] = [party.client, headers, observation]
        reached = [thing for thing in graph(roots) if type(thing).__module__.startswith("monitor.")]
        assert {"WixClient", "SecretHeaders"} <= {type(thing).__name__ for thing in reached}
        for thing in reached:
            assert not any(secret in shown(thing) + repr(thing) for secret in CANARIES), type(thing)


async def test_no_secret_is_in_the_repr_of_a_renewal(
    party: Party, server: RawServer, office: TokenOffice
) -> None:
    office.gate.clear()
    waiting = begin(party.client)
    await until(lambda: bool(server.token_requests()))
    (renewal,) = [task for task in asyncio.all_tasks() if task.get_name() == "token renewal"]
    during = repr(renewal)
    office.gate.set()
    await waiting
    told = during + repr(renewal) + repr(renewal.result())
    assert "SecretHeaders(Authorization)" in told
    assert not any(secret in told for secret in CANARIES)


async def test_a_hanging_token_endpoint_is_a_timeout(open_party: OpenParty, tmp_path: Path) -> None:
    async with RawServer(hang) as server:
        party = await open_party(api_settings(server.url, 0.15), oauth_credential(tmp_path))
        observation = await poll(party.client)
        assert isinstance(observation, PollFailed)
        assert observation.reason is FailureReason.TIMEOUT
        assert observation.detail.startswith("token: ")
        assert len(server.heard) == 1
