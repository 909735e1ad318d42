"""What clients may cost, by clients that are slow, silent or many, over real sockets."""

import asyncio
import os
import select
import socket
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial

import pytest

from monitor.metrics.pieces import Piece
from monitor.web.connections import Limits
from monitor.web.pages import Page
from monitor.web.server import ReloadAnswer, Server
from tests.web.conftest import Serve
from tests.web.talk import PAGE, PATIENCE, TEXT, Daemon, ask, connect, is_ended, off_loop, until, work

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
HEALTHY = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n"


def noise(size: int) -> list[Piece]:
    """What does not shrink."""
    return [Piece.of(os.urandom(100_000)) for _ in range(0, size, 100_000)]


def answer(sock: socket.socket) -> bytes:
    """The next answer of a connection that goes on, which is a short one."""
    got = b""
    while not got.endswith(b"healthy\n"):
        part = sock.recv(4096)
        assert part, got
        got += part
    return got


def drip(sock: socket.socket, text: bytes) -> bool:
    """Send byte after byte without end; whether the server has ended the connection."""
    sock.settimeout(0.02)
    for n in range(int(PATIENCE / 0.02)):
        try:
            sock.sendall(text[n % len(text) :][:1])
            if sock.recv(1) == b"":
                return True
        except TimeoutError:  # that is our pace
            continue
        except ConnectionError:
            return True
    return False


def hangs_up(sock: socket.socket) -> bool:
    """Whether the server ends the connection, without reading from it."""
    poll = select.poll()
    poll.register(sock, 0)  # POLLHUP and POLLERR are always told
    return bool(poll.poll(PATIENCE * 1000))


@pytest.mark.parametrize("said", [b"", b"G", b"GET / HTTP/1.1\r\nHost:"], ids=["nothing", "byte", "headers"])
async def test_a_client_that_does_not_finish_its_request_is_cut_off(serve: Serve, said: bytes) -> None:
    server, url = await serve(limits=Limits(request_seconds=0.2))
    with connect(url) as silent:
        silent.sendall(said)
        assert await off_loop(is_ended, silent)
    await until(lambda: server.connections == 0)


async def test_dripping_bytes_gain_no_time(serve: Serve) -> None:
    _, url = await serve(limits=Limits(request_seconds=0.3))
    with connect(url) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nX-Long: ")
        assert await off_loop(drip, slow, b"x")


async def test_nor_do_they_for_the_second_request_of_a_connection(serve: Serve) -> None:
    _, url = await serve(limits=Limits(request_seconds=0.3, idle_seconds=60))
    with connect(url) as slow:
        slow.sendall(HEALTHY)
        assert await off_loop(answer, slow)
        assert await off_loop(drip, slow, b"x")


async def test_nor_for_one_whose_beginning_came_with_the_first(serve: Serve) -> None:
    _, url = await serve(limits=Limits(request_seconds=0.3, idle_seconds=60))
    with connect(url) as slow:
        slow.sendall(HEALTHY + b"GET / HT")
        assert await off_loop(answer, slow)
        assert await off_loop(is_ended, slow)


async def test_an_idle_connection_lives_longer_and_not_for_ever(serve: Serve) -> None:
    _, url = await serve(limits=Limits(request_seconds=0.05, idle_seconds=1))
    began = asyncio.get_running_loop().time()
    with connect(url) as idle:
        idle.sendall(HEALTHY)
        assert await off_loop(answer, idle)
        assert await off_loop(is_ended, idle)
    assert asyncio.get_running_loop().time() - began >= 1


async def test_a_connection_serves_many_requests(serve: Serve) -> None:
    _, url = await serve()
    with connect(url) as kept:
        for _ in range(20):
            kept.sendall(HEALTHY)
            assert (await off_loop(answer, kept)).startswith(b"HTTP/1.1 200 OK")


async def test_a_client_that_never_reads_is_cut_off(serve: Serve, daemon: Daemon) -> None:
    daemon.slices = [b"a_metric 1\n" * 100_000] * 30
    server, url = await serve(limits=Limits(response_seconds=1))
    with connect(url) as deaf:
        deaf.sendall(GET)
        assert await off_loop(hangs_up, deaf)
    await until(lambda: server.connections == 0)
    assert (await off_loop(ask, url, "/-/healthy")).status == 200


async def test_so_is_one_that_reads_too_slowly(serve: Serve, daemon: Daemon) -> None:
    daemon.slices = [b"a_metric 1\n" * 100_000] * 30
    _, url = await serve(limits=Limits(response_seconds=1))
    with connect(url) as slow:
        slow.sendall(GET)
        assert await off_loop(sip, slow) < 30 * 1_100_000


def sip(sock: socket.socket) -> int:
    """Read a little now and then to the end; how much there was."""
    got = 0
    sock.settimeout(PATIENCE)
    try:
        while part := sock.recv(4096):
            got += len(part)
            select.select([], [], [], 0.02)  # our pace
    except ConnectionError:
        return got
    return got


async def test_deaf_clients_hold_one_page_and_a_little_each(serve: Serve, daemon: Daemon) -> None:
    press = noise(11_000_000)
    daemon.page = lambda: Page(TEXT, iter(press))
    server, url = await serve()
    tracemalloc.start()
    try:
        with ExitStack() as stack:
            for _ in range(20):
                deaf = stack.enter_context(connect(url))
                deaf.sendall(GET)
                assert await off_loop(deaf.recv, 15) == b"HTTP/1.1 200 OK"
            held, _ = tracemalloc.get_traced_memory()
            assert server.connections == 20
    finally:
        tracemalloc.stop()
    assert held < 20 * 512 * 1024


async def test_of_many_pages_that_nobody_reads_the_oldest_is_given_up(serve: Serve, daemon: Daemon) -> None:
    size = 20_000_000
    daemon.page = lambda: Page(TEXT, noise(size))
    _, url = await serve(limits=Limits(pages_bytes=2 * size + 100_000))
    with ExitStack() as stack:
        deaf = [stack.enter_context(connect(url)) for _ in range(3)]
        for each in deaf[:2]:
            each.sendall(GET)
            assert await off_loop(each.recv, 15) == b"HTTP/1.1 200 OK"
        assert len((await off_loop(ask, url, "/metrics")).body) == size
        assert await off_loop(hangs_up, deaf[0])
        assert await off_loop(sized, deaf[1]) > size


def has_connections(server: Server, count: int) -> bool:
    return server.connections == count


def sized(sock: socket.socket) -> int:
    got = 0
    while got <= 20_000_000 and (part := sock.recv(65536)):
        got += len(part)
    return got


async def test_where_there_is_no_room_the_one_that_waits_longest_for_its_client_goes(serve: Serve) -> None:
    server, url = await serve(limits=Limits(connections=3))
    with ExitStack() as stack:
        silent = []
        for n in range(3):
            silent.append(stack.enter_context(connect(url)))
            await until(partial(has_connections, server, n + 1))
        silent[0].sendall(HEALTHY)
        assert await off_loop(answer, silent[0])
        assert (await off_loop(ask, url, "/metrics")).body == PAGE
        assert await off_loop(is_ended, silent[1])
        silent[0].sendall(HEALTHY)
        assert await off_loop(answer, silent[0])


async def test_a_flood_of_silent_connections_keeps_nobody_out_and_stays_bounded(serve: Serve) -> None:
    server, url = await serve(limits=Limits(connections=10))
    most = 0
    with ExitStack() as stack:
        for n in range(200):
            stack.enter_context(connect(url))
            if n % 20 == 19:
                assert (await off_loop(ask, url, "/metrics")).body == PAGE
            most = max(most, server.connections)
    assert most <= 10


async def test_whom_we_are_working_for_is_not_sent_away_for_another(serve: Serve) -> None:
    go = asyncio.Event()
    begun: list[None] = []

    async def reload() -> ReloadAnswer:
        begun.append(None)
        await go.wait()
        return ReloadAnswer(ok=True, body={})

    _, url = await serve(limits=Limits(connections=2), reload=reload)
    served = [asyncio.ensure_future(off_loop(ask, url, "/-/reload", "POST")) for _ in range(2)]  # noqa: TID251
    await until(lambda: len(begun) == 2)
    with closing(connect(url)) as refused:
        refused.sendall(HEALTHY)
        assert await off_loop(is_ended, refused)
    go.set()
    assert [each.status for each in await asyncio.gather(*served)] == [200, 200]


async def test_polls_go_on_while_clients_do_their_worst(serve: Serve, daemon: Daemon) -> None:
    """The loop's own work has its turn between any two pieces that take a while, of any page."""
    turns: list[int] = []

    def pieces() -> Iterator[Piece]:
        for _ in range(50):
            before = len(turns)
            asyncio.get_running_loop().call_soon(turns.append, before)
            work(0.002)
            yield Piece.of(b"x" * 100_000)
            assert len(turns) > before

    daemon.page = lambda: Page(TEXT, pieces())
    _, url = await serve()
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connect(url)).sendall(GET)
        got = await asyncio.gather(*(off_loop(ask, url, "/metrics") for _ in range(20)))
    assert {len(each.body) for each in got} == {5_000_000}


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-Huge: " + b"x" * 9000 + b"\r\n\r\n", b"400"),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(101)) + b"\r\n",
            b"400",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(90)) + b"\r\n",
            b"200",
        ),
    ],
    ids=["line", "header", "headers", "fewer"],
)
async def test_lines_and_headers_have_a_limit(serve: Serve, request_bytes: bytes, status: bytes) -> None:
    _, url = await serve()
    with connect(url) as client:
        client.sendall(request_bytes)
        assert (await off_loop(client.recv, 12))[9:] == status
