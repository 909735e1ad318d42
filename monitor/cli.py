"""The command line; flags follow the Prometheus family, and each is also read from the environment."""

import asyncio
import json
import os
import platform
import shutil
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

from monitor import __version__
from monitor.clock import Clock
from monitor.config import Loaded, Secrets, Settings, json_schema, load, plan_report
from monitor.core.model import Status
from monitor.demo import run_demo
from monitor.errors import BackupError, ConfigError, OperatorError, StoreUnreadableError
from monitor.history import Output, ended, history_report, parse_moment, status_report, summary_report
from monitor.logs import Format, Redactor, set_up
from monitor.oneshot import Verdict, poll_once
from monitor.service import Outside, serve
from monitor.simulator import load_scenario
from monitor.simulator import run as run_simulator
from monitor.store.reading import Reader, Wanted, reading
from monitor.systemd import Notifier
from monitor.web.server import Address

NAME: Final = "wix-calendar-monitor"
DEFAULT_ADDRESS: Final = "127.0.0.1:19877"

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class _AddressType(click.ParamType[Address]):
    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        if isinstance(value, Address):
            return value
        try:
            return Address.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _flag(name: str, **attributes: Any) -> Callable[[F], F]:
    """A long flag with its environment variable: `--config.file` is `WIX_CALENDAR_MONITOR_CONFIG_FILE`."""
    variable = "WIX_CALENDAR_MONITOR_" + name.removeprefix("--").upper().replace(".", "_").replace("-", "_")
    target = name.removeprefix("--").replace(".", "_").replace("-", "_")
    return click.option(name, target, envvar=variable, show_envvar=True, **attributes)


_config_file = _flag(
    "--config.file", required=True, type=click.Path(path_type=Path), help="The configuration, a YAML file."
)
_listen = _flag(
    "--web.listen-address",
    type=_AddressType(),
    multiple=True,
    default=(DEFAULT_ADDRESS,),
    show_default=True,
    help="Where to serve /metrics; may be given more than once.",
)
_log_level = _flag(
    "--log.level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="The quietest lines that are written.",
)
_log_format = _flag(
    "--log.format",
    type=click.Choice([form.value for form in Format]),
    default=Format.JSON.value,
    show_default=True,
    help="How a line is written.",
)

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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    __version__,
    prog_name=NAME,
    message=f"%(prog)s %(version)s (Python {platform.python_version()}, {platform.platform()})",
)
def cli() -> None:
    """Watch Wix external-calendar connections and tell Prometheus."""


@cli.command()
@_config_file
@_listen
@_log_level
@_log_format
def run(config_file: Path, web_listen_address: tuple[Address, ...], log_level: str, log_format: str) -> None:
    """Run the daemon until SIGTERM or SIGINT."""
    loaded = _load(config_file)
    redactor = Redactor()
    log = set_up(log_level, Format(log_format), redactor)
    for warning in loaded.warnings:
        log.warning(
            "config_warning",
            file=warning.file,
            line=warning.line,
            path=warning.path,
            message=warning.message,
        )
    outside = Outside(log, redactor, Clock(), Notifier())
    sys.exit(0 if _run(serve(loaded.settings, outside, web_listen_address)) else 1)


@cli.command("check-config")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of the file for editors, and end.")
@_flag("--config.file", type=click.Path(path_type=Path), help="The configuration, a YAML file.")
@click.option("--skip-secrets", is_flag=True, help="Do not read the secret files and variables.")
def check_config(*, config_file: Path | None, skip_secrets: bool, schema: bool) -> None:
    """Say everything that is wrong with a configuration, and print its plan."""
    if schema:
        click.echo(json.dumps(json_schema(), indent=2))
        return
    if config_file is None:
        raise click.UsageError("Missing option '--config.file'.")
    loaded = _load(config_file, Secrets.SKIPPED if skip_secrets else Secrets.CHECKED)
    for warning in loaded.warnings:
        click.echo(str(warning), err=True)
    click.echo(plan_report(loaded.settings))


@cli.command()
@_config_file
@click.argument("connection", metavar="SITE/NAME")
def poll(config_file: Path, connection: str) -> None:
    """Poll one connection now and show the exchange, what it means and its series."""
    settings = _load(config_file).settings
    wanted, _, name = connection.partition("/")
    for site in settings.sites:
        for each in site.connections:
            if (site.name, each.name) == (wanted, name):
                sys.exit(_run(poll_once(settings, site, each, Clock(), click.echo)))
    raise click.UsageError(f"{connection!r} is not in {config_file}; write SITE/NAME as they stand there.")


@cli.command()
@_config_file
@_site
@_status
@_output
def status(config_file: Path, site: str | None, status: str | None, output: str) -> None:
    """Show what the state store knows of every connection, the worst first."""
    settings = _load(config_file, Secrets.SKIPPED).settings
    with _reading(settings) as reader:
        wanted = Wanted(site=site, status=status)
        told = status_report(settings, reader, wanted, Output(output), Clock().now(), _width())
    click.echo(told)


@cli.command()
@_config_file
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
    settings = _load(config_file, Secrets.SKIPPED).settings
    now = Clock().now()
    begin, end = _window(since, until, now)
    wanted = replace(_named(settings, connection, site), status=status, since=begin, until=end)
    form, width = Output(output), _width()
    with _reading(settings) as reader:
        if summary:
            held = ended(reader.held(wanted), settings)
            told = summary_report(held, begin, min(end or now, now), form, width)
        else:
            told = history_report(ended(reader.seen(wanted), settings), limit, form, now, width)
    click.echo(told)


@cli.command()
@_config_file
@click.argument("destination", type=click.Path(path_type=Path))
def backup(config_file: Path, destination: Path) -> None:
    """Copy the state store to a new file, while the daemon runs."""
    with _reading(_load(config_file, Secrets.SKIPPED).settings) as reader:
        reader.back_up(destination)


@cli.command()
@click.option(
    "--scenario", "scenario_file", required=True, type=click.Path(path_type=Path), help="What happens when."
)
@click.option(
    "--listen",
    type=_AddressType(),
    default="127.0.0.1:8080",
    show_default=True,
    help="Where to stand in for Wix.",
)
def simulate(scenario_file: Path, listen: Address) -> None:
    """Stand in for the Wix API on this machine, after a scenario."""
    try:
        scenario = load_scenario(scenario_file)
    except ConfigError as error:
        _give_up(error)
    _run(_until_told(run_simulator(scenario, listen.host, listen.port, click.echo)))


@cli.command()
@_listen
def demo(web_listen_address: tuple[Address, ...]) -> None:
    """Run simulator and daemon together on a sample fleet; nothing to configure."""
    sys.exit(0 if _run(run_demo(web_listen_address, click.echo)) else 1)


def _named(settings: Settings, connection: str | None, site: str | None) -> Wanted:
    """The connection by its id, whatever it was called before; one that is configured no more by its name."""
    if connection is None:
        return Wanted(site=site)
    its_site, slash, name = connection.partition("/")
    if not slash or site is not None:
        told = "write SITE/NAME" if site is None else "SITE/NAME says the site: leave out --site"
        raise click.UsageError(f"{connection!r}: {told}.")
    for each in (each for its in settings.sites for each in its.connections):
        if (each.site, each.name) == (its_site, name):
            return Wanted(site=its_site, connection_id=each.id)
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
        with reading(settings.store.path) as reader:
            yield reader
    except (StoreUnreadableError, BackupError) as error:
        _give_up(error)


def _width() -> int | None:
    """The terminal's columns; a file or a pipe gets the whole table."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


async def _until_told(work: Coroutine[Any, Any, None]) -> None:
    """Do this until it ends, or SIGTERM or SIGINT comes."""
    task = asyncio.ensure_future(work)  # noqa: TID251  awaited here
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


def main() -> None:
    """Run the command line."""
    try:
        cli(prog_name=NAME)
    except OSError as error:  # what was to be printed could not be: no verdict, least of all of `poll`
        with suppress(OSError):
            click.echo(f"cannot write the output: {error.strerror}", err=True)
        sys.exit(Verdict.COULD_NOT_ASK if "poll" in sys.argv[1:2] else 1)


def _load(path: Path, secrets: Secrets = Secrets.REQUIRED) -> Loaded:
    try:
        return load(path, environ=os.environ, secrets=secrets)
    except ConfigError as error:
        _give_up(error)


def _give_up(error: OperatorError) -> NoReturn:
    click.echo(str(error), err=True)
    sys.exit(error.exit_code)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop where it is installed."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(work)
    except OperatorError as error:
        _give_up(error)
    except KeyboardInterrupt:
        sys.exit(130)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        from uvloop import new_event_loop  # noqa: PLC0415  an extra
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = new_event_loop
    return factory
