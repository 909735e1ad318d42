"""What a server may do to a request instead of answering it, and places that answer nobody."""

import asyncio
import ctypes
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from tests.wix.servers import REQUEST_ID, Play, Talk, message, says

HTML: Final = b"<!doctype html><title>Bad gateway</title>"
CHUNKED: Final = (
    f"HTTP/1.1 200 Fine\r\nx-wix-request-id: {REQUEST_ID}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
)

_DRIP: Final = 0.015  # seconds between two bytes
_DROP_ALL: Final = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF: return 0, so of each packet keep nothing
_ATTACH_FILTER: Final = 26
_DETACH_FILTER: Final = 27


async def close(talk: Talk) -> None:
    """Go without a word."""
    talk.writer.close()


async def reset(talk: Talk) -> None:
    """Go with a slammed door."""
    same: socket.socket = talk.writer.get_extra_info("socket")
    same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close sends RST, not FIN
    talk.writer.transport.abort()


def then(data: bytes, last: Play) -> Play:
    """Say this, and then do that."""

    async def play(talk: Talk) -> None:
        await says(data)(talk)
        await last(talk)

    return play


async def drip(talk: Talk) -> None:
    """Begin an answer and give it byte by byte."""
    talk.writer.write(message(200, b"", length=10_000))
    while not talk.writer.is_closing():
        talk.writer.write(b" ")
        await talk.writer.drain()
        await asyncio.sleep(_DRIP)  # no wait of the test: it is the slowness it is about


async def endless(talk: Talk) -> None:
    """Give a body without an end."""
    talk.writer.write(CHUNKED)
    while not talk.writer.is_closing():
        talk.writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await talk.writer.drain()


async def endless_head(talk: Talk) -> None:
    """Give headers without an end."""
    talk.writer.write(b"HTTP/1.1 200 Fine\r\n")
    while not talk.writer.is_closing():
        talk.writer.write(b"X-More: " + b"x" * 1000 + b"\r\n")
        await talk.writer.drain()


def answered(status: int, body: bytes = b"", **headers: str) -> Play:
    """Give this answer."""
    return says(message(status, body, length=None, **headers))


@contextmanager
def dead_port() -> Iterator[int]:
    """A port that refuses."""
    with socket.socket() as taken:  # bound and not listening: nobody else can take it meanwhile
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def full_backlog() -> Iterator[int]:
    """A port whose queue is full: what else connects hears nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.settimeout(0)
            with suppress(BlockingIOError):
                filler.connect(listening.getsockname())
        yield listening.getsockname()[1]
        for filler in fillers:
            filler.close()


def drop_all(sock: socket.socket) -> None:
    """Have the kernel drop whatever arrives here from now on, without a word (socket(7))."""
    program = ctypes.create_string_buffer(_DROP_ALL)
    fprog = struct.pack("HL", 1, ctypes.addressof(program))
    sock.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, fprog)


def drop_nothing(sock: socket.socket) -> None:
    """Let packets in again."""
    sock.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)
