"""From the texts in the file to real paths and secrets, with what is wrong about them."""

import errno
import glob
import os
import re
import ssl
import stat
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

from monitor.config.database import (
    EXAMPLE,
    SYSTEM,
    Database,
    faults_of,
    is_database,
    is_open_to_others,
    options_of,
    split,
)
from monitor.config.document import Loc
from monitor.config.model import Credential, Feed, OAuth
from monitor.config.settings import (
    CREDENTIALS_DIRECTORY,
    CREDENTIALS_UNSET,
    ApiKeyCredential,
    OAuthCredential,
    SecretSource,
)
from monitor.config.source import Source
from monitor.errors import Problem


class Secrets(Enum):
    """What is asked of the secrets: to be there, to be there but for systemd's, or nothing."""

    REQUIRED = "required"
    CHECKED = "checked"
    SKIPPED = "skipped"


_VARIABLE: Final = re.compile(r"\$\{([^}]*)(\}?)")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
# A variable's name by custom, which no secret is likely to be: only such a one is repeated.
_CUSTOMARY: Final = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
_SQLITE: Final = "sqlite:///"


class _CannotExpandError(Exception):
    """A `${…}` that stands for nothing."""


class Resolver:
    """Resolves the texts of one file; problems are added to `problems`."""

    def __init__(
        self, source: Source, environ: Mapping[str, str], problems: list[Problem], secrets: Secrets
    ) -> None:
        self._source = source
        self._environ = environ
        self._problems = problems
        self._secrets = secrets

    def path(self, loc: Loc, text: str) -> Path | None:
        """A path of the file, or None where a variable in it is not set."""
        expanded = self._expand(loc, text)
        return None if expanded is None else self._source.path.parent / expanded

    def pattern(self, loc: Loc, text: str) -> str | None:
        """A glob of the file, or None where a variable in it is not set."""
        expanded = self._expand(loc, text, glob.escape)
        parent = glob.escape(str(self._source.path.parent))
        return None if expanded is None else os.path.join(parent, expanded)  # noqa: PTH118  Path would eat `./`

    def ca_file(self, loc: Loc, text: str | None) -> Path | None:
        """The file of authorities, read once to see that it can be used."""
        path = self.path(loc, text) if text is not None else None
        if path is None:
            return None
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise OSError(errno.EINVAL, "it is no regular file")  # noqa: TRY301
            ssl.create_default_context(cafile=path)
        except ssl.SSLError:
            self._error(loc, f"{path} holds no certificates; name a PEM file of authorities")
        except OSError as error:
            self._error(loc, f"{path} cannot be read ({error.strerror}); name a PEM file of authorities")
        return path

    def store_url(self, loc: Loc, text: str) -> Database:
        """The store's URL with its variables expanded, and the password that came with one of them."""
        begins_well = is_database(text)  # else a variable may be all of it
        url = self._expand(loc, text, partial(quote, safe=":,[]") if begins_well else str)
        if url is None:
            return split(text)
        if is_database(url):
            self._check_database(loc, text, url)
            return split(url)
        self._check_file(loc, url)
        return Database(url, None)

    def password_file(self, loc: Loc, text: str) -> SecretSource:
        """The file of the store's password, read once to see that it can be."""
        return self._secret(loc, "password", text, None)

    def _check_database(self, loc: Loc, text: str, url: str) -> None:
        faults = list(faults_of(url))
        if is_database(text) and split(_VARIABLE.sub("", text)).password is not None:
            faults.append(
                "has the password in it; write that into a file and name it in store.password_file, "
                "or write ${NAME} in its place, a variable of the environment"
            )
        for fault in faults:
            self._error(loc, fault)
        if not faults and is_open_to_others(url):
            told = "does not make sure whom it talks to; add ?sslmode=verify-full&sslrootcert=/path/of/ca.pem"
            self._warning(loc, f"{told}, or the sslmode that you want")
        if not faults:
            self._check_tls(loc, options_of(url))

    def _check_tls(self, loc: Loc, options: Mapping[str, str]) -> None:
        """The files that a URL names; no message repeats one of it."""
        root = options.get("sslrootcert") or self._environ.get("PGSSLROOTCERT")
        if root is None and options.get("sslmode", "").startswith("verify-") and not _has_authorities():
            told = "names no authorities to verify by, and ~/.postgresql/root.crt is not there"
            mend = "add sslrootcert=/path/of/ca.pem, or sslrootcert=system for the machine's own"
            self._warning(loc, f"{told}; {mend}")
        keys = ("sslrootcert",) if self._secrets is Secrets.SKIPPED else ("sslrootcert", "sslcert", "sslkey")
        for key in keys:
            if options.get(key, SYSTEM) != SYSTEM:
                self._try_to_read(loc, key, Path(options[key]))

    def _try_to_read(self, loc: Loc, key: str, path: Path) -> None:
        try:
            with path.open("rb") as file:
                file.read(1)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no path"
            self._error(loc, f"names a file for {key} that cannot be read ({reason}); see to its path")

    def _check_file(self, loc: Loc, url: str) -> None:
        if not url.startswith(_SQLITE):
            self._error(
                loc, f"is no URL of a store; write {_SQLITE} and an absolute path, or for example {EXAMPLE}"
            )
        elif not url.startswith(f"{_SQLITE}/") or url.endswith("/") or "?" in url or "#" in url:
            told = f"needs the absolute path of a file after {_SQLITE}"
            self._error(loc, f"{told}; write for example {_SQLITE}/var/lib/wix-calendar-monitor/state.db")

    def credential(self, loc: Loc, form: Credential) -> OAuthCredential | ApiKeyCredential:
        """The credential, its secret read once to see that it can be."""
        if form.oauth is not None:
            return self._oauth((*loc, "oauth"), form.oauth)
        api_key = self._secret(loc, "api_key", form.api_key_file, form.api_key_env)
        return ApiKeyCredential(api_key, form.site_id or "")

    def bearer_token(self, loc: Loc, feed: Feed) -> SecretSource | None:
        """The token of a feed, read once to see that it can be."""
        return (
            self._secret(loc, "bearer_token", feed.bearer_token_file, None)
            if feed.bearer_token_file
            else None
        )

    def _oauth(self, loc: Loc, form: OAuth) -> OAuthCredential:
        secret = self._secret(loc, "client_secret", form.client_secret_file, form.client_secret_env)
        return OAuthCredential(form.client_id, secret, form.instance_id)

    def _secret(self, loc: Loc, what: str, file: str | None, env: str | None) -> SecretSource:
        if file is None:
            source = SecretSource(env=env)
            if self._secrets is not Secrets.SKIPPED:
                self._try_variable((*loc, f"{what}_env"), source)
            return source
        loc = (*loc, f"{what}_file")
        path = self.path(loc, file)
        if path is not None and self._secrets is not Secrets.SKIPPED:
            self._try_file(loc, file, path)
        return SecretSource(file=path or Path(file))

    def _try_file(self, loc: Loc, text: str, path: Path) -> None:
        try:
            SecretSource(file=path).read()
            open_to_all = path.stat().st_mode & stat.S_IROTH
        except FileNotFoundError as error:
            told = "names a file that does not exist; write the secret into one, never into this file"
            self._error(loc, str(error) if _is_plainly_a_path(text, path) else told)
        except (OSError, ValueError) as error:
            told = "names no file that can be read; write the secret into one, never into this file"
            self._error(loc, str(error) if _is_plainly_a_path(text, path) else told)
        else:
            if open_to_all:
                self._warning(loc, f"{path} can be read by every user; run chmod o-r on it")

    def _try_variable(self, loc: Loc, source: SecretSource) -> None:
        try:
            source.read(self._environ)
        except ValueError as error:
            named = _CUSTOMARY.fullmatch(source.env or "")
            told = "names a variable that is not set or holds no secret; set it, or use a file"
            self._error(loc, str(error) if named else told)

    def _expand(self, loc: Loc, text: str, quoted: Callable[[str], str] = str) -> str | None:
        def replace(match: re.Match[str]) -> str:
            name, end = match.groups()
            if not end or _NAME.fullmatch(name) is None:
                raise _CannotExpandError("has a ${ that begins no ${NAME}; write the name of a variable")
            if not self._environ.get(name):
                raise _CannotExpandError(name)
            return quoted(self._environ[name])

        try:
            return _VARIABLE.sub(replace, text)
        except _CannotExpandError as error:
            self._cannot_expand(loc, str(error))
            return None

    def _cannot_expand(self, loc: Loc, told: str) -> None:
        if told == CREDENTIALS_DIRECTORY and self._secrets is Secrets.REQUIRED:
            self._error(loc, CREDENTIALS_UNSET)
        elif told == CREDENTIALS_DIRECTORY:
            told = f"${{{told}}} is not set (systemd sets it for the service), so this was not checked"
            self._warning(loc, told)
        elif _NAME.fullmatch(told):
            self._error(loc, f"the variable {told} is not set or empty; set it, or write the path without it")
        else:
            self._error(loc, told)

    def _error(self, loc: Loc, message: str) -> None:
        self._problems.append(self._source.problem(loc, message))

    def _warning(self, loc: Loc, message: str) -> None:
        self._problems.append(self._source.problem(loc, message, "warning"))


def _has_authorities() -> bool:
    try:
        return (Path.home() / ".postgresql/root.crt").exists()
    except (OSError, RuntimeError):  # no home, or none to look into
        return False


def _is_plainly_a_path(text: str, path: Path) -> bool:
    """Whether it is safe to repeat: somebody may have written the secret itself in the place of a file."""
    try:
        return path.exists() or ("/" in text.lstrip("/") and path.parent.is_dir())
    except OSError:
        return False
