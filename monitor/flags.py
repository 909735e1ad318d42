"""What all commands share: the flags, and how a configuration that cannot be used ends them."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from monitor.config import Loaded, Secrets, load
from monitor.errors import ConfigError, OperatorError, Problem
from monitor.web.protection import WebConfig

F = TypeVar("F", bound=Callable[..., Any])


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


def load_both_or_exit(
    path: Path, web_path: Path | None, secrets: Secrets = Secrets.REQUIRED
) -> tuple[Loaded, WebConfig | None]:
    """The configuration and, where one is named, the web configuration; or all problems and exit code 2."""
    problems: list[Problem] = []
    loaded = web = None
    try:
        loaded = load(path, environ=os.environ, secrets=secrets)
    except ConfigError as error:
        problems += error.problems
    try:
        web = None if web_path is None else WebConfig(web_path)
    except ConfigError as error:
        problems += error.problems
    if loaded is None or problems:
        give_up(ConfigError(tuple(problems)))
    return loaded, web


def load_or_exit(path: Path, secrets: Secrets = Secrets.REQUIRED) -> Loaded:
    """The configuration, or its problems on stderr and exit code 2."""
    try:
        return load(path, environ=os.environ, secrets=secrets)
    except ConfigError as error:
        give_up(error)


def give_up(error: OperatorError) -> NoReturn:
    """Say on stderr what is wrong, and end with its exit code."""
    click.echo(str(error), err=True)
    sys.exit(error.exit_code)
