"""Passwords: who is let in, at which cost, and what a stranger can learn, which is nothing."""

import asyncio
import base64
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import bcrypt
import pytest

from monitor.web.passwords import WAITING, WAITING_OF_ONE_PEER, Credentials, Passwords, Verdict
from monitor.web.protection import WebConfig
from tests.web.conftest import Serve
from tests.web.talk import PAGE, Daemon, Got, ask, connect, off_loop, until

RIGHT: Final = b"canary-pass:w\xc3\xb6rd"


def hashed(password: bytes, cost: int = 4) -> bytes:
    return bcrypt.hashpw(password, bcrypt.gensalt(cost))


USERS: Final = {b"alice": hashed(RIGHT), "zoë".encode(): hashed(b"")}
SLOW: Final = {b"alice": hashed(RIGHT, 11), b"bob": hashed(b"x", 11)}
"""Whose check takes 0.1 s and more."""


def basic(user: bytes, password: bytes) -> str:
    return "Basic " + base64.b64encode(user + b":" + password).decode()


@pytest.fixture
async def passwords() -> AsyncIterator[Passwords]:
    its = Passwords()
    yield its
    its.close()


# The header


@pytest.mark.parametrize(
    ("header", "read"),
    [
        ("Basic YTpi", (b"a", b"b")),
        ("basic  YTpi ", (b"a", b"b")),
        (basic(b"alice", RIGHT), (b"alice", RIGHT)),
        (basic(b"", b""), (b"", b"")),
        ("", None),
        ("Basic", None),
        ("Basic YQ==", None),
        ("Basic YTp", None),
        ("Basic Y T p i", None),
        ("Basic *!", None),
        ("Basic \udcff", None),
        ("Bearer YTpi", None),
        ("YTpi", None),
    ],
)
def test_an_authorization_header_is_read(header: str, read: tuple[bytes, bytes] | None) -> None:
    assert Credentials.parse(header) == read


def test_a_password_is_not_in_what_a_traceback_may_show() -> None:
    assert "canary" not in repr(Credentials(b"alice", RIGHT))


# The verdict


@pytest.mark.parametrize(
    ("user", "password", "verdict"),
    [
        (b"alice", RIGHT, Verdict.RIGHT),
        ("zoë".encode(), b"", Verdict.RIGHT),
        (b"alice", RIGHT + b"x", Verdict.WRONG),
        (b"alice", b"", Verdict.WRONG),
        (b"Alice", RIGHT, Verdict.WRONG),
        (b"stranger", RIGHT, Verdict.WRONG),
        (b"stranger", b"", Verdict.WRONG),
        (b"", b"", Verdict.WRONG),
        (b"alice", RIGHT + b"\0", Verdict.WRONG),
        (b"alice", b"x" * 1000, Verdict.WRONG),
    ],
)
async def test_a_verdict_is_the_same_each_time(
    passwords: Passwords, user: bytes, password: bytes, verdict: Verdict
) -> None:
    for _ in range(3):
        assert await passwords.judge(USERS, Credentials(user, password), "::1") is verdict


async def test_only_the_first_72_bytes_count_as_everywhere_with_bcrypt(passwords: Passwords) -> None:
    users = {b"alice": hashed(b"x" * 72)}
    assert await passwords.judge(users, Credentials(b"alice", b"x" * 80), "") is Verdict.RIGHT
    assert await passwords.judge(users, Credentials(b"alice", b"x" * 71), "") is Verdict.WRONG


async def test_hashes_of_htpasswd_are_read(passwords: Passwords) -> None:
    users = {b"alice": hashed(RIGHT).replace(b"$2b$", b"$2y$")}
    assert await passwords.judge(users, Credentials(b"alice", RIGHT), "") is Verdict.RIGHT


async def test_a_stranger_is_none_whoever_s_password_he_has(passwords: Passwords) -> None:
    """What is remembered of a password that fits some hash must not let a stranger in."""
    users = {b"alice": hashed(RIGHT)}
    for _ in range(3):
        assert await passwords.judge(users, Credentials(b"stranger", RIGHT), "") is Verdict.WRONG


async def test_a_new_hash_ends_what_was_remembered(passwords: Passwords) -> None:
    given = Credentials(b"alice", RIGHT)
    assert await passwords.judge(USERS, given, "") is Verdict.RIGHT
    assert await passwords.judge({b"alice": hashed(b"new")}, given, "") is Verdict.WRONG
    assert await passwords.judge({b"bob": USERS[b"alice"]}, given, "") is Verdict.WRONG
    assert await passwords.judge(USERS, given, "") is Verdict.RIGHT


# The cost


async def cpu_of(passwords: Passwords, user: bytes, password: bytes) -> float:
    """Seconds of CPU that a check takes, which no other program's work adds to."""
    before = time.process_time()
    await passwords.judge(SLOW, Credentials(user, password), "")
    return time.process_time() - before


async def test_an_unknown_name_costs_as_much_as_a_wrong_password(passwords: Passwords) -> None:
    known = await cpu_of(passwords, b"alice", b"wrong")
    unknown = await cpu_of(passwords, b"mallory", b"wrong")
    assert 0.5 < unknown / known < 2


async def test_what_was_checked_is_not_checked_again(passwords: Passwords) -> None:
    for password in (RIGHT, b"wrong"):
        first = await cpu_of(passwords, b"alice", password)
        assert await cpu_of(passwords, b"alice", password) < first / 10


async def test_who_asks_with_the_same_password_shares_one_check(passwords: Passwords) -> None:
    before = time.process_time()
    asked = (passwords.judge(SLOW, Credentials(b"alice", RIGHT), "127.0.0.1") for _ in range(50))
    assert set(await asyncio.gather(*asked)) == {Verdict.RIGHT}
    together = time.process_time() - before
    assert together < 4 * await cpu_of(passwords, b"alice", b"another")


async def test_who_gives_up_takes_the_check_from_nobody(passwords: Passwords) -> None:
    given = Credentials(b"alice", RIGHT)
    asked = [asyncio.ensure_future(passwords.judge(SLOW, given, "")) for _ in range(2)]  # noqa: TID251
    await asyncio.sleep(0)
    asked[0].cancel()
    assert await asked[1] is Verdict.RIGHT


async def test_the_loop_goes_on_during_a_check(passwords: Passwords) -> None:
    check = asyncio.ensure_future(passwords.judge(SLOW, Credentials(b"alice", RIGHT), ""))  # noqa: TID251
    rounds = 0
    while not check.done():
        rounds += 1
        await asyncio.sleep(0)
    assert await check is Verdict.RIGHT
    assert rounds > 100


async def test_a_flood_of_wrong_passwords_is_refused_without_checking_them_all(passwords: Passwords) -> None:
    def flood(peers: Callable[[int], str]) -> list[asyncio.Future[Verdict]]:
        return [
            asyncio.ensure_future(passwords.judge(SLOW, Credentials(b"alice", b"%d" % n), peers(n)))  # noqa: TID251
            for n in range(1000)
        ]

    one = flood(lambda _: "192.0.2.1")
    await asyncio.sleep(0)
    assert sum(not each.done() for each in one) == WAITING_OF_ONE_PEER
    assert await passwords.judge(SLOW, Credentials(b"alice", RIGHT), "192.0.2.2") is Verdict.RIGHT
    many = flood(lambda n: f"198.51.100.{n}")
    await asyncio.sleep(0)
    assert sum(not each.done() for each in many) <= WAITING
    told = await asyncio.gather(*one)
    assert (told.count(Verdict.WRONG), told.count(Verdict.BUSY)) == (
        WAITING_OF_ONE_PEER,
        1000 - WAITING_OF_ONE_PEER,
    )
    assert await passwords.judge(SLOW, Credentials(b"alice", RIGHT), "192.0.2.1") is Verdict.RIGHT


async def test_the_newest_verdicts_are_remembered() -> None:
    passwords = Passwords(remembered=2)
    costs = [await cpu_of(passwords, b"alice", password) for password in (b"a", b"b", b"c")]
    assert await cpu_of(passwords, b"alice", b"c") < min(costs) / 10
    assert await cpu_of(passwords, b"alice", b"a") > min(costs) / 2
    passwords.close()


# The server


@pytest.fixture
def config(tmp_path: Path) -> WebConfig:
    path = tmp_path / "web-config.yml"
    path.touch(mode=0o600)
    path.write_text(
        f"basic_auth_users:\n  alice: {USERS[b'alice'].decode()}\n  bob: {hashed(b'bob', 11).decode()}\n"
    )
    return WebConfig(path)


def authorized(user: bytes = b"alice", password: bytes = RIGHT) -> dict[str, str]:
    return {"Authorization": basic(user, password)}


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/reload", "/nothing", "//-/ready", "/-/ready/"])
async def test_every_path_asks_for_a_password(serve: Serve, config: WebConfig, path: str) -> None:
    _, url = await serve(config=config)
    for headers in ({}, authorized(password=b"wrong"), authorized(b"mallory"), {"Authorization": "Basic x"}):
        got = await off_loop(ask, url, path, "GET", headers)
        assert (got.status, got.body) == (401, b"unauthorized\n")
        assert got.headers["WWW-Authenticate"] == 'Basic realm="wix-calendar-monitor", charset="UTF-8"'
    got = await off_loop(ask, url, path, "GET", authorized())
    assert got.status == (200 if path in ("/", "/metrics") else 404)


@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready"])
async def test_but_for_those_of_health(serve: Serve, config: WebConfig, path: str) -> None:
    _, url = await serve(config=config)
    assert (await off_loop(ask, url, path)).status == 200
    assert (await off_loop(ask, url, path, "GET", authorized(password=b"wrong"))).status == 200
    assert (await off_loop(ask, url, path, "HEAD")).status == 200


async def test_no_page_is_rendered_for_who_may_not_see_it(
    serve: Serve, config: WebConfig, daemon: Daemon
) -> None:
    _, url = await serve(config=config)
    assert (await off_loop(ask, url, "/metrics")).status == 401
    assert daemon.accepts == []


async def test_fifty_scrapers_at_a_time_are_let_in(serve: Serve, config: WebConfig) -> None:
    _, url = await serve(config=config)
    headers = authorized(b"bob", b"bob")
    got = await asyncio.gather(*(off_loop(ask, url, "/metrics", "GET", headers) for _ in range(50)))
    assert {(each.status, each.body) for each in got} == {(200, PAGE)}


def flooding(sock: socket.socket, n: int) -> None:
    sock.sendall(
        f"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: {basic(b'bob', b'%d' % n)}\r\n\r\n".encode()
    )


async def test_a_flood_of_wrong_passwords_keeps_no_other_client_out(serve: Serve, config: WebConfig) -> None:
    _, url = await serve(config=config)
    with ExitStack() as stack:
        flood = [stack.enter_context(connect(url)) for _ in range(40)]
        for n, each in enumerate(flood):
            flooding(each, n)
        answers = [off_loop(each.recv, 12) for each in flood]
        got, *statuses = await asyncio.gather(
            off_loop(ask, url, "/metrics", "GET", authorized(), come_from="127.0.0.2"), *answers
        )
    assert isinstance(got, Got)
    assert (got.status, got.body) == (200, PAGE)
    assert statuses.count(b"HTTP/1.1 401") >= WAITING_OF_ONE_PEER
    assert set(statuses) == {b"HTTP/1.1 429", b"HTTP/1.1 401"}


async def test_a_change_of_the_users_is_in_force_within_seconds(
    serve: Serve, config: WebConfig, tmp_path: Path
) -> None:
    changes: list[object] = []
    _, url = await serve(config=config, config_changed=changes.append)
    assert (await off_loop(ask, url, "/metrics", "GET", authorized())).status == 200
    replace(tmp_path / "web-config.yml", f"basic_auth_users:\n  carol: {hashed(RIGHT).decode()}\n")
    await until(lambda: changes == [()])
    assert (await off_loop(ask, url, "/metrics", "GET", authorized())).status == 401
    assert (await off_loop(ask, url, "/metrics", "GET", authorized(b"carol"))).status == 200


def replace(path: Path, text: str) -> None:
    path.write_text(text)


async def test_no_secret_is_in_the_log(
    serve: Serve, config: WebConfig, daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ValueError("no page")

    daemon.page = broken  # type: ignore[assignment]  # it never comes to return one
    _, url = await serve(config=config)
    caplog.set_level("DEBUG")
    for headers in (authorized(), authorized(password=b"canary-wrong")):
        await off_loop(ask, url, "/metrics", "GET", headers)
    assert "Traceback" in caplog.text
    for secret in ("canary", base64.b64encode(b"alice:canary").decode()[:15], "$2b$"):
        assert secret not in caplog.text
