"""What each fault does: the answers that are wrong in themselves, and those wrong on the wire.

A play on the wire that has no proper end waits for its connection to be lost: the client goes, or the
simulator stops and aborts it, and either way aiohttp cancels the request.
"""

import asyncio
import gzip
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, Final

from aiohttp import web

from monitor.simulator.answers import Document, as_json, envelope, page, token_refusal
from monitor.simulator.scenario import Fault, Kind
from monitor.simulator.world import Shown

HUGE: Final = 10 * 1024 * 1024
"""Bytes of a huge body."""
BOMB: Final = 32 * 1024 * 1024
"""Bytes of a gzip bomb once unpacked; a thousandth of that travels."""

_PIECE: Final = b" " * 65_536
_NO_LINGER: Final = struct.pack("ii", 1, 0)

PlainAnswer = Callable[[Fault, Document], web.Response]
WirePlay = Callable[[web.Request, Fault, Document], Awaitable[web.StreamResponse]]


async def play(request: web.Request, fault: Fault, document: Document) -> web.StreamResponse:
    """Meet a request with a fault; `document` is the body that the true 200 would have."""
    plain = _PLAIN.get(fault.kind)
    if plain is not None:
        return plain(fault, document)
    return await _ON_THE_WIRE[fault.kind](request, fault, document)


def told(fault: Fault, shown: Shown | None) -> Shown | None:
    """What a reader learns of the connection's status from a faulty answer; None for nothing."""
    if fault.kind == "unknown_status":
        return Shown(fault.unknown_status, shown.reason if shown is not None else None)
    if fault.kind == "null_fields":
        return Shown(None)
    if fault.kind == "drip":
        return shown
    if fault.status == web.HTTPNotFound.status_code and fault.body == "envelope":
        return Shown("NOT_FOUND")
    return None


async def until_lost() -> None:
    """Wait for the cancellation that comes with the loss of the connection."""
    await asyncio.Event().wait()


def _status(fault: Fault, _: Document) -> web.Response:
    answer = _with_body(fault, fault.status or 500)
    if fault.retry_after is not None:
        answer.headers["Retry-After"] = fault.retry_after
    return answer


def _with_body(fault: Fault, status: int) -> web.Response:
    if fault.body == "html":
        return page(status)
    if fault.body == "message":
        return as_json({"message": fault.code or ""}, status)
    return web.Response(status=status) if fault.body == "empty" else envelope(status, fault.code)


def _raw_json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


def _changed(document: Document, **fields: Any) -> Document:
    """The document with fields of its innermost object set to something else."""
    if "connection" in document:
        return {"connection": document["connection"] | fields}
    return {**document, **fields}


def _nulled(document: Document) -> Document:
    inner: Document = document.get("connection", document)
    return _changed(document, **{field: None for field in inner if field != "id"})


def _not_utf8(document: Document) -> bytes:
    marked = _changed(document, status="MARK", token_type="MARK")  # noqa: S106  no password
    return json.dumps(marked).encode().replace(b"MARK", b"SYNC\xff\xfe")


_PLAIN: Final[dict[Kind, PlainAnswer]] = {
    "status": _status,
    "not_found_html": lambda *_: page(404),
    "not_found_other_json": lambda *_: as_json({"message": "no route"}, 404),
    "not_json": lambda *_: page(200),
    "not_utf8": lambda _, document: _raw_json(_not_utf8(document)),
    "truncated_json": lambda _, document: _raw_json(_half(document)),
    "redirect": lambda fault, _: web.Response(status=302, headers={"Location": fault.redirect or ""}),
    "null_fields": lambda _, document: as_json(_nulled(document)),
    "no_connection": lambda *_: as_json({}),
    "wrong_id": lambda _, document: as_json(_changed(document, id="somebody-else")),
    "unknown_status": lambda fault, document: as_json(_changed(document, status=fault.unknown_status)),
    "refuse": lambda *_: token_refusal(401, "invalid_client", "Refused by the scenario."),
    "message_shape": lambda *_: token_refusal(401, "invalid_client", "", "message"),
    "expires_in": lambda fault, document: as_json({**document, "expires_in": fault.expires_in}),
}


def _half(document: Document) -> bytes:
    body = json.dumps(document).encode()
    return body[: len(body) // 2]


async def _begin(request: web.Request, length: int | None = None, **headers: str) -> web.StreamResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = web.StreamResponse(headers={"Content-Type": "application/json"} | named)
    answer.content_length = length
    await answer.prepare(request)
    return answer


async def _truncated(request: web.Request, _: Fault, document: Document) -> web.StreamResponse:
    half = _half(document)
    answer = await _begin(request, 2 * len(half))
    await answer.write(half)
    return await _close(request, answer)


async def _huge(request: web.Request, _: Fault, document: Document) -> web.StreamResponse:
    answer = await _begin(request)
    for _piece in range(HUGE // len(_PIECE)):  # white space before it: still the same document
        await answer.write(_PIECE)
    await answer.write(json.dumps(document).encode())
    return answer


async def _endless(request: web.Request, _: Fault, document: Document) -> web.StreamResponse:
    answer = await _begin(request)
    await answer.write(json.dumps(document).encode())
    while True:
        await answer.write(_PIECE)
        await asyncio.sleep(0)  # a socket that takes all would never yield


async def _gzip_bomb(request: web.Request, _: Fault, document: Document) -> web.StreamResponse:
    answer = await _begin(request, Content_Encoding="gzip")
    bomb = await asyncio.to_thread(_bomb)  # 0.2 s of work the first time
    await answer.write(bomb + gzip.compress(json.dumps(document).encode()))
    return answer


@cache
def _bomb() -> bytes:
    return gzip.compress(b" " * BOMB)


async def _drip(request: web.Request, fault: Fault, document: Document) -> web.StreamResponse:
    body = json.dumps(document).encode()
    answer = await _begin(request, len(body))
    for place in range(len(body)):
        await answer.write(body[place : place + 1])
        await asyncio.sleep(fault.drip.total_seconds())
    return answer


async def _hang(_request: web.Request, _fault: Fault, _document: Document) -> web.StreamResponse:
    await until_lost()
    return web.Response()


async def _hang_after_headers(request: web.Request, _: Fault, document: Document) -> web.StreamResponse:
    answer = await _begin(request, len(json.dumps(document)))
    await until_lost()
    return answer


async def _reset(request: web.Request, _: Fault, __: Document) -> web.StreamResponse:
    if request.transport is not None:
        with socket.socket(fileno=os.dup(request.transport.get_extra_info("socket").fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)  # close sends RST, not FIN
        request.transport.abort()
    await until_lost()
    return web.Response()


async def _closed(request: web.Request, _: Fault, __: Document) -> web.StreamResponse:
    return await _close(request, web.Response())


async def _close(request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.close()
    await until_lost()
    return answer


_ON_THE_WIRE: Final[dict[Kind, WirePlay]] = {
    "truncated": _truncated,
    "huge": _huge,
    "endless": _endless,
    "gzip_bomb": _gzip_bomb,
    "drip": _drip,
    "hang": _hang,
    "hang_after_headers": _hang_after_headers,
    "reset": _reset,
    "close": _closed,
}
