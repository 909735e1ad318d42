"""Whatever the network does, by real sockets: one row for each way in which an answer can go wrong."""

import asyncio
import gzip
import socket
import ssl
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from monitor.core.model import FailureReason, NotFound, Observation, Observed, PollFailed
from monitor.wix.client import WixClient
from monitor.wix.network import BODY_LIMIT
from tests.certificates import serving
from tests.wix.conftest import OpenParty
from tests.wix.plays import CHUNKED, HTML, answered, close, drip, endless, endless_head, reset, then
from tests.wix.servers import (
    API_KEY,
    CANARIES,
    REQUEST_ID,
    Play,
    RawServer,
    api_settings,
    as_json,
    connection_body,
    envelope,
    good,
    hang,
    key_credential,
    listening,
    message,
    oauth_credential,
    until,
)

PROMPT: Final = 0.15  # seconds of a deadline that is to pass
PATIENT: Final = 30.0
REPEATS: Final = 20
R: Final = FailureReason


def nothing() -> None:
    """Nobody counts the starts."""


async def poll(client: WixClient, connection_id: str = "anna") -> Observation:
    return await client.get_connection(connection_id, on_started=nothing)


class Row(NamedTuple):
    """One way to go wrong, and what it must be called."""

    name: str
    play: Play
    reason: FailureReason
    status: int | None
    deadline: float = PATIENT


ANNA: Final = connection_body("anna")
ROWS: Final = [
    Row("closed without an answer", close, R.CONNECT, None),
    Row("reset without an answer", reset, R.CONNECT, None),
    Row("reset in the middle of the body", then(message(200, b'{"conn', length=99), reset), R.CONNECT, 200),
    Row("truncated", then(message(200, ANNA[:20], length=len(ANNA)), close), R.CONNECT, 200),
    Row("truncated in the head", then(b"HTTP/1.1 200 Fi", close), R.CONNECT, None),
    Row("hang", hang, R.TIMEOUT, None, PROMPT),
    Row("hang after the head", then(message(200, b"", length=9), hang), R.TIMEOUT, 200, PROMPT),
    Row("a slow drip past the deadline", drip, R.TIMEOUT, 200, PROMPT),
    Row("no HTTP", then(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", close), R.BAD_RESPONSE, None),
    Row("an endless head", endless_head, R.BAD_RESPONSE, None),
    Row("a malformed chunk", then(CHUNKED + b"zz\r\n", close), R.BAD_RESPONSE, None),
    Row("401", answered(401, envelope("UNAUTHENTICATED")), R.UNAUTHORIZED, 401),
    Row("403", answered(403, envelope()), R.FORBIDDEN, 403),
    Row("403 premium", answered(403, envelope("PREMIUM_FEATURE_NOT_ENABLED")), R.PREMIUM_REQUIRED, 403),
    Row("404 of a gateway", answered(404, HTML, Content_Type="text/html"), R.BAD_RESPONSE, 404),
    Row("404 with an empty body", answered(404), R.BAD_RESPONSE, 404),
    Row("400", answered(400, envelope()), R.REJECTED, 400),
    Row("407", answered(407, envelope()), R.REJECTED, 407),
    Row("409", answered(409, envelope()), R.REJECTED, 409),
    Row("428", answered(428, envelope("REQUIRED_APP_NOT_INSTALLED")), R.REJECTED, 428),
    Row("429", answered(429, envelope(), Retry_After="17"), R.RATE_LIMITED, 429),
    *[Row(str(code), answered(code, envelope()), R.SERVER_ERROR, code) for code in (500, 501, 503, 504)],
    Row("502 of a gateway", answered(502, HTML, Content_Type="text/html"), R.SERVER_ERROR, 502),
    Row("204", answered(204), R.BAD_RESPONSE, 204),
    Row("206", answered(206, ANNA), R.BAD_RESPONSE, 206),
    Row("304", answered(304), R.BAD_RESPONSE, 304),
    Row("600", answered(600, ANNA), R.BAD_RESPONSE, 600),
    Row("HTML", answered(200, HTML, Content_Type="text/html"), R.BAD_RESPONSE, 200),
    Row("nothing", answered(200), R.BAD_RESPONSE, 200),
    Row("truncated JSON", answered(200, ANNA[:-5]), R.BAD_RESPONSE, 200),
    Row("not UTF-8", answered(200, ANNA.replace(b"GOOGLE", b"G\xfcGLE")), R.BAD_RESPONSE, 200),
    Row("no connection", answered(200, b"{}"), R.BAD_RESPONSE, 200),
    Row("null for a connection", answered(200, b'{"connection": null}'), R.BAD_RESPONSE, 200),
    Row("another id", answered(200, connection_body("ben")), R.BAD_RESPONSE, 200),
    Row("an id of another type", answered(200, as_json({"connection": {"id": 7}})), R.BAD_RESPONSE, 200),
    Row("unasked-for gzip", answered(200, gzip.compress(ANNA), Content_Encoding="gzip"), R.BAD_RESPONSE, 200),
    Row("an endless body", endless, R.BAD_RESPONSE, 200),
    Row("a body of 10 MiB", answered(200, b" " * 10 * 2**20 + ANNA), R.BAD_RESPONSE, 200),
    Row("a large page of 429", answered(429, b"<p>" * BODY_LIMIT, Retry_After="17"), R.RATE_LIMITED, 429),
    Row("a large page of 503", answered(503, b"<p>" * BODY_LIMIT), R.SERVER_ERROR, 503),
    Row("a large page of 404", answered(404, b"<p>" * BODY_LIMIT), R.BAD_RESPONSE, 404),
    Row("a byte too much", answered(200, ANNA + b" " * (BODY_LIMIT + 1 - len(ANNA))), R.BAD_RESPONSE, 200),
]  # fmt: skip


# --- what every row is held against ---------------------------------------------------------------------


def assert_failed(observation: Observation, reason: FailureReason, status: int | None) -> PollFailed:
    assert isinstance(observation, PollFailed)
    assert (observation.reason, observation.http_status) == (reason, status)
    assert not observation.refused
    assert not any(canary in repr(observation) for canary in CANARIES)
    assert len(observation.detail) < 200
    assert observation.detail.isprintable()
    return observation


def open_sockets() -> int:
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            count += str(link.readlink()).startswith("socket:")
    return count


async def assert_no_socket_stays(client: WixClient, allowed: int) -> None:
    """Many polls at a time leave no more open than one may keep for the next."""
    await asyncio.gather(*(poll(client) for _ in range(REPEATS)))
    await until(lambda: open_sockets() <= allowed)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
async def test_each_way_to_go_wrong_has_its_name_and_leaves_no_socket_open(
    row: Row, open_party: OpenParty, tmp_path: Path
) -> None:
    async with RawServer(row.play) as server:
        before = open_sockets()
        party = await open_party(api_settings(server.url, row.deadline), key_credential(tmp_path))
        observation = assert_failed(await poll(party.client), row.reason, row.status)
        assert observation.request_id in ("", REQUEST_ID)
        tries = 2 if row.status == 401 else 1
        assert dict(party.client.pace.failures) == {row.reason: tries}
        assert party.client.pace.requests == len(server.heard) == tries
        kept = 2 * 8  # both ends of what the pool may keep: a site's slots
        await assert_no_socket_stays(party.client, before + kept)
        await party.client._api.close()
        await until(lambda: open_sockets() <= before)


@pytest.mark.parametrize(
    "name", ["truncated", "401", "503", "HTML", "a body of 10 MiB", "hang after the head"]
)
async def test_wixs_request_id_is_kept_wherever_a_head_came(
    name: str, open_party: OpenParty, tmp_path: Path
) -> None:
    (row,) = [row for row in ROWS if row.name == name]
    async with RawServer(row.play) as server:
        party = await open_party(api_settings(server.url, row.deadline), key_credential(tmp_path))
        observation = await poll(party.client)
        assert isinstance(observation, PollFailed)
        assert observation.request_id == REQUEST_ID


@pytest.mark.parametrize(
    ("play", "words"),
    [(reset, "Connection reset by peer"), (close, "ServerDisconnectedError"), (endless, "256 KiB")],
    ids=["reset", "closed", "endless"],
)
async def test_the_detail_says_what_happened(
    play: Play, words: str, open_party: OpenParty, tmp_path: Path
) -> None:
    async with RawServer(play) as server:
        party = await open_party(api_settings(server.url), key_credential(tmp_path))
        observation = await poll(party.client)
        assert isinstance(observation, PollFailed)
        assert words in observation.detail


async def test_a_429_carries_its_wait(open_party: OpenParty, tmp_path: Path) -> None:
    async with RawServer(answered(429, envelope(), Retry_After="17")) as server:
        party = await open_party(api_settings(server.url), key_credential(tmp_path))
        observation = await poll(party.client)
        assert isinstance(observation, PollFailed)
        assert observation.retry_after is not None
        assert observation.retry_after.total_seconds() == 17


async def test_a_body_of_exactly_the_limit_is_read(open_party: OpenParty, tmp_path: Path) -> None:
    async with RawServer(answered(200, ANNA + b" " * (BODY_LIMIT - len(ANNA)))) as server:
        party = await open_party(api_settings(server.url), key_credential(tmp_path))
        assert isinstance(await poll(party.client), Observed)


async def test_memory_is_bounded_whatever_comes(open_party: OpenParty, tmp_path: Path) -> None:
    async with RawServer(endless) as server:
        party = await open_party(api_settings(server.url), key_credential(tmp_path))
        await poll(party.client)
        tracemalloc.start()
        try:
            await poll(party.client)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 8 * BODY_LIMIT


# --- no connection at all -------------------------------------------------------------------------------


async def assert_unreachable(
    open_party: OpenParty,
    tmp_path: Path,
    url: str,
    reason: FailureReason,
    deadline: float = PATIENT,
    **more: Any,
) -> PollFailed:
    party = await open_party(api_settings(url, deadline, **more), key_credential(tmp_path))
    before = open_sockets()
    observation = assert_failed(await poll(party.client), reason, None)
    await assert_no_socket_stays(party.client, before)
    return observation


async def test_a_refused_connection(open_party: OpenParty, tmp_path: Path, dead_port: int) -> None:
    url = f"http://127.0.0.1:{dead_port}"
    failed = await assert_unreachable(open_party, tmp_path, url, R.CONNECT)
    assert failed.detail == "ClientConnectorError: Connection refused"


async def test_a_black_hole(open_party: OpenParty, tmp_path: Path, full_backlog: int) -> None:
    await assert_unreachable(open_party, tmp_path, f"http://127.0.0.1:{full_backlog}", R.TIMEOUT, PROMPT)


@pytest.mark.parametrize("host", ["does-not-exist.invalid", f"{'a' * 64}.invalid", "a..b"])
async def test_a_name_that_does_not_exist(open_party: OpenParty, tmp_path: Path, host: str) -> None:
    await assert_unreachable(open_party, tmp_path, f"http://{host}", R.CONNECT)


# --- TLS ------------------------------------------------------------------------------------------------


async def test_a_trusted_certificate_is_accepted(
    open_party: OpenParty, tmp_path: Path, certificates: Path
) -> None:
    async with RawServer(good, serving(certificates, "right")) as server:
        settings = api_settings(server.url, ca_file=certificates / "ca.pem")
        party = await open_party(settings, key_credential(tmp_path))
        for _ in range(3):
            assert isinstance(await poll(party.client), Observed)
        assert server.connections == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [("untrusted", "unable to get local issuer"), ("expired", "expired"), ("wrong-name", "mismatch")],
)
async def test_a_wrong_certificate_is_refused_before_anything_is_sent(
    open_party: OpenParty, tmp_path: Path, certificates: Path, name: str, words: str
) -> None:
    async with RawServer(good, serving(certificates, name)) as server:
        ca = certificates / "ca.pem"
        failed = await assert_unreachable(open_party, tmp_path, server.url, R.TLS, ca_file=ca)
        assert words in failed.detail
        assert server.heard == []


async def test_a_private_authority_is_not_trusted_unless_configured(
    open_party: OpenParty, tmp_path: Path, certificates: Path
) -> None:
    async with RawServer(good, serving(certificates, "right")) as server:
        await assert_unreachable(open_party, tmp_path, server.url, R.TLS)


async def test_plain_http_on_the_tls_port(open_party: OpenParty, tmp_path: Path) -> None:
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(message(400, b""))
        writer.close()

    async with listening(speak) as port:
        await assert_unreachable(open_party, tmp_path, f"https://localhost:{port}", R.TLS)


async def test_a_server_that_wants_a_certificate_of_ours(
    open_party: OpenParty, tmp_path: Path, certificates: Path
) -> None:
    context = serving(certificates, "right")
    context.verify_mode = ssl.CERT_REQUIRED

    def refuse(listener: socket.socket) -> None:  # in TLS 1.3 the alert comes after the client's handshake
        accepted, _ = listener.accept()
        with context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False) as connection:
            with suppress(ssl.SSLError):
                connection.do_handshake()
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):  # closed with the request unread, the socket would drop the alert
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://localhost:{listener.getsockname()[1]}"
        settings = api_settings(url, ca_file=certificates / "ca.pem")
        party = await open_party(settings, key_credential(tmp_path))
        observation, _ = await asyncio.gather(poll(party.client), asyncio.to_thread(refuse, listener))
        assert_failed(observation, R.TLS, None)


async def test_a_tls_handshake_that_hangs(open_party: OpenParty, tmp_path: Path) -> None:
    async def silence(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with listening(silence) as port:
        party = await open_party(api_settings(f"https://localhost:{port}", PROMPT), key_credential(tmp_path))
        assert_failed(await poll(party.client), R.TIMEOUT, None)


# --- redirects ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed_and_the_credential_does_not_travel(
    open_party: OpenParty, tmp_path: Path, status: int
) -> None:
    async with RawServer(good) as elsewhere:
        move = answered(status, b"", Location=f"{elsewhere.url}/bookings/v2/anna")
        async with RawServer(move) as server:
            party = await open_party(api_settings(server.url), key_credential(tmp_path))
            assert_failed(await poll(party.client), R.BAD_RESPONSE, status)
        assert elsewhere.connections == 0


async def test_a_redirected_token_request_does_not_take_the_secret_along(
    open_party: OpenParty, tmp_path: Path
) -> None:
    async with RawServer(good) as elsewhere:
        async with RawServer(answered(307, b"", Location=f"{elsewhere.url}/oauth2/token")) as server:
            party = await open_party(api_settings(server.url), oauth_credential(tmp_path))
            assert_failed(await poll(party.client), R.BAD_RESPONSE, 307)
        assert elsewhere.connections == 0


# --- proxies --------------------------------------------------------------------------------------------


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def proxy() -> AsyncIterator[RawServer]:
    """A proxy that answers in the origin's place."""
    async with RawServer(good) as proxy:
        yield proxy


@pytest.mark.usefixtures("no_proxies")
async def test_the_environments_proxies_are_not_used_unless_configured(
    open_party: OpenParty, tmp_path: Path, proxy: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, proxy.url)
    async with RawServer(good) as server:
        party = await open_party(api_settings(server.url), key_credential(tmp_path))
        assert isinstance(await poll(party.client), Observed)
        assert len(server.heard) == 1
    assert proxy.connections == 0


@pytest.mark.usefixtures("no_proxies")
async def test_the_environments_proxy_is_used_where_configured(
    open_party: OpenParty, tmp_path: Path, proxy: RawServer, monkeypatch: pytest.MonkeyPatch, dead_port: int
) -> None:
    monkeypatch.setenv("http_proxy", proxy.url.replace("http://", "http://user:p%40ss@"))
    url = f"http://127.0.0.1:{dead_port}"
    party = await open_party(api_settings(url, proxy_from_environment=True), key_credential(tmp_path))
    for _ in range(2):
        assert isinstance(await poll(party.client), Observed)
    assert {heard.path.split("/bookings")[0] for heard in proxy.heard} == {url}
    assert [heard.all("Proxy-Authorization") for heard in proxy.heard] == [["Basic dXNlcjpwQHNz"]] * 2
    assert [heard.all("Authorization") for heard in proxy.heard] == [[API_KEY]] * 2


@pytest.mark.usefixtures("no_proxies")
async def test_a_proxy_of_the_environment_may_be_named_without_a_scheme(
    open_party: OpenParty, tmp_path: Path, proxy: RawServer, monkeypatch: pytest.MonkeyPatch, dead_port: int
) -> None:
    monkeypatch.setenv("http_proxy", proxy.url.removeprefix("http://"))
    settings = api_settings(f"http://127.0.0.1:{dead_port}", proxy_from_environment=True)
    party = await open_party(settings, key_credential(tmp_path))
    assert isinstance(await poll(party.client), Observed)


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize("named", ["http://[::1", "http://127.0.0.1:99999", "127.0.0.1:port"])
async def test_a_proxy_of_the_environment_that_can_be_none_fails_each_poll(
    open_party: OpenParty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setenv("http_proxy", named)
    async with RawServer(good) as server:
        settings = api_settings(server.url, proxy_from_environment=True)
        party = await open_party(settings, key_credential(tmp_path))
        for _ in range(2):
            observation = await poll(party.client)
            assert isinstance(observation, PollFailed)
            assert (observation.reason, observation.detail) == (FailureReason.BAD_RESPONSE, "InvalidURL")
    assert server.connections == 0


@pytest.mark.usefixtures("no_proxies")
async def test_the_environments_exceptions_hold(
    open_party: OpenParty, tmp_path: Path, proxy: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with RawServer(good) as server:
        settings = api_settings(server.url, proxy_from_environment=True)
        party = await open_party(settings, key_credential(tmp_path))
        assert isinstance(await poll(party.client), Observed)
    assert proxy.connections == 0


@pytest.mark.usefixtures("no_proxies")
async def test_a_password_file_of_the_user_changes_no_credential(
    open_party: OpenParty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login somebody password something\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with RawServer(good) as server:
        settings = api_settings(server.url, proxy_from_environment=True)
        party = await open_party(settings, key_credential(tmp_path))
        assert isinstance(await poll(party.client), Observed)
        assert server.heard[0].all("Authorization") == [API_KEY]


@pytest.mark.usefixtures("no_proxies")
async def test_the_configured_proxy_is_used(
    open_party: OpenParty, tmp_path: Path, proxy: RawServer, dead_port: int
) -> None:
    url = f"http://127.0.0.1:{dead_port}"
    party = await open_party(api_settings(url, proxy_url=proxy.url), key_credential(tmp_path))
    assert isinstance(await poll(party.client), Observed)
    assert proxy.heard[0].path.startswith(url)


async def test_a_dead_proxy(open_party: OpenParty, tmp_path: Path, dead_port: int) -> None:
    dead = f"http://127.0.0.1:{dead_port}"
    await assert_unreachable(open_party, tmp_path, "http://127.0.0.1:9", R.CONNECT, proxy_url=dead)


async def test_a_proxy_that_builds_no_tunnel_never_sees_the_credential(
    open_party: OpenParty, tmp_path: Path
) -> None:
    async with RawServer(answered(407, HTML)) as proxy:
        url = "https://wix.invalid"
        await assert_unreachable(open_party, tmp_path, url, R.CONNECT, proxy_url=proxy.url)
        assert {heard.line for heard in proxy.heard} == {"CONNECT wix.invalid:443 HTTP/1.1"}
        assert not any(API_KEY in repr(heard) for heard in proxy.heard)


async def test_nothing_is_lost_between_a_failure_and_the_next_good_answer(
    open_party: OpenParty, tmp_path: Path
) -> None:
    async with RawServer(good) as server:
        party = await open_party(api_settings(server.url, PATIENT), key_credential(tmp_path))
        for row in ROWS:
            if row.deadline == PATIENT:
                server.play = row.play
                assert not isinstance(await poll(party.client), Observed | NotFound)
                server.play = good
                assert isinstance(await poll(party.client), Observed)
