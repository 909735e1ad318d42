"""A PostgreSQL's URL: what it must say, and never a password. No message repeats any of it."""

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import Final, NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

SCHEMES: Final = ("postgresql://", "postgres://")
EXAMPLE: Final = "postgresql://monitor@db.example.org:5432/monitor"
SYSTEM: Final = "system"
"""Of `sslrootcert`, as libpq has it: the machine's own authorities."""

_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_HOST: Final = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]+)(?::([0-9]+))?", re.ASCII)
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
_LONE_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})", re.ASCII)


class Database(NamedTuple):
    """A URL without its password, and that; None: it has none."""

    url: str
    password: str | None


class Host(NamedTuple):
    """One of a URL's, or the folder of a socket; no port: the usual one."""

    name: str
    port: str | None


def is_database(url: str) -> bool:
    """Whether it is PostgreSQL's."""
    return url.startswith(SCHEMES)


def split(url: str) -> Database:
    """Take the password out of a URL."""
    scheme, _, rest = url.partition("://")
    hosts, slash, path = rest.partition("/")
    login, at, hosts = hosts.rpartition("@")
    user, _, password = login.partition(":")
    return Database(f"{scheme}://{user}{at}{hosts}{slash}{path}", unquote(password) or None)


def place_of(url: str) -> str:
    """Where it is, without user, password and options, such as `postgresql://db.example.org/monitor`.

    Of a URL that may be read in two ways, in one of which this would be a password, it is the scheme alone.
    """
    scheme, _, rest = url.partition("?")[0].partition("://")
    if next(_unclear(url), None) is not None:
        return f"{scheme}://"
    hosts, slash, path = rest.partition("/")
    return f"{scheme}://{hosts.rpartition('@')[2]}{slash}{path}"


def faults_of(url: str) -> Iterator[str]:
    """What is wrong with a URL."""
    if (fault := next(_unclear(url), None)) is not None:
        yield fault
        return
    try:
        parts, options = _parts(url)
    except ValueError:
        yield f"is no URL of PostgreSQL; write for example {EXAMPLE}"
        return
    named = parts.path.strip("/") or "dbname" in options or "database" in options
    if not named or not (_listed(parts) or "host" in options):
        yield f"names no host or no database; write for example {EXAMPLE}"
    elif not all(map(_is_host, _listed(parts))) or not all(map(_is_port, _ports(options))):
        yield f"has a host or a port that can be none; write for example {EXAMPLE}"
    if options.keys() & {"password", "sslpassword"}:
        yield "has a password among its options; write it into a file and name that in store.password_file"
    yield from _faults_of_tls(options)


def is_open_to_others(url: str) -> bool:
    """Whether it leaves to chance whom it talks to, over a network."""
    return "sslmode" not in options_of(url) and not all(_is_here(each.name) for each in hosts_of(url))


def hosts_of(url: str) -> list[Host]:
    """Its hosts in their order; none where they are not plainly to be told apart."""
    parts, options = _parts(url)
    if listed := _listed(parts):
        hosts = [Host(unquote(each[1]).strip("[]"), each[2]) for each in map(_HOST.fullmatch, listed) if each]
        return hosts if len(hosts) == len(listed) else []
    names = _last(options, "host").split(",")
    ports: Sequence[str | None] = _ports(options) or [None]
    ports = [*ports] * len(names) if len(ports) == 1 else ports
    plain = all(names) and not any(":" in each for each in names) and len(ports) == len(names)
    return list(map(Host, names, ports)) if plain else []


def options_of(url: str) -> dict[str, str]:
    """What stands behind its `?`."""
    _, options = _parts(url)
    return {name: values[-1] for name, values in options.items()}


def _unclear(url: str) -> Iterator[str]:
    """What lets a password be taken for something else, as characters in it that are not escaped may."""
    rest = url.partition("://")[2]
    authority = re.split("[/?]", rest, maxsplit=1)[0]
    login = authority.rpartition("@")[0]
    if "#" in url:
        yield "has a # in it; write %23 for one that belongs to a name or a password"
    if "@" in rest[len(authority) :] or "@" in login.partition(":")[0]:
        yield "has an @ where none can be; write %2F for a / in a password, %3F for a ?, %40 for an @"
    if _LONE_PERCENT.search(url):
        yield "has a % in it that begins no escape; write %25 for one that belongs to a name or a password"


def _faults_of_tls(options: dict[str, list[str]]) -> Iterator[str]:
    mode = _last(options, "sslmode", "disable")
    if mode not in _MODES:
        yield f"has a strange sslmode; write one of {', '.join(_MODES)}"
    elif _last(options, "sslrootcert") == SYSTEM and mode != "verify-full":
        yield "has sslrootcert=system, whose authorities vouch for anybody's host; add sslmode=verify-full"


def _parts(url: str) -> tuple[SplitResult, dict[str, list[str]]]:
    parts = urlsplit(split(url).url)
    return parts, parse_qs(parts.query, strict_parsing=True) if parts.query else {}


def _listed(parts: SplitResult) -> list[str]:
    hosts = parts.netloc.rpartition("@")[2]
    return hosts.split(",") if hosts else []


def _last(options: dict[str, list[str]], name: str, default: str = "") -> str:
    return options.get(name, [default])[-1]


def _ports(options: dict[str, list[str]]) -> list[str]:
    return _last(options, "port").split(",") if "port" in options else []


def _is_host(listed: str) -> bool:
    match = _HOST.fullmatch(listed)
    return match is not None and (match[2] is None or _is_port(match[2]))


def _is_port(port: str) -> bool:
    return _PORT.fullmatch(port) is not None and 0 < int(port) < 2**16


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.startswith("/")
