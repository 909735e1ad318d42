"""A PostgreSQL's URL: what it must say, and never a password. No message repeats any of it."""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final, NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

SCHEMES: Final = ("postgresql://", "postgres://")
EXAMPLE: Final = "postgresql://monitor@db.example.org:5432/monitor"

_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


class Database(NamedTuple):
    """A URL without its password, and that; None: it has none."""

    url: str
    password: str | None


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
    """Where it is, without user, password and options, such as `postgresql://db.example.org/monitor`."""
    scheme, _, rest = url.partition("?")[0].partition("://")
    hosts, slash, path = rest.partition("/")
    return f"{scheme}://{hosts.rpartition('@')[2]}{slash}{path}"


def faults_of(url: str) -> Iterator[str]:
    """What is wrong with a URL."""
    if "#" in url:
        yield "has a # in it; write %23 for one that belongs to a name or a password"
        return
    try:
        parts, options = _parts(url)
    except ValueError:
        yield f"is no URL of PostgreSQL; write for example {EXAMPLE}"
        return
    named = parts.path.strip("/") or "dbname" in options or "database" in options
    if not named or not (_hosts(parts) or "host" in options):
        yield f"names no host or no database; write for example {EXAMPLE}"
    if options.keys() & {"password", "sslpassword"}:
        yield "has a password among its options; write it into a file and name that in store.password_file"
    if options.get("sslmode", ["disable"])[-1] not in _MODES:
        yield f"has a strange sslmode; write one of {', '.join(_MODES)}"


def is_open_to_others(url: str) -> bool:
    """Whether it leaves to chance whom it talks to, over a network."""
    parts, options = _parts(url)
    hosts = [each.strip("[]") for each in _hosts(parts)]
    return "sslmode" not in options and not all(map(_is_here, hosts))


def _parts(url: str) -> tuple[SplitResult, dict[str, list[str]]]:
    parts = urlsplit(url)
    return parts, parse_qs(parts.query, strict_parsing=True) if parts.query else {}


def _hosts(parts: SplitResult) -> list[str]:
    each = parts.netloc.rpartition("@")[2].split(",")
    return [host for host in (one.rpartition(":")[0] or one for one in each) if host]


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.startswith(("/", "%2F"))
