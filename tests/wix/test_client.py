"""What exactly goes over the wire, and over how many connections."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from monitor import __version__
from monitor.config import SiteSettings
from monitor.core.model import (
    CalendarType,
    Connection,
    FailureReason,
    NotFound,
    Observed,
    Policy,
    PollFailed,
    Status,
)
from monitor.core.site import Site, SiteState
from monitor.errors import WithheldError
from monitor.wix.client import Api, Exchange
from monitor.wix.pace import Slots
from monitor.wix.site import connect_site
from tests.wix.conftest import OpenParty
from tests.wix.servers import (
    API_KEY,
    CONNECTIONS,
    REQUEST_ID,
    TOKEN,
    Heard,
    RawServer,
    ShiftedClock,
    Talk,
    api_settings,
    connection_body,
    envelope,
    good,
    key_credential,
    message,
    oauth_credential,
    says,
)


def nothing() -> None:
    """Nobody counts the starts."""


def named(heard: Heard) -> dict[str, str]:
    return {name.lower(): value for name, value in heard.headers}


@pytest.mark.parametrize("echoed", [f"{API_KEY} was refused", "anna@salon.example", "x" * 101])
async def test_what_is_no_request_id_is_not_taken_for_one(
    open_party: OpenParty, tmp_path: Path, echoed: str
) -> None:
    answer = message(403, envelope("NO"), x_wix_request_id=echoed)
    async with RawServer(says(answer)) as server:
        party = await open_party(api_settings(server.url), key_credential(tmp_path))
        observation = await party.client.get_connection("anna", on_started=nothing)
    assert isinstance(observation, PollFailed)
    assert observation.request_id == ""


async def test_the_request_with_an_api_key_is_the_documented_one(
    open_party: OpenParty, tmp_path: Path
) -> None:
    async with RawServer(good) as server:
        party = await open_party(api_settings(server.url), key_credential(tmp_path))
        observation = await party.client.get_connection("anna", on_started=nothing)
        assert observation == Observed(Status.SYNCED, calendar_type=CalendarType.GOOGLE)
        (heard,) = server.heard
        assert heard.line == f"GET {CONNECTIONS}anna HTTP/1.1"
        assert named(heard) == {
            "host": server.url.removeprefix("http://"),
            "authorization": API_KEY,
            "wix-site-id": "the-site",
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": f"wix-calendar-monitor/{__version__}",
        }
        assert heard.body == b""


async def test_the_request_with_a_token_carries_it_raw_and_no_site_id(
    open_party: OpenParty, tmp_path: Path
) -> None:
    async with RawServer(good) as server:
        party = await open_party(api_settings(server.url), oauth_credential(tmp_path))
        await party.client.get_connection("anna", on_started=nothing)
        (heard,) = server.polls()
        assert heard.line == f"GET {CONNECTIONS}anna HTTP/1.1"
        assert heard.all("Authorization") == [TOKEN]
        assert heard.all("wix-site-id") == []
        assert heard.all("Accept-Encoding") == ["identity"]


async def test_no_cookie_is_kept(open_party: OpenParty, tmp_path: Path) -> None:
    answer = message(200, connection_body("anna"), Set_Cookie="session=1; Path=/")
    async with RawServer(says(answer)) as server:
        party = await open_party(api_settings(server.url), key_credential(tmp_path))
        for _ in range(3):
            await party.client.get_connection("anna", on_started=nothing)
        assert [heard.all("Cookie") for heard in server.heard] == [[], [], []]


@pytest.mark.parametrize(
    ("connection_id", "segment"),
    [
        ("4WnvD8Qz-x_h~k.AjV", "4WnvD8Qz-x_h~k.AjV"),
        ("a/b", "a%2Fb"),
        ("a?b=c&d", "a%3Fb%3Dc%26d"),
        ("50%", "50%25"),
        ("a%2Fb", "a%252Fb"),
        ("a#b", "a%23b"),
        ("a b+c", "a%20b%2Bc"),
        ("../../oauth2/token", "..%2F..%2Foauth2%2Ftoken"),
        ("..", "%2E%2E"),
        (".", "%2E"),
        ("...", "..."),
        ("über✓", "%C3%BCber%E2%9C%93"),
        ("a\\b;c,d:e@f", "a%5Cb%3Bc%2Cd%3Ae%40f"),
        ("a\r\nX-Evil: 1", "a%0D%0AX-Evil%3A%201"),
        ("x" * 300, "x" * 300),
        ("/" * 300, "%2F" * 300),
    ],
)
async def test_an_id_reaches_the_server_as_one_percent_encoded_segment(
    open_party: OpenParty, tmp_path: Path, connection_id: str, segment: str
) -> None:
    async with RawServer(good) as server:
        party = await open_party(api_settings(server.url), key_credential(tmp_path))
        observation = await party.client.get_connection(connection_id, on_started=nothing)
        assert [heard.line for heard in server.heard] == [f"GET {CONNECTIONS}{segment} HTTP/1.1"]
        assert isinstance(observation, Observed)


@pytest.mark.parametrize("prefix", ["/wix", "/a%2Fb/wix", "/wix/"])
async def test_a_base_url_may_have_a_path(open_party: OpenParty, tmp_path: Path, prefix: str) -> None:
    async with RawServer(good) as server:
        party = await open_party(api_settings(server.url + prefix), oauth_credential(tmp_path))
        assert isinstance(await party.client.get_connection("anna", on_started=nothing), Observed)
        path = prefix.rstrip("/")
        assert [heard.path for heard in server.heard] == [f"{path}/oauth2/token", f"{path}{CONNECTIONS}anna"]


async def test_many_polls_share_one_connection(open_party: OpenParty, tmp_path: Path) -> None:
    async with RawServer(good) as server:
        party = await open_party(api_settings(server.url), oauth_credential(tmp_path))
        for number in range(50):
            await party.client.get_connection(f"c{number}", on_started=nothing)
        assert len(server.polls()) == 50
        assert server.connections == 1


async def test_each_request_is_counted_and_timed(open_party: OpenParty, tmp_path: Path) -> None:
    async with RawServer(good) as server:
        party = await open_party(api_settings(server.url), oauth_credential(tmp_path))
        for _ in range(3):
            await party.client.get_connection("anna", on_started=nothing)
        assert party.client.pace.requests == len(server.heard) == len(party.took) == 4
        assert all(0 <= seconds < 10 for seconds in party.took)


async def test_a_404_with_the_envelope_is_not_found(open_party: OpenParty, tmp_path: Path) -> None:
    async with RawServer(says(message(404, envelope("NOT_FOUND")))) as server:
        party = await open_party(api_settings(server.url), key_credential(tmp_path))
        assert await party.client.get_connection("anna", on_started=nothing) == NotFound(REQUEST_ID)
        assert not party.client.pace.failures


# --- connections kept from earlier ----------------------------------------------------------------------


def close_unanswered(times: int) -> tuple[list[Heard], "RawServer"]:
    """A server that closes under the second request of a connection, so many times."""
    cut: list[Heard] = []
    served: set[int] = set()

    async def play(talk: Talk) -> None:
        if id(talk.writer) in served and len(cut) < times:
            cut.append(talk.heard)
            talk.writer.close()
            return
        served.add(id(talk.writer))
        await good(talk)

    return cut, RawServer(play)


async def test_a_kept_connection_closed_under_a_poll_costs_a_request_but_no_poll(
    open_party: OpenParty, tmp_path: Path
) -> None:
    cut, server = close_unanswered(1)
    async with server:
        party = await open_party(api_settings(server.url), key_credential(tmp_path))
        started: list[None] = []
        for _ in range(2):
            observation = await party.client.get_connection("anna", on_started=lambda: started.append(None))
            assert isinstance(observation, Observed)
        assert len(cut) == 1
        assert len(started) == 2
        assert party.client.pace.requests == len(server.heard) == 3
        assert dict(party.client.pace.failures) == {FailureReason.CONNECT: 1}


async def test_a_kept_connection_closed_under_a_token_request_costs_no_poll_either(
    open_party: OpenParty, tmp_path: Path
) -> None:
    cut, server = close_unanswered(1)
    async with server:
        party = await open_party(api_settings(server.url), oauth_credential(tmp_path))
        await party.client.get_connection("anna", on_started=nothing)  # its poll is the one that is cut
        party.clock.ahead = 1e6
        cut.clear()
        observation = await party.client.get_connection("anna", on_started=nothing)
        assert isinstance(observation, Observed)
        assert cut[0].method == "POST"
        assert party.client.pace.requests == len(server.heard)


async def test_what_comes_unasked_over_a_kept_connection_passes_for_no_answer(
    open_party: OpenParty, tmp_path: Path
) -> None:
    """Proxies send a 408, and sometimes more, to a connection that was idle for long."""
    talks: list[Talk] = []

    async def play(talk: Talk) -> None:
        talks.append(talk)
        await good(talk)

    async with RawServer(play) as server:
        party = await open_party(api_settings(server.url), key_credential(tmp_path))
        for _ in range(3):
            observation = await party.client.get_connection("anna", on_started=nothing)
            assert observation == Observed(Status.SYNCED, calendar_type=CalendarType.GOOGLE)
            talks[-1].writer.write(message(200, connection_body("anna", status="ERROR")))
            for _ in range(20):  # turns of the loop, until it lies there
                await asyncio.sleep(0)
        assert server.connections == 3


async def test_the_second_request_waits_for_the_budget_like_any_other(
    open_party: OpenParty, tmp_path: Path
) -> None:
    cut, server = close_unanswered(1)
    async with server:
        party = await open_party(api_settings(server.url), key_credential(tmp_path), requests_per_minute=2)
        await party.client.get_connection("anna", on_started=nothing)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await party.client.get_connection("anna", on_started=nothing)
        assert len(cut) == 1
        assert len(server.heard) == 2


async def test_a_site_told_to_wait_in_between_is_not_asked_a_second_time(
    open_party: OpenParty, tmp_path: Path
) -> None:
    cut, server = close_unanswered(1)
    async with server:
        party = await open_party(api_settings(server.url), key_credential(tmp_path))
        await party.client.get_connection("anna", on_started=nothing)

        def go_down() -> None:
            down = PollFailed(FailureReason.UNAUTHORIZED, refused=True)
            party.client.pace.settle(down, party.clock.now(), trial=False)

        observation = await party.client.get_connection("anna", on_started=go_down)
        assert isinstance(observation, PollFailed)
        assert observation.reason is FailureReason.CONNECT
        assert len(cut) == 1
        assert party.client.pace.requests == len(server.heard) == 2
        assert dict(party.client.pace.failures) == {FailureReason.CONNECT: 1}


async def test_a_new_connection_that_is_closed_unanswered_is_not_tried_again(
    open_party: OpenParty, tmp_path: Path
) -> None:
    async def close(talk: Talk) -> None:
        talk.writer.close()

    async with RawServer(close) as server:
        party = await open_party(api_settings(server.url), key_credential(tmp_path))
        observation = await party.client.get_connection("anna", on_started=nothing)
        assert isinstance(observation, PollFailed)
        assert observation.reason is FailureReason.CONNECT
        assert party.client.pace.requests == len(server.heard) == 1


# --- from the settings ----------------------------------------------------------------------------------


def test_a_site_is_built_from_its_settings(tmp_path: Path) -> None:
    policy = Policy(timedelta(seconds=90), timedelta(seconds=270), timedelta(seconds=15))
    settings = SiteSettings(
        name="downtown",
        credential=key_credential(tmp_path),
        requests_per_minute=7,
        interval=timedelta(seconds=60),
        interval_in_force=timedelta(seconds=90),
        breaker_failures=3,
        maintenance_until=None,
        connections=tuple(Connection("downtown", name, name, policy) for name in ("anna", "ben")),
    )
    clock = ShiftedClock()
    api = Api(api_settings("https://localhost"), clock, lambda _: None)
    client = connect_site(settings, api, Slots(1), clock, hide=lambda _: None, on_renewed=nothing)
    assert client.pace.site == Site("downtown", timedelta(seconds=90), breaker_failures=3, connections=2)
    assert client.pace.requests_per_minute == 7
    assert client.pace.spare(6)
    assert not client.pace.spare(7)
    backoffs = set()
    for _ in range(10):
        client.pace.state = SiteState()
        client.pace.settle(PollFailed(FailureReason.UNAUTHORIZED, refused=True), clock.now(), trial=False)
        assert client.pace.state.outage is not None
        backoffs.add(client.pace.state.outage.trial_at - client.pace.state.outage.since)
    assert len(backoffs) == 10
    assert all(timedelta(seconds=72) <= backoff <= timedelta(seconds=108) for backoff in backoffs)


# --- for `poll` -----------------------------------------------------------------------------------------


async def test_the_watcher_sees_the_whole_exchange() -> None:
    async with RawServer(good) as server:
        seen: list[Exchange] = []
        api = Api(api_settings(server.url), ShiftedClock(), lambda _: None, seen.append)
        await api.open()
        try:
            answer = await api.send("GET", CONNECTIONS + "anna", {"Authorization": API_KEY})
        finally:
            await api.close()
        (exchange,) = seen
        assert exchange.answer is answer
        assert (exchange.method, exchange.url) == ("GET", f"{server.url}{CONNECTIONS}anna")
        assert exchange.headers["Authorization"] == API_KEY


async def test_what_may_not_go_once_there_is_a_connection_is_not_sent() -> None:
    async with RawServer(good) as server:
        api = Api(api_settings(server.url), ShiftedClock(), lambda _: None)
        await api.open()
        try:
            with pytest.raises(WithheldError):
                await api.send("GET", CONNECTIONS + "anna", {"Authorization": API_KEY}, None, lambda: False)
            await api.send("GET", CONNECTIONS + "ben", {"Authorization": API_KEY}, None, lambda: True)
        finally:
            await api.close()
        (heard,) = server.heard
        assert "ben" in str(heard)


async def test_an_unusable_ca_file_is_told_at_the_opening(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for path in (tmp_path / "ca.pem", tmp_path / "missing.pem"):
        api = Api(api_settings("https://localhost", ca_file=path), ShiftedClock(), lambda _: None)
        with pytest.raises(OSError):  # noqa: PT011  ssl.SSLError is one
            await api.open()
        await api.close()
