"""The shape of the configuration file, each key with its default and its meaning."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    RootModel,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import core_schema

from monitor.config.fields import (
    BaseUrl,
    ConnectionId,
    Duration,
    FeedUrl,
    Interval,
    LabelName,
    LabelValue,
    Moment,
    Name,
    Opaque,
    Path,
    ProxyUrl,
    SiteName,
    StatusWord,
    Team,
    Variable,
    between,
    label_name,
)
from monitor.config.sentences import Maybe, StrictModel, complaint
from monitor.durations import format_duration

DEFAULT_STORE: Final = "sqlite:////var/lib/wix-calendar-monitor/state.db"

_INSTEAD: Final = "a secret never stands in this file; write it into a file of its own and name that in"
_REFUSED: Final = {
    "client_secret": f"{_INSTEAD} client_secret_file",
    "api_key": f"{_INSTEAD} api_key_file",
}


class Api(StrictModel):
    """How to reach Wix."""

    base_url: BaseUrl = Field(
        "https://www.wixapis.com", description="Where the Wix API is; plain http only on loopback."
    )
    timeout: Annotated[Duration, between("1ms", "1h")] = Field(
        timedelta(seconds=10),
        description="Limit of one whole request, connecting included; may exceed an interval.",
    )
    max_in_flight: int = Field(
        256, ge=1, le=10_000, description="Requests at a time, over all sites of the process."
    )
    ca_file: Maybe[Path] = Field(
        None,
        description="PEM file of the authorities to trust instead of the system's.",
        examples=["/etc/ssl/private-ca.pem"],
    )
    proxy_url: Maybe[ProxyUrl] = Field(
        None,
        description="HTTP proxy for all requests to Wix, without user name and password.",
        examples=["http://proxy:3128"],
    )
    proxy_from_environment: bool = Field(
        default=False, description="Use HTTPS_PROXY and NO_PROXY of the environment."
    )

    @model_validator(mode="after")
    def _one_proxy(self) -> Self:
        if self.proxy_url is not None and self.proxy_from_environment:
            raise complaint("has both proxy_url and proxy_from_environment: true; keep one")
        return self


class Polling(StrictModel):
    """How often to ask and what to make of silence, for all sites."""

    interval: Interval = Field(
        timedelta(seconds=60), description="Time between two polls of a connection, 1s at least."
    )
    unsettled_interval: Interval = Field(
        timedelta(seconds=15),
        description="The same just after a change and while SYNC_IN_PROGRESS; "
        "no extra polls where it is not below the interval.",
    )
    dead_interval: Maybe[Interval] = Field(
        None,
        description="The same for a connection that has been NOT_FOUND or DISCONNECTED for a day, unless "
        "that is expected of it; no effect where it is not above the interval.",
        examples=["1h"],
    )
    stale_after: float = Field(
        3,
        ge=1,
        le=1000,
        allow_inf_nan=False,
        description="Intervals without a successful poll after which what we know is stale.",
    )
    not_found_confirmations: int = Field(
        2, ge=1, le=100, description="Times in a row that Wix must say not found before it is believed."
    )
    breaker_failures: int = Field(
        5, ge=1, le=1000, description="Failures in a row, over a site, after which the site is down."
    )


class Store(StrictModel):
    """Where state and history are kept."""

    refused: ClassVar[Mapping[str, str]] = {"password": f"{_INSTEAD} password_file"}

    url: Path = Field(
        DEFAULT_STORE,
        description="sqlite:/// and the absolute path of the state's file, or the URL of a PostgreSQL that "
        "several nodes share, as `postgresql://user@host:5432/database`; ${NAME} is expanded.",
    )
    password_file: Maybe[Path] = Field(
        None,
        description="File with PostgreSQL's password, read at each new connection.",
        examples=["${CREDENTIALS_DIRECTORY}/postgresql-password"],
    )
    lease_ttl: Annotated[Duration, between("2s", "10m")] = Field(
        timedelta(seconds=6),
        description="With PostgreSQL: how long what a node watches is its own after it was last heard of.",
    )
    on_engine_loss: Literal["stop", "keep"] = Field(
        "stop",
        description="With PostgreSQL: whether a node that does not reach it stops polling before others may "
        "take over, or keeps on, so that Wix may be asked twice.",
    )
    feeds_directory: Maybe[Path] = Field(
        None,
        description="Where the last good lists of connection_feeds are kept; feeds/ beside the file of "
        "SQLite, needed with PostgreSQL.",
        examples=["/var/lib/wix-calendar-monitor/feeds"],
    )
    history_retention: Annotated[Duration, between("1h", "100y")] = Field(
        timedelta(days=90), description="How long to keep transitions and the state of what is not watched."
    )


class OAuth(StrictModel):
    """An app's client credentials."""

    confidential: ClassVar[bool] = True
    refused: ClassVar[Mapping[str, str]] = _REFUSED

    client_id: Opaque = Field(description="The app's id.", examples=["0f6e…"])
    client_secret_file: Maybe[Path] = Field(
        None, description="File with the app's secret; or client_secret_env."
    )
    client_secret_env: Maybe[Variable] = Field(
        None, description="Environment variable with the app's secret; or client_secret_file."
    )
    instance_id: Maybe[Opaque] = Field(
        None, description="The app's instance on this site; left out for a headless client."
    )

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if (self.client_secret_file is None) == (self.client_secret_env is None):
            raise complaint("needs exactly one of client_secret_file and client_secret_env")
        return self


class Credential(StrictModel):
    """Who we are to Wix, in exactly one of two forms: oauth, or an API key with its site_id."""

    confidential: ClassVar[bool] = True
    refused: ClassVar[Mapping[str, str]] = _REFUSED

    oauth: Maybe[OAuth] = Field(None, description="OAuth client credentials: the documented choice.")
    api_key_file: Maybe[Path] = Field(None, description="File with an API key; or api_key_env.")
    api_key_env: Maybe[Variable] = Field(
        None, description="Environment variable with an API key; or api_key_file."
    )
    site_id: Maybe[Opaque] = Field(None, description="The Wix site's id; needed with an API key.")

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        forms = [form for form in (self.oauth, self.api_key_file, self.api_key_env) if form is not None]
        if len(forms) != 1:
            raise complaint("needs exactly one of oauth, api_key_file and api_key_env")
        if self.oauth is None and self.site_id is None:
            raise complaint("has an API key without its site; add site_id")
        if self.oauth is not None and self.site_id is not None:
            raise complaint("has a site_id beside oauth, which knows its site; remove site_id")
        return self


class Entry(StrictModel):
    """One connection to watch."""

    id: ConnectionId = Field(
        description="The connection's id as Wix gives it: opaque, up to 300 characters.",
        examples=["4WnvD8Qz"],
    )
    name: Maybe[Name] = Field(
        None,
        description="Our name for it, unique in its site, neither . nor ..; by default the id, or of an id "
        "over 64 characters its first 12 and a short digest.",
    )
    labels: dict[LabelName, LabelValue] = Field(
        {}, description="Labels on wix_calendar_connection_info; Prometheus label names, not ours."
    )
    expected: Maybe[Annotated[list[StatusWord], Field(min_length=1)]] = Field(
        None,
        description="The statuses that count as healthy; by default SYNCED, SYNC_IN_PROGRESS, "
        "and CONNECTED unless export is on.",
    )
    team: Maybe[Team] = Field(None, description="Whom its alerts go to; by default its site's team.")
    maintenance_until: Maybe[Moment] = Field(
        None, description="Polled and recorded until then, but its alerts are inhibited; RFC 3339."
    )


EntryOrHole = Maybe[Entry]


class Group(StrictModel):
    """Connections in the shape of Prometheus' file_sd and http_sd: ids, and labels that they share."""

    targets: list[ConnectionId] = Field(description="The connections' ids.", examples=["[4WnvD8Qz]"])
    labels: dict[str, LabelValue] = Field(
        {}, description="team goes before the site's; those that begin with __ are left out, as there."
    )

    @field_validator("labels")
    @classmethod
    def _ours(cls, labels: dict[str, str]) -> dict[str, str]:
        known = {name: value for name, value in labels.items() if not name.startswith("__")}
        return {label_name(name) if name != "team" else name: value for name, value in known.items()}

    def entries(self) -> list[Entry]:
        """The same as they stand in `connections`."""
        labels = {name: value for name, value in self.labels.items() if name != "team"}
        team = {"team": self.labels["team"]} if "team" in self.labels else {}
        return [Entry.model_validate({"id": each, "labels": labels, **team}) for each in self.targets]


def _form(value: Any) -> str:
    grouped = isinstance(value, Group) or (isinstance(value, Mapping) and "targets" in value)
    return "group" if grouped else "entry"


EitherOrHole = Annotated[
    Annotated[EntryOrHole, Tag("entry")] | Annotated[Group, Tag("group")], Discriminator(_form)
]


class Feed(StrictModel):
    """Where an inventory system serves a site's connections."""

    url: FeedUrl = Field(
        description="Answers with JSON or YAML as a file of connection_files holds it.",
        examples=["https://inventory.example.org/downtown.json"],
    )
    interval: Annotated[Duration, between("5s", "1d")] = Field(
        timedelta(minutes=5), description="How often to ask."
    )
    bearer_token_file: Maybe[Path] = Field(None, description="File with a token to ask with.")


FeedOrHole = Maybe[Feed]


class Site(StrictModel):
    """One Wix site as seen through one credential."""

    refused: ClassVar[Mapping[str, str]] = _REFUSED

    name: SiteName = Field(
        description="Our name for the site, unique; a-z 0-9 . _ - only.", examples=["downtown"]
    )
    credential: Credential = Field(description="Who we are to Wix.")
    team: Maybe[Team] = Field(None, description="Whom alerts go to; a connection may override it.")
    requests_per_minute: int = Field(
        160, ge=1, le=10_000, description="The site's budget: 80 % of the published 200 per app instance."
    )
    parts: int = Field(
        1, ge=1, le=1000, description="As how many parts its connections and its budget may be shared out."
    )
    interval: Maybe[Interval] = Field(None, description="Overrides polling.interval.")
    unsettled_interval: Maybe[Interval] = Field(None, description="Overrides polling.unsettled_interval.")
    dead_interval: Maybe[Interval] = Field(None, description="Overrides polling.dead_interval.")
    stale_after: Maybe[float] = Field(
        None, ge=1, le=1000, allow_inf_nan=False, description="Overrides polling.stale_after."
    )
    not_found_confirmations: Maybe[int] = Field(
        None, ge=1, le=100, description="Overrides polling.not_found_confirmations."
    )
    breaker_failures: Maybe[int] = Field(
        None, ge=1, le=1000, description="Overrides polling.breaker_failures."
    )
    maintenance_until: Maybe[Moment] = Field(
        None, description="Polled and recorded until then, but all its alerts are inhibited; RFC 3339."
    )
    connections: list[EntryOrHole] = Field([], description="The connections to watch.")
    connection_files: list[Path] = Field(
        [], description="Globs of YAML or JSON files with further connections, each a list of them."
    )
    connection_feeds: list[FeedOrHole] = Field(
        [], description="URLs of further connections, each a list of them; the last good one is kept on disk."
    )

    @field_validator("parts")
    @classmethod
    def _a_request_for_each(cls, parts: int, info: ValidationInfo) -> int:
        budget = info.data.get("requests_per_minute", parts)  # absent where it is wrong itself
        if parts > budget:
            raise complaint(
                f"{parts} parts cannot share requests_per_minute ({budget}); write {budget} or less"
            )
        return parts


SiteOrHole = Maybe[Site]


class MonitorFile(StrictModel):
    """The configuration of wix-calendar-monitor."""

    api: Api = Field(Api(), description="How to reach Wix.")
    polling: Polling = Field(Polling(), description="How often to ask, and what to make of silence.")
    store: Store = Field(Store(), description="Where state is to be kept.")
    sites: list[SiteOrHole] = Field(
        min_length=1, description="The sites to watch.", examples=["[{name: downtown, …}]"]
    )


class ConnectionFile(RootModel[list[EitherOrHole]]):
    """A file that `connection_files` names: a list of connections, or of groups of them."""


class _Schema(GenerateJsonSchema):
    """Pydantic's schema in the words of the file: no null, durations as they are written."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        described = super().default_schema(schema)
        if described.get("default", 0) is None:
            del described["default"]
        return described

    def field_title_should_be_set(self, schema: Any) -> bool:
        del schema
        return False  # "Base Url" tells an editor nothing that base_url does not

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, timedelta):
            return format_duration(dft)
        if isinstance(dft, BaseModel):
            return {}
        return super().encode_default(dft)

    def generate(self, schema: Any, mode: JsonSchemaMode = "validation") -> JsonSchemaValue:
        described = super().generate(schema, mode)
        one_form: list[dict[str, Any]] = [
            {"required": ["oauth"]},
            {"required": ["api_key_file", "site_id"]},
            {"required": ["api_key_env", "site_id"]},
        ]
        described["$defs"]["Credential"]["oneOf"] = one_form
        return {"$schema": self.schema_dialect, **described}


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the configuration file, for editors."""
    return MonitorFile.model_json_schema(schema_generator=_Schema)
