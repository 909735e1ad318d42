"""The way in: which of several hosts, by what TLS, and what is said of it where there is none."""

import asyncio
import io
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from monitor.clock import Clock
from monitor.config import load
from monitor.config.database import hosts_of, is_open_to_others, place_of
from monitor.errors import ConfigError, StoreError
from monitor.logs import Format, Redactor, set_up
from monitor.store.postgresql.engine import CONNECT_SECONDS, Engine, telling_failures
from monitor.store.postgresql.held import Held
from monitor.store.postgresql.leases import Node
from monitor.store.postgresql.store import open_postgresql
from tests.postgresql import PASSWORD, PostgreSQL
from tests.store.engines import Shared
from tests.wix.servers import listening

PIECES: Final = ("41397", "canary", "42986", "secret")
SITES: Final = """
sites:
  - name: downtown
    credential: {oauth: {client_id: app, client_secret_env: DEMO_SECRET}}
    connections: [{id: one}]
"""


@pytest.fixture
def shared(postgresql: PostgreSQL) -> Shared:
    return Shared(postgresql)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engine") / "monitor.yml"
    path.write_text(f"store: {{url: '${{DATABASE_URL}}'}}\n{SITES}")
    return path


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of one that takes whoever comes, and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield listener.getsockname()[1]


# Passwords


@st.composite
def passwords(draw: st.DrawFn) -> str:
    """Words of which none may be seen, with anything between them."""
    glue = st.text(st.sampled_from("/?#@:%&=+,;[] \n.\\ä\x00"), max_size=3)
    words = draw(st.lists(st.sampled_from(PIECES), min_size=1, max_size=4))
    return draw(glue) + "".join(word + draw(glue) for word in words)


@given(
    passwords(), st.sampled_from(["", ":1"]), st.sampled_from(["/mon", "/mon?sslmode=disable", "/a?port=1"])
)
def test_whatever_password_a_url_holds_nobody_is_shown_it(
    config: Path, password: str, port: str, path: str
) -> None:
    url = f"postgresql://anna:{password}@127.0.0.1{port}{path}"
    told = [place_of(url)]
    try:
        settings = load(config, environ={"DEMO_SECRET": "x", "DATABASE_URL": url}).settings.store
    except ConfigError as error:
        told.append(str(error))
    else:
        assert settings.password is not None
        told += [settings.place, failure_of(Engine(settings.url, "a", settings.password.read))]
    assert not any(piece in each for piece in PIECES for each in told)


def failure_of(engine: Engine) -> str:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner, pytest.raises(StoreError) as refused:
        runner.run(engine.connect())
    return str(refused.value)


def test_what_the_driver_cannot_read_it_does_not_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "canary")
    with pytest.raises(StoreError) as refused:
        asyncio.run(Engine("postgresql://anna@localhost/state", "a").connect())
    assert str(refused.value) == "the driver cannot use store.url, or a variable such as PGPORT (ValueError)"
    assert refused.value.__suppress_context__


# Several hosts


@pytest.mark.parametrize(
    ("hosts", "told"),
    [
        ("a,b/s", [("a", None), ("b", None)]),
        ("anna@a:1,[::1]:2,%2Frun%2Fx/s", [("a", "1"), ("::1", "2"), ("/run/x", None)]),
        ("/s?host=a,/run/x&port=1,2", [("a", "1"), ("/run/x", "2")]),
        ("/s?host=a,b&port=1", [("a", "1"), ("b", "1")]),
        ("/s?host=a,b", [("a", None), ("b", None)]),
        ("/s?host=a:1,b:2", []),
        ("/s?host=a,b&port=1,2,3", []),
    ],
)
def test_the_hosts_of_a_url_are_told_apart_where_that_is_plain(
    hosts: str, told: list[tuple[str, str | None]]
) -> None:
    assert hosts_of(f"postgresql://{hosts}") == told


def test_a_name_or_an_address_of_this_machine_is_open_to_nobody() -> None:
    assert not is_open_to_others("postgresql://a@[::1],127.0.0.1:1,localhost,%2Frun/s")
    assert is_open_to_others("postgresql:///s?host=db.example.org")


def both(shared: Shared, port: int, how: str, options: str = "") -> str:
    """A URL of two hosts, of which the first is another one's."""
    first, second = ("127.0.0.1", port), ("127.0.0.1", shared.server.port)
    if how == "options":
        hosts, options = "", f"&host={first[0]},{second[0]}&port={first[1]},{second[1]}{options}"
    else:
        hosts = f"{first[0]}:{first[1]},{second[0]}:{second[1]}"
    return f"postgresql://postgres:{PASSWORD}@{hosts}/{shared.database}?sslmode=disable{options}"


@pytest.mark.parametrize("how", ["hosts", "options"])
async def test_a_host_that_says_nothing_does_not_hide_the_next_and_is_not_asked_first_again(
    shared: Shared, clock: Clock, silent: int, how: str
) -> None:
    engine = Engine(both(shared, silent, how), "a")
    opened = await open_postgresql(engine, "a", Held(), clock)
    began = time.monotonic()
    assert opened.shared is not None
    membership = await opened.shared.leases.join(Node("a", []), timedelta(seconds=60), None)
    await asyncio.gather(*(opened.store.states() for _ in range(4)))
    assert time.monotonic() - began < CONNECT_SECONDS / 2
    membership.end()
    await opened.store.close()


async def test_who_has_less_patience_than_a_host_takes_comes_to_the_next_one_in_another_turn(
    shared: Shared, silent: int
) -> None:
    engine = Engine(both(shared, silent, "hosts"), "a")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await engine.connect()
    async with asyncio.timeout(CONNECT_SECONDS / 2):
        (await engine.connect()).terminate()


@pytest.mark.parametrize("attributes", ["", "&target_session_attrs=prefer-standby"])
async def test_of_two_hosts_one_that_is_down_is_passed_over(shared: Shared, attributes: str) -> None:
    connection = await Engine(both(shared, 1, "hosts", attributes), "a").connect()
    assert await connection.fetchval("SELECT 1") == 1
    connection.terminate()


async def test_a_host_that_may_only_be_read_is_passed_over(shared: Shared) -> None:
    """Here it is one server with two faces: the role's database says that it is read only."""
    shared.server.sql(
        shared.database, f"ALTER DATABASE {shared.database} SET default_transaction_read_only = on"
    )
    engine = Engine(both(shared, shared.server.port, "hosts"), "a")
    with pytest.raises(StoreError, match="None of the hosts match"):
        await engine.connect()
    with pytest.raises(StoreError, match="Connect call failed"):
        await Engine(both(shared, 1, "hosts"), "a").connect()
    shared.server.sql("postgres", f"ALTER DATABASE {shared.database} RESET ALL")
    (await engine.connect()).terminate()


# Sessions


@pytest.mark.parametrize("where", ["network", "socket"])
async def test_each_session_is_ended_soon_after_its_client_went_without_a_word(
    shared: Shared, where: str
) -> None:
    server = shared.server
    url = (
        shared.url if where == "network" else f"postgresql://postgres@/{shared.database}?host={server.folder}"
    )
    pool = await Engine(f"{url}{'?' if where == 'network' else '&'}port={server.port}", "a").pool()
    names = ("idle", "interval", "count")
    told = [await pool.fetchval(f"SHOW tcp_keepalives_{name}") for name in names]
    assert told == (["5", "2", "3"] if where == "network" else ["0", "0", "0"])  # a socket has none
    await pool.close()


async def test_a_pool_that_nobody_uses_says_nothing_of_an_outage(shared: Shared) -> None:
    stream = io.StringIO()
    set_up("info", Format.JSON, Redactor(), stream=stream)
    pool = await Engine(shared.url, "a").pool()
    connections = [await pool.acquire() for _ in range(2)]
    for each in connections:
        await pool.release(each)
    shared.server.kill()
    for _ in range(2):
        with pytest.raises(StoreError), telling_failures():
            await pool.fetchval("SELECT 1")
    shared.server.start()
    assert await pool.fetchval("SELECT 1") == 1
    pool.terminate()
    assert stream.getvalue() == ""


async def test_a_store_whose_connection_breaks_as_it_is_closed_is_closed(
    shared: Shared, clock: Clock, certificates: Path
) -> None:
    closing = asyncio.Event()

    async def break_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", shared.server.port)
        back = asyncio.get_running_loop().create_task(copy(theirs, writer))
        while (sent := await reader.read(65536)) and not closing.is_set():
            ours.write(sent)
        writer.write(b"this is no TLS")
        back.cancel()
        ours.transport.abort()
        await reader.read()

    with shared.server.speaking_tls(certificates / "right.pem"):
        async with listening(break_at_the_end) as port:
            url = shared.url.replace(f":{shared.server.port}/", f":{port}/") + "?sslmode=require"
            opened = await open_postgresql(Engine(url, "a"), "a", Held(), clock)
            closing.set()
            await opened.store.close()
    with pytest.raises(StoreError, match="pool is closed"):
        await opened.store.states()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while sent := await reader.read(65536):
        writer.write(sent)


def test_a_write_that_comes_too_late_for_uvloop_is_a_failure_like_any_other(shared: Shared) -> None:
    async def story() -> None:
        connection = await Engine(shared.url, "a").connect()
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        transport = connection._transport  # type: ignore[union-attr]
        connection.terminate()
        await ended.wait()
        while "closed=False" in repr(transport):
            await asyncio.get_running_loop().run_in_executor(None, int)  # a turn of the loop
        with pytest.raises(StoreError, match="the connection is closed"), telling_failures():
            transport.write(b"too late")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())


def test_another_defect_stays_one() -> None:
    with pytest.raises(RuntimeError, match="of our own"), telling_failures():
        raise RuntimeError("of our own")


# TLS


def verified(shared: Shared, root: str, mode: str = "verify-full") -> str:
    way = f"postgresql://postgres:{PASSWORD}@localhost:{shared.server.port}/{shared.database}"
    return f"{way}?sslmode={mode}&sslrootcert={root}"


@pytest.mark.parametrize("root", ["file", "system"])
async def test_whom_the_named_authorities_vouch_for_is_spoken_to_in_secret(
    shared: Shared, clock: Clock, certificates: Path, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    if root == "system":
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))  # OpenSSL's, of the machine
    named = "system" if root == "system" else str(certificates / "ca.pem")
    with shared.server.speaking_tls(certificates / "right.pem"):
        opened = await open_postgresql(Engine(verified(shared, named), "a"), "a", Held(), clock)
        assert opened.shared is not None
        membership = await opened.shared.leases.join(Node("a", []), timedelta(seconds=60), None)
        secret = (
            "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE '% a'"
        )
        assert shared.server.sql("postgres", secret).splitlines() == ["t", "t"]
        membership.end()
        await opened.store.close()


@pytest.mark.parametrize(
    ("certificate", "told"),
    [
        ("untrusted", "unable to get local issuer certificate|self-signed certificate"),
        ("wrong-name", "Hostname mismatch, certificate is not valid for 'localhost'"),
        ("expired", "certificate has expired"),
    ],
)
async def test_who_cannot_prove_to_be_the_server_is_refused_and_told_why(
    shared: Shared, certificates: Path, certificate: str, told: str
) -> None:
    engine = Engine(verified(shared, str(certificates / "ca.pem")), "a")
    with (
        shared.server.speaking_tls(certificates / f"{certificate}.pem"),
        pytest.raises(StoreError, match=f"certificate verify failed: ({told})") as refused,
    ):
        await engine.connect()
    assert "\n" not in str(refused.value)
    assert PASSWORD not in str(refused.value)


async def test_a_server_without_tls_is_refused_where_it_must_have_it(
    shared: Shared, certificates: Path
) -> None:
    with pytest.raises(StoreError, match="rejected SSL upgrade"):
        await Engine(verified(shared, str(certificates / "ca.pem")), "a").connect()
