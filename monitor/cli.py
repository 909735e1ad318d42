"""The command line; flags follow the Prometheus family, and each is also read from the environment."""

import asyncio
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from monitor import __version__
from monitor.clock import Clock
from monitor.config import Loaded, Secrets, json_schema, load, load_each, plan_report, spread_report
from monitor.demo import run_demo
from monitor.errors import ConfigError, OperatorError, Problem
from monitor.flags import (
    config_file_flag,
    flag,
    give_up,
    load_both_or_exit,
    load_or_exit,
    node_named,
    shard_flags,
    shard_of,
    total_of,
    web_config_file_flag,
)
from monitor.logs import Format, Redactor, set_up, warn_of
from monitor.oneshot import Verdict, poll_once
from monitor.records import backup, history, migrate_store, status
from monitor.service import Outside, serve
from monitor.simulator import load_scenario
from monitor.simulator import run as run_simulator
from monitor.systemd import Notifier
from monitor.web.protection import WebConfig
from monitor.web.server import Address, WebOptions

NAME: Final = "wix-calendar-monitor"
DEFAULT_ADDRESS: Final = "127.0.0.1:19877"

T = TypeVar("T")


class _AddressType(click.ParamType[Address]):
    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        if isinstance(value, Address):
            return value
        try:
            return Address.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _NodeNameType(click.ParamType[str]):
    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return node_named(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


_listen = flag(
    "--web.listen-address",
    type=_AddressType(),
    multiple=True,
    default=(DEFAULT_ADDRESS,),
    show_default=True,
    help="Where to serve the page, the API and /metrics; may be given more than once.",
)
_log_level = flag(
    "--log.level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="The quietest lines that are written.",
)
_log_format = flag(
    "--log.format",
    type=click.Choice([form.value for form in Format]),
    default=Format.JSON.value,
    show_default=True,
    help="How a line is written.",
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
@config_file_flag
@flag("--config.auto-reload", is_flag=True, help="Take the configuration as it changes, without a SIGHUP.")
@flag(
    "--node.name",
    type=_NodeNameType(),
    metavar="NAME",
    help="What this node is called among those that share a PostgreSQL; the host's name, unless it is said.",
)
@shard_flags(
    "Which of the daemons that share this configuration this one is, counted from 0; it watches its sites.",
    "How many daemons share this configuration, this one among them.",
)
@_listen
@flag(
    "--web.systemd-socket",
    is_flag=True,
    help="Serve on the sockets that systemd hands over instead of --web.listen-address.",
)
@web_config_file_flag
@flag("--web.enable-lifecycle", is_flag=True, help="Let POST /-/reload load the configuration anew.")
@_log_level
@_log_format
def run(
    *,
    config_file: Path,
    config_auto_reload: bool,
    node_name: str | None,
    shard: int | None,
    total_shards: int | None,
    web_listen_address: tuple[Address, ...],
    web_systemd_socket: bool,
    web_config_file: Path | None,
    web_enable_lifecycle: bool,
    log_level: str,
    log_format: str,
) -> None:
    """Run the daemon until SIGTERM or SIGINT; SIGHUP reloads the configuration."""
    read = partial(load, config_file, environ=os.environ, shard=shard_of(shard, total_shards))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # kept until there is something to reload
    loaded, web_config = load_both_or_exit(read, web_config_file)
    redactor = Redactor()
    log = set_up(log_level, Format(log_format), redactor)
    warn_of(log, _warnings([loaded], web_config))
    node = _node_of(node_name, loaded)
    outside = Outside(log, redactor, Clock(), Notifier(), auto_reload=config_auto_reload, node=node)
    web = WebOptions(web_listen_address, web_config, web_systemd_socket, web_enable_lifecycle)
    sys.exit(0 if _run(serve(loaded, outside, web)) else 1)


def _node_of(name: str | None, loaded: Loaded) -> str:
    """What this process is called among others; nothing where there are none. Raises click.UsageError."""
    if not loaded.settings.store.is_shared:
        return ""
    try:
        return name or node_named(platform.node())
    except ValueError as error:
        raise click.UsageError(f"--node.name is missing, and the host's name does not do: {error}.") from None


@cli.command("check-config")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of the file for editors, and end.")
@flag("--config.file", type=click.Path(path_type=Path), help="The configuration, a YAML file.")
@web_config_file_flag
@click.option("--skip-secrets", is_flag=True, help="Do not read the secret files and variables.")
@shard_flags(
    "The plan of only this shard, counted from 0.",
    "How many there are to be; without --shard, what each of them would watch.",
)
def check_config(
    *,
    config_file: Path | None,
    web_config_file: Path | None,
    skip_secrets: bool,
    schema: bool,
    shard: int | None,
    total_shards: int | None,
) -> None:
    """Say everything that is wrong with a configuration, and print its plan."""
    if schema:
        click.echo(json.dumps(json_schema(), indent=2))
        return
    if config_file is None:
        raise click.UsageError("Missing option '--config.file'.")
    spread = shard is None and total_of(total_shards) > 1
    secrets = Secrets.SKIPPED if skip_secrets else Secrets.CHECKED
    read = partial(_load_each, config_file, secrets, shard, total_shards)
    loaded, web_config = load_both_or_exit(read, web_config_file)
    for warning in _warnings(loaded, web_config):
        click.echo(str(warning), err=True)
    click.echo(spread_report(loaded) if spread else plan_report(loaded[0].settings))


def _load_each(path: Path, secrets: Secrets, shard: int | None, total: int | None) -> list[Loaded]:
    """As the shard that is named reads it, or as each does. Raises ConfigError and click.UsageError."""
    if shard is None:
        return load_each(path, total_of(total), environ=os.environ, secrets=secrets)
    return [load(path, environ=os.environ, secrets=secrets, shard=shard_of(shard, total))]


@cli.command()
@config_file_flag
@click.argument("connection", metavar="SITE/NAME")
def poll(config_file: Path, connection: str) -> None:
    """Poll one connection now and show the exchange, what it means and its series."""
    settings = load_or_exit(config_file).settings
    wanted, _, name = connection.partition("/")
    found = settings.find(wanted, name)
    if found is not None:
        sys.exit(_run(poll_once(settings, *found, Clock(), click.echo)))
    raise click.UsageError(f"{connection!r} is not in {config_file}; write SITE/NAME as they stand there.")


@cli.command()
@click.option(
    "--scenario", "scenario_file", required=True, type=click.Path(path_type=Path), help="What happens when."
)
@click.option(
    "--listen",
    type=_AddressType(),
    multiple=True,
    default=("127.0.0.1:8080",),
    show_default=True,
    help="Where to stand in for Wix; may be given more than once, and the record tells who came to which.",
)
def simulate(scenario_file: Path, listen: tuple[Address, ...]) -> None:
    """Stand in for the Wix API on this machine, after a scenario."""
    try:
        scenario = load_scenario(scenario_file)
    except ConfigError as error:
        give_up(error)
    addresses = [(each.host, each.port) for each in listen]
    _run(_until_told(run_simulator(scenario, addresses, click.echo)))


@cli.command()
@_listen
@click.option(
    "--deploy-folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The source's deploy/: with Prometheus and Alertmanager installed, its alerts are shown too.",
)
def demo(web_listen_address: tuple[Address, ...], deploy_folder: Path | None) -> None:
    """Run simulator and daemon together on a sample fleet; nothing to configure."""
    sys.exit(0 if _run(run_demo(web_listen_address, click.echo, deploy_folder)) else 1)


def _warnings(loaded: Sequence[Loaded], web_config: WebConfig | None) -> tuple[Problem, ...]:
    """Each once, whoever found it."""
    of_web = () if web_config is None else web_config.warnings
    return tuple(dict.fromkeys([*(each for its in loaded for each in its.warnings), *of_web]))


async def _until_told(work: Coroutine[Any, Any, None]) -> None:
    """Do this until it ends, or SIGTERM or SIGINT comes."""
    task = asyncio.ensure_future(work)  # noqa: TID251  awaited here
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


for command in (status, history, backup, migrate_store):
    cli.add_command(command)


def main() -> None:
    """Run the command line."""
    try:
        cli(prog_name=NAME)
    except OSError as error:  # what was to be printed could not be: no verdict, least of all of `poll`
        with suppress(OSError):
            click.echo(f"cannot write the output: {error.strerror}", err=True)
        sys.exit(Verdict.COULD_NOT_ASK if "poll" in sys.argv[1:2] else 1)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop where it is installed."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(work)
    except OperatorError as error:
        give_up(error)
    except KeyboardInterrupt:
        sys.exit(130)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        from uvloop import new_event_loop  # noqa: PLC0415  an extra
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = new_event_loop
    return factory
