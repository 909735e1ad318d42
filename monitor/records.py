"""The commands on the state store: `status`, `history`, `backup` and `migrate-store`."""

import asyncio
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path

import click

from monitor.clock import Clock
from monitor.config import Secrets, Settings, StoreSettings
from monitor.config.database import EXAMPLE, faults_of, is_database, split
from monitor.core.model import Status
from monitor.errors import BackupError, CannotStartError, OperatorError, StoreError, StoreUnreadableError
from monitor.flags import config_file_flag, give_up, kept_shard_flags, kept_shard_of, load_or_exit, shard_of
from monitor.history import Output, ended, history_report, parse_moment, status_report, summary_report
from monitor.owners import nodes_report, owners_json, owners_report
from monitor.store import reading
from monitor.store.moving import move
from monitor.store.reading import Reader, Wanted

_site = click.option("--site", help="Only this site.")
_status = click.option(
    "--status", type=click.Choice([each.value for each in Status]), help="Only this status."
)
_output = click.option(
    "--format",
    "output",
    type=click.Choice([each.value for each in Output]),
    default="table",
    show_default=True,
)


@click.command()
@config_file_flag
@kept_shard_flags
@_site
@_status
@click.option("--nodes", is_flag=True, help="Who of the nodes that share a PostgreSQL owns which site.")
@_output
def status(
    *,
    config_file: Path,
    shard: int | None,
    total_shards: int | None,
    site: str | None,
    status: str | None,
    nodes: bool,
    output: str,
) -> None:
    """Show what the state store knows of every connection, the worst first.

    A shard's store knows only what that shard watches: without --shard, all others read as not polled yet.
    With PostgreSQL the nodes that share it stand below, and --nodes shows each site's owner instead.
    """
    if nodes and status is not None:
        raise click.UsageError("--status is for connections; leave it out with --nodes.")
    settings = load_or_exit(config_file, Secrets.SKIPPED, shard_of(shard, total_shards)).settings
    if site is not None and site not in {each.name for each in settings.sites}:
        raise click.UsageError(f"{site!r} is not in the configuration.")
    with _reading(settings) as reader:
        wanted = Wanted(site=site, status=status)
        told = (
            _owners(settings, reader, site, output) if nodes else _status_of(settings, reader, wanted, output)
        )
    click.echo(told)


def _status_of(settings: Settings, reader: Reader, wanted: Wanted, output: str) -> str:
    """The connections and, for people, below them the nodes that share the store."""
    form, width = Output(output), _width()
    told = status_report(settings, reader, wanted, form, Clock().now(), width)
    if form is Output.JSON or not settings.store.is_shared:
        return told
    return f"{told}\n\n{nodes_report(reader.nodes(), width)}"


def _owners(settings: Settings, reader: Reader, site: str | None, output: str) -> str:
    if Output(output) is Output.JSON:
        return owners_json(settings, reader, site)
    return owners_report(settings, reader, site, _width())


@click.command()
@config_file_flag
@kept_shard_flags
@click.argument("connection", metavar="[SITE/NAME]", required=False)
@_site
@_status
@_output
@click.option("--since", default="7d", show_default=True, help="An age such as 7d, or a time in RFC 3339.")
@click.option("--until", help="The same; without it, now.")
@click.option("--limit", type=click.IntRange(min=1), help="So many changes at most, the newest.")
@click.option("--summary", is_flag=True, help="Per connection: incidents, and the time in each status.")
def history(
    *,
    config_file: Path,
    shard: int | None,
    total_shards: int | None,
    connection: str | None,
    site: str | None,
    status: str | None,
    output: str,
    since: str,
    until: str | None,
    limit: int | None,
    summary: bool,
) -> None:
    """Show what changed, when, and how long it lasted, newest first."""
    if summary and limit is not None:
        raise click.UsageError("--limit is for changes; leave it out with --summary.")
    settings = load_or_exit(config_file, Secrets.SKIPPED, kept_shard_of(shard, total_shards)).settings
    now = Clock().now()
    begin, end = _window(since, until, now)
    wanted = replace(_named(settings, connection, site), status=status, since=begin, until=end)
    form, width = Output(output), _width()
    with _reading(settings) as reader:
        _refuse_unknown(reader, wanted, settings)
        if summary:
            held = ended(reader.held(wanted), settings)
            told = summary_report(held, begin, min(end or now, now), form, width)
        else:
            seen = list(islice(ended(reader.seen(wanted), settings), limit))
            told = history_report(seen, None, form, now, width)
            if not seen and form is Output.TABLE:  # quiet may be quietly broken
                lasting = history_report(ended(reader.held(wanted), settings), limit, form, now, width)
                told = f"No change in that time. What held:\n\n{lasting}"
    click.echo(told)


@click.command()
@config_file_flag
@kept_shard_flags
@click.argument("destination", type=click.Path(path_type=Path))
def backup(config_file: Path, shard: int | None, total_shards: int | None, destination: Path) -> None:
    """Copy the state store to a new file, while the daemon runs."""
    settings = load_or_exit(config_file, Secrets.SKIPPED, kept_shard_of(shard, total_shards)).settings
    with _reading(settings) as reader:
        reader.back_up(destination)
    click.echo(f"{destination}: {destination.stat().st_size:,} bytes")


@click.command("migrate-store")
@config_file_flag
@click.option("--from", "source", required=True, metavar="URL", help="The old store, as store.url says one.")
def migrate_store(config_file: Path, source: str) -> None:
    """Copy all of another store into the configured one, which must be empty; no daemon may use either."""
    target = load_or_exit(config_file, Secrets.SKIPPED).settings.store
    try:
        counts = asyncio.run(move(_store_of(source, target), target, Clock(), lambda _: None))
    except OperatorError as error:
        give_up(error)
    except StoreError as error:
        give_up(CannotStartError(f"nothing was copied: {error}"))
    told = f"{counts['connection']:,} connections and {counts['transition']:,} changes"
    click.echo(f"{told} copied into {target.place}")


def _store_of(url: str, like: StoreSettings) -> StoreSettings:
    """The store of a URL that stands on the command line."""
    if not is_database(url):
        if not url.startswith("sqlite:////"):
            told = f"write sqlite:/// and an absolute path, or for example {EXAMPLE}"
            raise click.BadParameter(told, param_hint="--from")
        return StoreSettings(url, like.history_retention)
    faults = list(faults_of(url))
    if split(url).password is not None:
        faults.append("has a password in it, which every user can see; set PGPASSWORD, or use ~/.pgpass")
    if faults:
        raise click.BadParameter("; ".join(faults), param_hint="--from")
    return StoreSettings(url, like.history_retention)


def _refuse_unknown(reader: Reader, wanted: Wanted, settings: Settings) -> None:
    """A slip of the pen must not read as "all quiet"."""
    asked = replace(wanted, status=None, since=None, until=None)
    configured = wanted.site is None or wanted.connection_id is not None
    configured = configured or (
        wanted.connection is None and wanted.site in {site.name for site in settings.sites}
    )
    if not configured and next(iter(reader.held(asked)), None) is None:
        name = wanted.site if wanted.connection is None else f"{wanted.site}/{wanted.connection}"
        raise click.UsageError(f"{name!r} is neither in the configuration nor in the store.")


def _named(settings: Settings, connection: str | None, site: str | None) -> Wanted:
    """The connection by its id, whatever it was called before; one that is configured no more by its name."""
    if connection is None:
        return Wanted(site=site)
    its_site, slash, name = connection.partition("/")
    if not slash or site is not None:
        told = "write SITE/NAME" if site is None else "SITE/NAME says the site: leave out --site"
        raise click.UsageError(f"{connection!r}: {told}.")
    if (found := settings.find(its_site, name)) is not None:
        return Wanted(site=its_site, connection_id=found[1].id)
    return Wanted(site=its_site, connection=name)


def _window(since: str, until: str | None, now: datetime) -> tuple[datetime, datetime | None]:
    """From when to when; no end: now, and what a clock that was set back since calls later."""
    begin = _moment("--since", since, now)
    end = None if until is None else _moment("--until", until, now)
    if begin >= min(end or now, now):
        told = f"{since!r} is not before {'now' if until is None else f'--until {until!r} and now'}"
        raise click.BadParameter(told, param_hint="--since")
    return begin, end


def _moment(flag: str, text: str, now: datetime) -> datetime:
    try:
        return parse_moment(text, now)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=flag) from None


@contextmanager
def _reading(settings: Settings) -> Iterator[Reader]:
    try:
        with reading(settings.store) as reader:
            yield reader
    except (StoreUnreadableError, BackupError) as error:
        give_up(error)


def _width() -> int | None:
    """The terminal's columns; a file or a pipe gets the whole table."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
