"""The daemon's own HTTP over real sockets: every route, every refusal, nobody in another's way."""

import asyncio
import gzip
import json
import logging
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from urllib.parse import urlsplit

import pytest

from monitor.errors import CannotStartError
from monitor.web.listening import for_others, link_of
from monitor.web.server import Address, ReloadAnswer, Server
from tests.web.conftest import Serve
from tests.web.talk import (
    LOOPBACK,
    OPENMETRICS,
    PAGE,
    PATIENCE,
    TEXT,
    Daemon,
    Got,
    ask,
    connect,
    off_loop,
    raw,
    until,
    work,
)

Start = Callable[..., Awaitable[list[str]]]


@pytest.fixture
async def start(daemon: Daemon) -> AsyncIterator[Start]:
    servers: list[Server] = []

    async def begin(*addresses: Address) -> list[str]:
        servers.append(Server(daemon.metrics, lambda: daemon.not_ready))
        return await servers[-1].start(addresses or [LOOPBACK])

    yield begin
    for server in servers:
        await server.stop()


@pytest.fixture
async def get(start: Start) -> Callable[..., Awaitable[Got]]:
    (url,) = await start()

    async def once(path: str, method: str = "GET", **headers: str) -> Got:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await off_loop(ask, url, path, method, named)

    return once


Get = Callable[..., Awaitable[Got]]


# Metrics


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [("", TEXT), ("text/plain", TEXT), ("application/openmetrics-text", OPENMETRICS)],
)
async def test_metrics_are_served_in_the_dialect_that_is_asked_for(
    get: Get, daemon: Daemon, accept: str, content_type: str
) -> None:
    got = await get("/metrics", Accept=accept)
    assert (got.status, got.body) == (200, PAGE)
    assert got.headers["Content-Type"] == content_type
    assert got.headers["Content-Length"] == str(len(PAGE))
    assert got.headers["Vary"] == "Accept, Accept-Encoding"
    assert daemon.accepts == [accept]


async def test_without_an_accept_header_it_is_the_text_format(get: Get, daemon: Daemon) -> None:
    got = await get("/metrics")
    assert got.headers["Content-Type"] == TEXT
    assert daemon.accepts == [""]


@pytest.mark.parametrize(
    ("offered", "compressed"),
    [
        ("gzip", True),
        ("GZip", True),
        ("deflate, gzip;q=0.5, br", True),
        ("gzip ; q = 1.0", True),
        ("gzip;q=0.001", True),
        ("identity", False),
        ("", False),
        ("deflate", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("deflate, gzip; Q=0.0", False),
        ("gzippy", False),
    ],
)
async def test_metrics_are_compressed_only_for_who_asked(get: Get, offered: str, *, compressed: bool) -> None:
    got = await get("/metrics", Accept_Encoding=offered)
    assert got.status == 200
    assert got.headers.get("Content-Encoding") == ("gzip" if compressed else None)
    assert (gzip.decompress(got.body) if compressed else got.body) == PAGE
    assert got.headers["Content-Type"] == TEXT


async def test_a_page_of_nothing_is_a_page(get: Get, daemon: Daemon) -> None:
    daemon.slices = []
    assert (await get("/metrics")).body == b""


async def test_other_work_goes_on_between_the_slices_of_a_page(start: Start, daemon: Daemon) -> None:
    (url,) = await start()
    others: list[int] = []

    def slices() -> Iterator[bytes]:
        for number in range(5):
            asyncio.get_running_loop().call_soon(others.append, number)
            assert len(others) == number, "the slice before gave way to what was waiting"
            work(0.002)
            yield b"x"

    daemon.slices = slices()
    assert (await off_loop(ask, url, "/metrics")).body == b"xxxxx"
    assert others == [0, 1, 2, 3, 4]


# Health


async def test_healthy_is_said_while_the_loop_lives_ready_or_not(get: Get, daemon: Daemon) -> None:
    daemon.not_ready = "starting"
    got = await get("/-/healthy")
    assert (got.status, got.body) == (200, b"healthy\n")


async def test_ready_follows_the_daemon_and_says_why_not(get: Get, daemon: Daemon) -> None:
    daemon.not_ready = "starting"
    got = await get("/-/ready")
    assert (got.status, got.body) == (503, b"not ready: starting\n")
    daemon.not_ready = None
    got = await get("/-/ready")
    assert (got.status, got.body) == (200, b"ready\n")
    daemon.not_ready = "stopping"
    assert (await get("/-/ready")).status == 503


@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready"])
async def test_health_is_plain_text(get: Get, path: str) -> None:
    assert (await get(path)).headers["Content-Type"] == "text/plain; charset=utf-8"


async def test_the_first_page_leads_to_the_others(get: Get) -> None:
    got = await get("/")
    assert got.status == 200
    assert got.headers["Content-Type"] == "text/html; charset=utf-8"
    for path in ("/metrics", "/-/healthy", "/-/ready"):
        assert f'href="{path}"' in got.body.decode()
        assert (await get(path)).status == 200


# What is refused


@pytest.mark.parametrize(
    "path", ["/nothing", "/metrics/", "/-/reload", "/-/", "/%2e%2e/etc/passwd", "/?x", "//"]
)
async def test_an_unknown_path_is_not_found(get: Get, path: str) -> None:
    assert (await get(path)).status == (200 if path == "/?x" else 404)


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy", "/-/ready"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_a_wrong_method_is_refused_with_the_right_ones(get: Get, path: str, method: str) -> None:
    got = await get(path, method)
    assert got.status == 405
    assert got.headers["Allow"] == "GET,HEAD"


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy", "/-/ready"])
async def test_head_has_the_headers_and_no_body(get: Get, path: str) -> None:
    full, head = await get(path), await get(path, "HEAD")
    assert (head.status, head.body) == (200, b"")
    for name in ("Content-Type", "Content-Length"):
        assert head.headers[name] == full.headers[name]


async def test_reload_is_not_there_unless_it_is_enabled(get: Get) -> None:
    assert (await get("/-/reload", "POST")).status == 404


@pytest.mark.parametrize("ok", [True, False])
async def test_a_reload_answers_what_came_of_it(serve: Serve, *, ok: bool) -> None:
    async def reload() -> ReloadAnswer:
        return ReloadAnswer(ok, {"added": ["downtown/anna"], "problems": []})

    _, url = await serve(reload=reload)
    got = await off_loop(ask, url, "/-/reload", "POST")
    assert got.status == (200 if ok else 400)
    assert got.headers["Content-Type"] == "application/json; charset=utf-8"
    assert json.loads(got.body) == {"added": ["downtown/anna"], "problems": []}
    refused = await off_loop(ask, url, "/-/reload")
    assert (refused.status, refused.headers["Allow"]) == (405, "POST")


async def test_a_reload_goes_on_when_its_client_has_gone(serve: Serve) -> None:
    begun, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def reload() -> ReloadAnswer:
        begun.set()
        await go.wait()
        done.set()
        return ReloadAnswer(ok=True, body={})

    server, url = await serve(reload=reload)
    with connect(url) as client:
        client.sendall(b"POST /-/reload HTTP/1.1\r\nHost: x\r\n\r\n")
        await begun.wait()
    await until(lambda: server.connections == 0)
    go.set()
    async with asyncio.timeout(PATIENCE):
        await done.wait()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Huge: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(40_000)) + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS client\r\n\r\n",
        b"BREW /pot HTCPCP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: nine\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"\xff\xfe\r\n\r\n",
    ],
    ids=["header", "url", "headers", "tls", "method", "length", "line", "bytes"],
)
async def test_what_is_no_request_is_refused_without_a_traceback(
    start: Start, request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    (url,) = await start()
    answer = await off_loop(raw, url, request_bytes)
    status = answer.split(b" ", 2)[1:2]
    assert status in ([b"400"], [b"405"], [b"404"], [b"431"], []), answer[:200]
    assert b"Traceback" not in answer
    assert [record for record in caplog.records if record.exc_info] == []
    assert caplog.records == []
    assert (await off_loop(ask, url, "/-/healthy")).status == 200


async def test_a_page_that_cannot_be_made_is_a_500_without_its_cause(
    start: Start, daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Iterator[bytes]:
        yield b"begun"
        raise ValueError("canary-secret")

    (url,) = await start()
    daemon.slices = broken()
    got = await off_loop(ask, url, "/metrics")
    assert got.status == 500
    assert b"canary" not in got.body
    assert b"begun" not in got.body
    assert [record.levelname for record in caplog.records] == ["ERROR"], "the log has it"
    assert (await off_loop(ask, url, "/-/healthy")).status == 200


# Where it listens


@pytest.mark.parametrize(
    ("text", "address", "written"),
    [
        ("127.0.0.1:19877", Address("127.0.0.1", 19877), "127.0.0.1:19877"),
        ("localhost:0", Address("localhost", 0), "localhost:0"),
        (":9100", Address("", 9100), ":9100"),
        ("[::1]:80", Address("::1", 80), "[::1]:80"),
        ("[::]:65535", Address("::", 65535), "[::]:65535"),
        ("[fe80::1%eth0]:80", Address("fe80::1%eth0", 80), "[fe80::1%eth0]:80"),
        ("metrics.example.com:80", Address("metrics.example.com", 80), "metrics.example.com:80"),
        ("0.0.0.0:00080", Address("0.0.0.0", 80), "0.0.0.0:80"),  # noqa: S104  parsed, not listened on
    ],
)
def test_an_address_is_read_and_written(text: str, address: Address, written: str) -> None:
    assert Address.parse(text) == address
    assert str(address) == written
    assert Address.parse(written) == address


@pytest.mark.parametrize(
    "text",
    ["", "19877", "localhost", "localhost:", ":", ":http", "::1:80", "[::1]", "[::1:80", "::1]:80", "[]:80",
     "x:65536", "x:-1", "x:+1", "x: 1", "x:1 ", " x:1", "x:٣", "x:" + "9" * 5000, "http://x:80", "[[::1]]:80",
     "a b:80", "x:80\n"],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"is no address to listen on; write host:port, \[v6\]:port or :port"
    ):
        Address.parse(text)


async def test_it_listens_on_several_addresses_and_tells_their_urls(start: Start) -> None:
    urls = await start(LOOPBACK, Address("127.0.0.2", 0), LOOPBACK)
    assert [urlsplit(url).hostname for url in urls] == ["127.0.0.1", "127.0.0.2", "127.0.0.1"]
    assert len({urlsplit(url).port for url in urls}) == 3
    for url in urls:
        assert (await off_loop(ask, url, "/-/healthy")).status == 200


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
async def test_it_listens_on_ipv6(start: Start) -> None:
    (url,) = await start(Address.parse("[::1]:0"))
    assert url.startswith("http://[::1]:")
    assert (await off_loop(ask, url, "/metrics")).body == PAGE


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
async def test_it_listens_on_addresses_of_both_kinds_at_once(start: Start) -> None:
    urls = await start(Address.parse("[::1]:0"), LOOPBACK, Address("127.0.0.2", 0))
    assert [urlsplit(url).hostname for url in urls] == ["::1", "127.0.0.1", "127.0.0.2"]
    got = await asyncio.gather(*(off_loop(ask, url, "/metrics") for url in urls * 5))
    assert [each.body for each in got] == [PAGE] * 15


async def test_an_empty_host_is_every_address(start: Start) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    urls = await start(Address("", port))
    assert {urlsplit(url).port for url in urls} == {port}
    for host in ("127.0.0.1", "127.0.0.3"):
        assert (await off_loop(ask, f"http://{host}:{port}", "/-/healthy")).status == 200


async def test_a_taken_port_is_said_and_nothing_is_left_listening(start: Start, daemon: Daemon) -> None:
    with socket.socket() as taken, socket.socket() as free:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free.bind(("127.0.0.1", 0))
        first, second = free.getsockname()[1], taken.getsockname()[1]
        free.close()
        with pytest.raises(CannotStartError) as caught:
            await start(Address("127.0.0.1", first), Address("127.0.0.1", second))
        assert str(caught.value) == (
            f"cannot listen on 127.0.0.1:{second}: something else does; choose another --web.listen-address"
        )
        with pytest.raises(ConnectionRefusedError):
            await off_loop(ask, f"http://127.0.0.1:{first}", "/")
    assert (await start(Address("127.0.0.1", first)))[0].endswith(f":{first}")
    assert daemon.accepts == []


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("192.0.2.1", "cannot listen on 192.0.2.1:0: "),
        ("x" * 70, "is no host name"),
        ("a..b", "is no host name"),
    ],
)
async def test_an_address_that_is_not_ours_is_said(start: Start, host: str, why: str) -> None:
    with pytest.raises(CannotStartError, match=why):
        await start(Address(host, 0))


async def test_stop_is_harmless_before_the_start_and_twice(daemon: Daemon) -> None:
    await Server(daemon.metrics, lambda: None).stop()
    server = Server(daemon.metrics, lambda: None)
    (url,) = await server.start([LOOPBACK])
    await server.stop()
    await server.stop()
    with pytest.raises(ConnectionRefusedError):
        await off_loop(ask, url, "/")


# Many at a time


async def test_twenty_scrapes_at_a_time_are_all_answered(get: Get, daemon: Daemon) -> None:
    slices = [b"a_metric 1\n" * 1000] * 50
    daemon.slices, page = slices, b"".join(slices)
    answers = await asyncio.gather(
        *(get("/metrics", Accept_Encoding="gzip" if n % 2 else "identity") for n in range(20))
    )
    for n, got in enumerate(answers):
        assert got.status == 200
        assert (gzip.decompress(got.body) if n % 2 else got.body) == page


async def test_a_scrape_does_not_wait_for_the_threads_of_the_loop(get: Get) -> None:
    """They hang where a name server does, and that is when the metrics are needed."""
    go = threading.Event()
    hung = [asyncio.get_running_loop().run_in_executor(None, go.wait) for _ in range(64)]
    try:
        assert gzip.decompress((await get("/metrics", Accept_Encoding="gzip")).body) == PAGE
    finally:
        go.set()
        await asyncio.gather(*hung)


async def test_a_slow_reader_is_in_nobodys_way_and_stop_does_not_wait_for_it(daemon: Daemon) -> None:
    daemon.slices = [b"a_metric 1\n" * 100_000] * 10
    server = Server(daemon.metrics, lambda: None)
    (url,) = await server.start([LOOPBACK])
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout=PATIENCE) as slow:
        slow.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await off_loop(slow.recv, 15) == b"HTTP/1.1 200 OK"  # and reads no further
        got = await off_loop(ask, url, "/metrics")
        assert len(got.body) == len(b"".join(daemon.slices))
        async with asyncio.timeout(5):
            await server.stop()


async def test_a_client_that_goes_away_is_no_error(
    start: Start, daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    daemon.slices = [b"a_metric 1\n" * 100_000] * 10
    (url,) = await start()
    where = urlsplit(url)
    for _ in range(5):
        with socket.create_connection((where.hostname, where.port), timeout=PATIENCE) as gone:
            gone.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            await off_loop(gone.recv, 15)
    assert (await off_loop(ask, url, "/-/healthy")).status == 200
    assert caplog.records == []


@pytest.mark.parametrize(
    ("urls", "link"),
    [
        ([], None),
        (
            [
                "unix:/run/it.sock",
                "http://127.0.0.1:1",
                "http://[::1]:1",
                "http://0.0.0.0:1",
                "http://[::]:1",
            ],
            None,
        ),
        (["http://[fe80::1%eth0]:1", "javascript://192.0.2.7/", "http://[::1", "nothing"], None),
        (["http://127.0.0.1:1", "https://192.0.2.7:1", "http://10.0.0.1:1"], "https://192.0.2.7:1"),
        (["http://[2001:db8::7]:1"], "http://[2001:db8::7]:1"),
    ],
)
def test_a_link_leads_to_another_machine_or_is_none(urls: list[str], link: str | None) -> None:
    assert link_of(urls) == link


def test_who_listens_on_every_address_is_named_to_others_by_its_host() -> None:
    host = socket.gethostname()
    urls = ["unix:/run/it.sock", "http://0.0.0.0:1", "http://[::]:1", "https://[::]:2", "http://192.0.2.7:3"]
    assert for_others(urls) == [
        "unix:/run/it.sock",
        f"http://{host}:1",
        f"https://{host}:2",
        "http://192.0.2.7:3",
    ]
