"""The configuration as the other rooms see it: frozen, resolved, free of files' forms."""

import os
import re
import stat
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal, NamedTuple

from monitor.config.database import is_database, place_of
from monitor.core.model import Connection
from monitor.core.plan import SITE_SLOTS
from monitor.core.shards import Unit

SECRET_LIMIT: Final = 64 * 1024
"""Bytes of a secret file."""

CREDENTIALS_DIRECTORY: Final = "CREDENTIALS_DIRECTORY"
"""Where systemd puts the secrets of a service."""

CREDENTIALS_UNSET: Final = (
    f"${{{CREDENTIALS_DIRECTORY}}} is not set here; systemd sets it for the service, "
    f"elsewhere run as root: export {CREDENTIALS_DIRECTORY}=/etc/wix-calendar-monitor/secrets"
)
"""Told to who runs a command beside the service; the folder is the package's."""

_VISIBLE: Final = re.compile(r"[ -~]+")


def file_version(path: Path) -> Hashable:
    """What changes when a file is replaced, written or allowed to be read; None where there is none."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


@dataclass(frozen=True, slots=True)
class SecretSource:
    """Where a secret is: in a file or in a variable of the environment, exactly one of them."""

    file: Path | None = None
    env: str | None = None

    @property
    def is_for_the_service_only(self) -> bool:
        """Whether its folder is systemd's, which is not set here: the path is as it was written."""
        return self.file is not None and f"${{{CREDENTIALS_DIRECTORY}}}" in self.file.parts

    def version(self) -> Hashable:
        """What changes when the file is replaced, written or allowed to be read; None where there is none."""
        return None if self.file is None else file_version(self.file)

    def read(self, environ: Mapping[str, str] = os.environ) -> str:
        """The secret, without white space around it.

        Raises OSError or ValueError; the message names the file or variable and the mend, never the value.
        """
        if self.file is not None:
            return _clean(_read_file(self.file), str(self.file))
        text = environ.get(self.env or "")
        if text is None:
            raise ValueError(f"the variable {self.env} is not set; set it, or use a file")
        return _clean(text, f"the variable {self.env}")


def _clean(text: str, where: str) -> str:
    text = text.strip()
    if not text:
        raise ValueError(f"{where} is empty; put the secret in it")
    if _VISIBLE.fullmatch(text) is None:
        told = "holds control characters, several lines or characters that are not ASCII"
        raise ValueError(f"{where} {told}; keep only the secret in it")
    return text


def _read_file(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ValueError(f"{path} is a directory; name the file in it")
        if not stat.S_ISREG(mode):  # reading a pipe or a device could wait for ever
            raise ValueError(f"{path} is not a regular file; put the secret into one")
        with path.open("rb") as file:
            content = file.read(SECRET_LIMIT + 1)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; write the secret into it") from None
    except OSError as error:
        told = f"{path} cannot be read ({error.strerror}); let the service's user read it"
        raise OSError(told) from None
    if len(content) > SECRET_LIMIT:
        raise ValueError(f"{path} is larger than 64 KiB; name the file that holds only the secret")
    return content.decode("ascii", errors="replace")


@dataclass(frozen=True, slots=True)
class OAuthCredential:
    """An app's own credential. Without `instance_id` the app is a headless one of a single site."""

    client_id: str
    client_secret: SecretSource
    instance_id: str | None = None

    @property
    def quota(self) -> Hashable:
        """Whose quota at Wix the requests count for."""
        return self.client_id, self.instance_id


@dataclass(frozen=True, slots=True)
class ApiKeyCredential:
    """An account's API key and the site that it is used for."""

    api_key: SecretSource
    site_id: str

    @property
    def quota(self) -> Hashable:
        """Whose quota at Wix the requests count for."""
        return self.site_id, self.api_key


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """How to reach Wix, for all sites."""

    base_url: str
    timeout: timedelta
    max_in_flight: int
    ca_file: Path | None = None
    proxy_url: str | None = None
    proxy_from_environment: bool = False


@dataclass(frozen=True, slots=True)
class GivenSecret:
    """A secret that came with the environment; it is never shown."""

    _text: str = field(repr=False)

    def read(self) -> str:
        """It."""
        return self._text


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where state is to be kept, and for how long what is no longer watched.

    `url` has no password in it.
    """

    url: str
    history_retention: timedelta
    password: SecretSource | GivenSecret | None = None
    lease_ttl: timedelta = timedelta(seconds=6)
    on_engine_loss: Literal["stop", "keep"] = "stop"

    @property
    def is_shared(self) -> bool:
        """Whether it is a PostgreSQL, which several nodes may use."""
        return is_database(self.url)

    @property
    def path(self) -> Path:
        """The file that an SQLite URL names."""
        return Path(self.url.removeprefix("sqlite:///"))

    def needs_restart(self, after: "StoreSettings") -> list[str]:
        """The keys that cannot change in a process that runs; a password file's content can."""
        fixed = {
            "url": (self.url, after.url),
            "password_file": (self.password, after.password),
            "lease_ttl": (self.lease_ttl, after.lease_ttl),
            "on_engine_loss": (self.on_engine_loss, after.on_engine_loss),
        }
        return [key for key, (its, other) in fixed.items() if its != other]

    @property
    def place(self) -> str:
        """What may be shown of it: the file, or the database without the user."""
        return place_of(self.url) if self.is_shared else str(self.path)


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """A URL that serves connections, and the file in which the last good answer is kept."""

    url: str
    interval: timedelta
    copy: Path
    bearer_token: SecretSource | None = None


class Part(NamedTuple):
    """One part of a site that may be shared out: its number, its connections, its share of the budget."""

    number: int
    connections: tuple[Connection, ...]
    requests_per_minute: int


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """One site: its credential, its budget and its connections, in the order of the files.

    `parts` are those of a site that may be shared out which are here, and none of any other site: budget and
    connections are theirs together.
    """

    name: str
    credential: OAuthCredential | ApiKeyCredential
    requests_per_minute: int
    interval: timedelta
    interval_in_force: timedelta
    breaker_failures: int
    maintenance_until: datetime | None
    connections: tuple[Connection, ...]
    feeds: tuple[FeedSettings, ...] = ()
    parts: tuple[Part, ...] = ()

    @property
    def units(self) -> list[Unit]:
        """What of it is owned whole, and is here."""
        return [Unit(self.name, part.number) for part in self.parts] or [Unit(self.name)]

    @property
    def slots(self) -> int:
        """Requests that it may have in flight at a time: so many for each part of it that is here."""
        return SITE_SLOTS * max(len(self.parts), 1)


@dataclass(frozen=True, slots=True)
class Settings:
    """All that was configured."""

    api: ApiSettings
    sites: tuple[SiteSettings, ...]
    store: StoreSettings

    def find(self, site: str, name: str) -> tuple[SiteSettings, Connection] | None:
        """A connection by the names that stand in the file, and its site; None where there is none such."""
        for its in self.sites:
            for each in its.connections:
                if (its.name, each.name) == (site, name):
                    return its, each
        return None
