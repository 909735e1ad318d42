"""The scenario: which sites and connections there are, what becomes of them when, and what goes wrong.

The models are the file's form; `README.md` beside this file is its reference. They may also be built in
code: `Scenario(sites=(Site(name="downtown", api_key="k", site_id="s"),))`.
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from monitor.config.source import Duration, complaint, parse
from monitor.errors import ConfigError

Endpoint = Literal["connection", "token"]
Kind = Literal[
    "latency",
    "status",
    "not_found_html",
    "not_found_other_json",
    "not_json",
    "not_utf8",
    "truncated",
    "truncated_json",
    "huge",
    "endless",
    "gzip_bomb",
    "drip",
    "hang",
    "hang_after_headers",
    "reset",
    "close",
    "redirect",
    "null_fields",
    "no_connection",
    "wrong_id",
    "unknown_status",
    "refuse",
    "message_shape",
    "expires_in",
]

CONNECTION_ONLY: Final = frozenset({"no_connection", "wrong_id", "unknown_status"})
TOKEN_ONLY: Final = frozenset({"refuse", "message_shape", "expires_in"})

_NAMED_BY_KEY: Final = ("status", "redirect", "unknown_status", "drip", "expires_in", "latency")
_GOES_WITH: Final = {"body": "status", "code": "status", "retry_after": "status"} | {
    key: key for key in _NAMED_BY_KEY if key != "latency"
}
_NEEDED: Final = ("status", "redirect")


def _some_time(span: timedelta) -> timedelta:
    if span <= timedelta():
        raise complaint("is no time at all; write for example 30s")
    return span


NonEmpty = Annotated[str, Field(min_length=1)]
SomeTime = Annotated[Duration, AfterValidator(_some_time)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True)


class Fault(_Part):
    """One thing that goes wrong, written as a word (`hang`) or by its key (`{status: 503}`).

    `latency` goes with every kind: it passes before anything is done.
    """

    kind: Kind
    latency: Duration = timedelta()
    status: Annotated[StrictInt, Field(ge=200, le=599)] | None = None
    body: Literal["envelope", "html", "empty", "message"] = "envelope"
    code: str | None = None
    retry_after: str | None = None
    redirect: str | None = None
    unknown_status: str = "HIBERNATING"
    drip: SomeTime = timedelta(milliseconds=100)
    expires_in: Any = None

    @model_validator(mode="before")
    @classmethod
    def _spelled_out(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {"kind": given}
        if isinstance(given, Mapping) and "kind" not in given:
            named = next((key for key in _NAMED_BY_KEY if key in given), None)
            return {**given, "kind": named} if named is not None else given
        return given

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for key in sorted(self.model_fields_set & _GOES_WITH.keys()):
            if _GOES_WITH[key] != self.kind:
                raise ValueError(f"`{key}` says nothing about a fault of kind `{self.kind}`: leave it out")
        if self.kind in _NEEDED and getattr(self, self.kind) is None:
            raise ValueError(f"a fault of kind `{self.kind}` needs the key `{self.kind}`")
        return self


class FaultWindow(_Part):
    """A fault, when it is on, and whom it meets; an empty list of sites or connections means all."""

    begins: Annotated[Duration, Field(alias="from")] = timedelta()
    ends: Annotated[Duration | None, Field(alias="until")] = None
    repeat: SomeTime | None = None
    endpoint: Literal["connection", "token", "any"] | None = None
    sites: tuple[str, ...] = ()
    connections: tuple[str, ...] = ()
    fault: Fault

    @property
    def where(self) -> Literal["connection", "token", "any"]:
        """The endpoint it meets; by default the one that its fault is made for."""
        return self.endpoint or ("token" if self.fault.kind in TOKEN_ONLY else "connection")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        kind = self.fault.kind
        if kind in CONNECTION_ONLY and self.where != "connection":
            raise ValueError(f"`{kind}` is a fault of a connection's answer: write `endpoint: connection`")
        if kind in TOKEN_ONLY and self.where != "token":
            raise ValueError(f"`{kind}` is a fault of the token endpoint: write `endpoint: token`")
        if self.where != "connection" and self.connections:
            raise ValueError("a token request names no connection: leave `connections` out")
        if self.ends is not None and self.ends <= self.begins:
            raise ValueError("`until` must come after `from`")
        return self


class Step(_Part):
    """From `at` on (counted from the start, or from the last repeat) the connection shows this."""

    at: Duration
    status: str | None
    reason: str | None = None


class Connection(_Part):
    """A connection and its life. `status` and `reason` hold until the timeline's first step.

    NOT_FOUND is answered as a 404; any other word is sent as it is, null as null, and an empty text
    leaves the field out.
    """

    id: NonEmpty
    calendar_type: str | None = "GOOGLE"
    import_enabled: Annotated[StrictBool | None, Field(alias="import")] = None
    export_enabled: Annotated[StrictBool | None, Field(alias="export")] = None
    print_undefined: StrictBool | None = None
    status: str | None = "SYNCED"
    reason: str | None = None
    timeline: tuple[Step, ...] = ()
    repeat: SomeTime | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        moments = [step.at for step in self.timeline]
        if any(later <= earlier for earlier, later in pairwise(moments)):
            raise ValueError("each step's `at` must come after the one before it")
        if self.repeat is not None and moments and self.repeat <= moments[-1]:
            raise ValueError("`repeat` must come after the last step's `at`")
        return self


class OAuthClient(_Part):
    """An app's client credentials, and the instance that a token is asked for."""

    client_id: NonEmpty
    client_secret: Annotated[NonEmpty, Field(repr=False)]
    instance_id: NonEmpty | None = None


class Site(_Part):
    """One Wix site with its credential and its connections; no limit of requests unless one is given."""

    name: NonEmpty
    oauth: OAuthClient | None = None
    api_key: Annotated[NonEmpty | None, Field(repr=False)] = None
    site_id: NonEmpty | None = None
    rate_limit_per_minute: Annotated[StrictInt, Field(ge=1)] | None = None
    retry_after: Literal["seconds", "date", "none"] = "none"
    connections: tuple[Connection, ...] = ()

    @property
    def credential(self) -> tuple[str | None, ...]:
        """What tells this site from the others."""
        if self.oauth is not None:
            return ("oauth", self.oauth.client_id, self.oauth.client_secret, self.oauth.instance_id)
        return ("api_key", self.api_key, self.site_id)

    @model_validator(mode="after")
    def _one_credential(self) -> Self:
        by_key = (self.api_key, self.site_id)
        if (None in by_key) if self.oauth is None else (by_key != (None, None)):
            raise ValueError("write either `oauth`, or `api_key` with `site_id`")
        return self

    @field_validator("connections")
    @classmethod
    def _once_each(cls, connections: tuple[Connection, ...]) -> tuple[Connection, ...]:
        _refuse_twice(connection.id for connection in connections)
        return connections


class Scenario(_Part):
    """The whole file."""

    token_lifetime: SomeTime = timedelta(hours=4)
    token_error_shape: Literal["error", "message"] = "error"  # noqa: S105  a word, no password
    latency: Duration = timedelta()
    print_undefined: StrictBool = False
    sites: tuple[Site, ...]
    faults: tuple[FaultWindow, ...] = ()

    @field_validator("sites")
    @classmethod
    def _told_apart(cls, sites: tuple[Site, ...]) -> tuple[Site, ...]:
        if not sites:
            raise complaint("is empty; write at least one site")
        _refuse_twice(site.name for site in sites)
        if len({site.credential for site in sites}) < len(sites):
            raise ValueError("two sites have the same credential: no request could tell them apart")
        return sites

    @field_validator("faults")
    @classmethod
    def _met_by_somebody(
        cls, windows: tuple[FaultWindow, ...], info: ValidationInfo
    ) -> tuple[FaultWindow, ...]:
        sites: tuple[Site, ...] = info.data.get("sites", ())
        names = {site.name for site in sites}
        ids = {connection.id for site in sites for connection in site.connections}
        for place, window in enumerate(windows if sites else ()):
            for stranger in sorted({*window.sites} - names) + sorted({*window.connections} - ids):
                raise ValueError(f"entry {place} is for {stranger!r}, which is not among the sites above")
        return windows


def load_scenario(path: Path) -> Scenario:
    """Read a scenario file; raises ConfigError with every problem found."""
    scenario, problems = parse(path, Scenario)
    if scenario is None:
        raise ConfigError(tuple(problems))
    return scenario


def _refuse_twice(names: Iterator[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{name!r} is there twice")
        seen.add(name)
