"""How answers are sent: JSON under an ETag, problems as RFC 9457 has them, compressed where that is asked."""

import json
from hashlib import blake2b
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import hdrs, web

COMPRESSED_FROM: Final = 1024
"""Bytes; less is not worth it."""

PROBLEM: Final = "application/problem+json"
JSON: Final = "application/json"

OPENS_NOTHING: Final = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


def document(request: web.Request, body: object) -> web.Response:
    """A body as JSON."""
    return kept(request, encoded(body), JSON)


def kept(request: web.Request, body: bytes, content_type: str) -> web.Response:
    """A body under its ETag, to be asked for again each time: a 304 without it for who has the same."""
    tag = blake2b(body, digest_size=12).hexdigest()
    headers = {
        **OPENS_NOTHING,
        "Cache-Control": "private, no-cache",
        "ETag": f'W/"{tag}"',
        "Vary": "Accept-Encoding",
    }
    held = request.if_none_match or ()
    if request.headers.get(hdrs.IF_NONE_MATCH) == "*" or any(each.value == tag for each in held):
        return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    return squeezed(request, web.Response(body=body, content_type=content_type, headers=headers))


def squeezed(request: web.Request, response: web.Response) -> web.Response:
    """Compressed, where it is worth it and asked for."""
    body = response.body
    if isinstance(body, bytes) and len(body) >= COMPRESSED_FROM and wants_gzip(request):
        response.enable_compression(web.ContentCoding.gzip)
    return response


def encoded(body: object) -> bytes:
    """A body as JSON; half a surrogate in a name must not cost the whole of it."""
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(body)).encode()


def problem(status: HTTPStatus, told: str, **more: object) -> web.Response:
    """What is wrong with a request, as RFC 9457 has it."""
    body = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": told, **more}
    headers = {**OPENS_NOTHING, "Cache-Control": "no-store"}
    return web.Response(status=status, body=encoded(body), content_type=PROBLEM, headers=headers)


def wants_gzip(request: web.Request) -> bool:
    """Whether the client takes gzip."""
    for offer in request.headers.get(hdrs.ACCEPT_ENCODING, "").split(","):
        coding, _, weight = offer.strip().partition(";")
        if coding.strip().lower() == "gzip":
            return weight.replace(" ", "").lower() not in ("q=0", "q=0.", "q=0.0", "q=0.00", "q=0.000")
    return False
