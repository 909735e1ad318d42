"""What all commands share: the flags, and how a configuration that cannot be used ends them."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

from monitor.config import Loaded, Secrets, load
from monitor.core.shards import Shard
from monitor.errors import ConfigError, OperatorError, Problem
from monitor.web.protection import WebConfig

MOST_SHARDS: Final = 1000
LONGEST_NAME: Final = 60
"""Characters of a node's name."""

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def flag(name: str, **attributes: Any) -> Callable[[F], F]:
    """A long flag with its environment variable: `--config.file` is `WIX_CALENDAR_MONITOR_CONFIG_FILE`."""
    variable = "WIX_CALENDAR_MONITOR_" + name.removeprefix("--").upper().replace(".", "_").replace("-", "_")
    target = name.removeprefix("--").replace(".", "_").replace("-", "_")
    return click.option(name, target, envvar=variable, show_envvar=True, **attributes)


config_file_flag = flag(
    "--config.file", required=True, type=click.Path(path_type=Path), help="The configuration, a YAML file."
)


web_config_file_flag = flag(
    "--web.config.file",
    type=click.Path(path_type=Path),
    help="TLS, passwords and headers of the daemon's own port: a file in the exporters' common format.",
)


def shard_flags(shard_help: str, total_help: str) -> Callable[[F], F]:
    """The two flags that say which part of the configuration is meant."""
    shard, total = (
        flag("--shard", type=int, help=shard_help),
        flag("--total-shards", type=int, help=total_help),
    )
    return lambda command: shard(total(command))


kept_shard_flags = shard_flags(
    "Only what this one of several daemons watches, as its --shard; for a store.url that has it in its name.",
    "How many daemons there are, as their --total-shards.",
)


def shard_of(ordinal: int | None, total: int | None) -> Shard:
    """What the two flags say together; without both the one that watches everything.

    Raises click.UsageError, saying what to write instead.
    """
    if total is None and ordinal:
        told = (
            f"--shard={ordinal} needs --total-shards: write how many there are, as they are counted from 0."
        )
        raise click.UsageError(told)
    total = total_of(total)
    if ordinal is None and total > 1:
        told = f"--total-shards={total} needs --shard: write which of them this is, 0 to {total - 1}."
        raise click.UsageError(told)
    ordinal = ordinal or 0
    if not 0 <= ordinal < total:
        told = f"--shard={ordinal} is none of --total-shards={total}, which are counted from 0"
        raise click.UsageError(f"{told}: write {f'0 to {total - 1}' if total > 1 else '0'}.")
    return Shard(ordinal, total)


def total_of(total: int | None) -> int:
    """How many shards there are. Raises click.UsageError."""
    if total is not None and not 1 <= total <= MOST_SHARDS:
        raise click.UsageError(f"--total-shards={total}: write how many there are, 1 to {MOST_SHARDS}.")
    return total or 1


def kept_shard_of(ordinal: int | None, total: int | None) -> Shard | None:
    """The same for a command that reads what was kept: without the flags, everything. Raises UsageError."""
    return None if ordinal is None and total is None else shard_of(ordinal, total)


def node_named(name: str) -> str:
    """The name of a node, as it stands in tables and links. Raises ValueError with what to write instead."""
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable() or " " in name:
        told = f"write 1 to {LONGEST_NAME} visible characters without white space"
        raise ValueError(f"{name!r} is no name of a node; {told}")
    return name


def load_both_or_exit(read: Callable[[], T], web_path: Path | None) -> tuple[T, WebConfig | None]:
    """What was read of the configuration and, where one is named, the web configuration.

    Or all problems and exit code 2.
    """
    problems: list[Problem] = []
    web = None
    loaded: list[T] = []
    try:
        loaded.append(read())
    except ConfigError as error:
        problems += error.problems
    try:
        web = None if web_path is None else WebConfig(web_path)
    except ConfigError as error:
        problems += error.problems
    if problems:
        give_up(ConfigError(tuple(problems)))
    return loaded[0], web


def load_or_exit(path: Path, secrets: Secrets = Secrets.REQUIRED, shard: Shard | None = None) -> Loaded:
    """The configuration, or its problems on stderr and exit code 2; everything, where no shard is named."""
    try:
        return load(path, environ=os.environ, secrets=secrets, shard=shard)
    except ConfigError as error:
        give_up(error)


def give_up(error: OperatorError) -> NoReturn:
    """Say on stderr what is wrong, and end with its exit code."""
    click.echo(str(error), err=True)
    sys.exit(error.exit_code)
