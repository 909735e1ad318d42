"""Where to listen: addresses as they are written, the sockets that come of them, and their URLs."""

import asyncio
import errno
import re
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from monitor.errors import CannotStartError

_ADDRESS: Final = re.compile(r"(?:\[(?P<v6>[^\[\]\s]+)\]|(?P<host>[^:\[\]\s]*)):(?P<port>\d{1,5})", re.ASCII)
_BACKLOG: Final = 128
_EVERY_ADDRESS: Final = ("0.0.0.0", "::")  # noqa: S104  compared
# A host's name may stand for an address of a family that this machine does not speak.
_NOT_HERE: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


class Address(NamedTuple):
    """Where to listen; an empty host means every address."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `host:port`, `[v6]:port` or `:port`. Raises ValueError with what to write instead."""
        found = _ADDRESS.fullmatch(text)
        if found is None or int(found["port"]) > 65535:  # noqa: PLR2004  the highest there is
            raise ValueError(f"{text!r} is no address to listen on; write host:port, [v6]:port or :port")
        return cls(found["v6"] or found["host"] or "", int(found["port"]))

    def __str__(self) -> str:
        """As it is written."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


async def listen(address: Address) -> list[socket.socket]:
    """The sockets that listen there, one for each address of the host. Raises CannotStartError."""
    loop = asyncio.get_running_loop()
    try:
        infos = await loop.getaddrinfo(
            address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return _bind([(family, where) for family, *_, where in infos])
    except (OSError, UnicodeError) as error:  # the latter for a name that no DNS label can hold
        raise CannotStartError(_why_not(address, error)) from error


def url_of(sock: socket.socket, *, tls: bool) -> str:
    """What answers at a listening socket: `https://[::1]:19877`, or `unix:/run/it.sock`."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    host, port, *_ = name
    return f"{'https' if tls else 'http'}://{Address(host, port)}"


def for_others(urls: Iterable[str]) -> list[str]:
    """The same as told on other machines: every address is none of them, so it has this host's name."""
    return list(dict.fromkeys(map(_of_this_host, urls)))


def link_of(urls: Iterable[str]) -> str | None:
    """The first of a machine's URLs that leads there from another one, if any does."""
    return next((each for each in urls if _leads_there(each)), None)


def _of_this_host(url: str) -> str:
    parts = urlsplit(url)
    if parts.hostname in _EVERY_ADDRESS:
        return f"{parts.scheme}://{socket.gethostname()}:{parts.port}"  # asks no DNS, which may be slow
    return url


def _leads_there(url: str) -> bool:
    try:
        parts = urlsplit(url)
        address = ip_address(parts.hostname or "")
    except ValueError:
        return False
    nearby = address.is_unspecified or address.is_loopback or address.is_link_local
    return parts.scheme in ("http", "https") and not nearby


def _bind(places: list[tuple[socket.AddressFamily, Any]]) -> list[socket.socket]:
    listening: list[socket.socket] = []
    missing: OSError | None = None
    for family, where in dict.fromkeys(places):
        try:
            sock = socket.create_server(where, family=family, backlog=_BACKLOG)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                _close(listening)
                raise
            missing = error
        else:
            sock.setblocking(False)  # noqa: FBT003  its only parameter
            listening.append(sock)
    if missing is not None and not listening:
        raise missing
    return listening


def _close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def _why_not(address: Address, error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError):
        return f"cannot listen on {address}: {address.host!r} is no host name"
    if error.errno == errno.EADDRINUSE:
        return f"cannot listen on {address}: something else does; choose another --web.listen-address"
    return f"cannot listen on {address}: {error.strerror or error}"
