"""The kinds of value a file holds: each reads its text strictly and says what to write instead."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Annotated, Any, Final
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from monitor.config.sentences import complaint, kind_of, show
from monitor.core.model import Status
from monitor.durations import format_duration, parse_duration

DURATION_PATTERN: Final = (
    r"^(0|(?=\d)(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?)$"  # as monitor.durations reads it
)
DOTS: Final = (".", "..")
"""What no path of a URL can end in, however it is written: clients take it away."""

_MOMENT_PATTERN: Final = r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})$"
_MOMENT: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})?", re.ASCII
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_URL: Final = re.compile(r"[!-~]+")


def _as_duration(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        digits = isinstance(value, int) and not isinstance(value, bool)
        example = f"{value}s" if digits and 0 < value < 10**6 else "90s"
        raise complaint(f"{show(value)} is not a duration; write for example {example}")
    try:
        return parse_duration(value)
    except ValueError:
        raise complaint(f"{show(value)} is not a duration; write for example 90s, 5m or 1h30m") from None


Duration = Annotated[
    timedelta,
    BeforeValidator(_as_duration),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "examples": ["90s", "5m", "1h30m"]}),
]
"""A span such as `90s`, given as a timedelta."""


def between(least: str, most: str) -> AfterValidator:
    """Bounds for a Duration, both included."""
    low, high = parse_duration(least), parse_duration(most)

    def check(span: timedelta) -> timedelta:
        if span < low:
            raise complaint(f"{format_duration(span)} is too short; write {least} or more")
        if span > high:
            raise complaint(f"{format_duration(span)} is too long; write {most} or less")
        return span

    return AfterValidator(check)


Interval = Annotated[Duration, between("1s", "7d")]


def _as_moment(value: Any) -> datetime:
    if not isinstance(value, str):
        raise complaint(f"{show(value)} is not a moment; write for example 2026-12-24T06:00:00Z")
    match = _MOMENT.fullmatch(value)
    if match is None:
        raise complaint(f"{show(value)} is not a moment; write for example 2026-12-24T06:00:00Z")
    if match.group(2) is None:
        raise complaint(f"{show(value)} has no time zone; write for example {value}Z or {value}+02:00")
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise complaint(f"{show(value)} is in no calendar; write a real date and time") from None


Moment = Annotated[
    datetime,
    BeforeValidator(_as_moment),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": _MOMENT_PATTERN}),
]
"""An instant as RFC 3339 writes it, given as aware UTC."""


def _without_control(text: str) -> str:
    if found := _CONTROL.search(text):
        raise complaint(f"contains the control character U+{ord(found.group()):04X}; remove it")
    return text


def _with_an_address(name: str) -> str:
    if name in DOTS:
        raise complaint(f"{show(name)} can have no page: a browser takes it for a folder; write another name")
    return name


Team = Annotated[str, Field(max_length=200), AfterValidator(_without_control)]
LabelValue = Annotated[str, Field(max_length=1000), AfterValidator(_without_control)]
Name = Annotated[
    str,
    Field(min_length=1, max_length=200, json_schema_extra={"not": {"enum": [*DOTS]}}),
    AfterValidator(_without_control),
    AfterValidator(_with_an_address),
]
ConnectionId = Annotated[str, Field(min_length=1, max_length=300), AfterValidator(_without_control)]
Path = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_without_control)]


def shape(pattern: str, message: Callable[[str], str]) -> AfterValidator:
    """Text of one shape; `message` says what is wrong with a text that lacks it."""
    compiled = re.compile(pattern, re.ASCII)

    def check(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise complaint(message(text))
        return text

    return AfterValidator(check)


_SITE_NAME: Final = r"[a-z0-9][a-z0-9._-]{0,199}"
_VARIABLE: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_OPAQUE: Final = r"[!-~]{1,500}"

SiteName = Annotated[
    str,
    shape(
        _SITE_NAME,
        lambda text: (
            f"{show(text)} is no site name; "
            "write up to 200 of a-z 0-9 . _ - that begin with a letter or digit"
        ),
    ),
    WithJsonSchema({"type": "string", "pattern": f"^{_SITE_NAME}$"}),
]
Variable = Annotated[
    str,
    shape(
        _VARIABLE,
        lambda _: (
            "is not the name of an environment variable; write letters, digits and _, never the secret itself"
        ),
    ),
    WithJsonSchema({"type": "string", "pattern": f"^{_VARIABLE}$"}),
]
Opaque = Annotated[
    str,
    shape(
        _OPAQUE,
        lambda _: "is no identifier; write it as Wix shows it: 1 to 500 visible ASCII characters, no spaces",
    ),
    WithJsonSchema({"type": "string", "pattern": f"^{_OPAQUE}$"}),
]


def _split(text: str) -> SplitResult:
    """The parts of an http or https URL; its text is not repeated, as a password may be in it."""
    try:
        parts = (
            urlsplit(text) if _URL.fullmatch(text) and "\\" not in text else SplitResult("", "", "", "", "")
        )
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable, parts = False, SplitResult("", "", "", "", "")
    if not usable:
        raise complaint("is not a URL; write for example https://www.wixapis.com")
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _base_url(text: str) -> str:
    parts = _split(text)
    if "@" in parts.netloc:
        raise complaint("has a user name in it; write the URL without one, credentials go into sites")
    if "?" in text or "#" in text:
        raise complaint("has a ? or # part; write only scheme, host and path")
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise complaint(f"plain http would send the credential unprotected; write https://{parts.netloc}")
    return text.rstrip("/")


def _proxy_url(text: str) -> str:
    parts = _split(text)
    if "@" in parts.netloc:
        told = "has a user name or password in it; set HTTPS_PROXY in the environment"
        raise complaint(f"{told} and write proxy_from_environment: true")
    if parts.path.strip("/") or "?" in text or "#" in text:
        raise complaint("has more than a host and port in it; write for example http://proxy:3128")
    return text.rstrip("/")


def _feed_url(text: str) -> str:
    parts = _split(text)
    if "@" in parts.netloc:
        raise complaint("has a user name in it; write the URL without one, and bearer_token_file beside it")
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise complaint(f"plain http lets others change the list; write https://{parts.netloc}")
    return text


FeedUrl = Annotated[str, AfterValidator(_feed_url), Field(json_schema_extra={"format": "uri"})]
BaseUrl = Annotated[str, AfterValidator(_base_url), Field(json_schema_extra={"format": "uri"})]
ProxyUrl = Annotated[str, AfterValidator(_proxy_url), Field(json_schema_extra={"format": "uri"})]

RESERVED_LABELS: Final = frozenset(
    {"site", "connection", "connection_id", "calendar_type", "team", "status", "reason", "direction"}
)
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)


def label_name(name: str) -> str:
    """The name of a label that is not one of ours; raises what is wrong with it."""
    if name in RESERVED_LABELS:
        raise complaint(f"the label {name} is one of ours; choose another name")
    if _LABEL.fullmatch(name) is None or name.startswith("__"):
        told = f"{show(name)} is no label name; write letters, digits and _"
        raise complaint(f"{told} that begin with a letter or a single _")
    return name


LabelName = Annotated[str, AfterValidator(label_name)]


def _as_status(value: Any) -> Status:
    if isinstance(value, str) and value in Status.__members__:
        return Status(value)
    shown = show(value) if isinstance(value, str) else kind_of(value)
    raise complaint(f"{shown} is no status; write one of {', '.join(Status)}")


StatusWord = Annotated[
    Status, BeforeValidator(_as_status), WithJsonSchema({"type": "string", "enum": [str(s) for s in Status]})
]
