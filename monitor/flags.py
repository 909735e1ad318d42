"""What all commands share: the flags, and how a configuration that cannot be used ends them."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from monitor.config import Loaded, Secrets, load
from monitor.errors import ConfigError, OperatorError

F = TypeVar("F", bound=Callable[..., Any])


def flag(name: str, **attributes: Any) -> Callable[[F], F]:
    """A long flag with its environment variable: `--config.file` is `WIX_CALENDAR_MONITOR_CONFIG_FILE`."""
    variable = "WIX_CALENDAR_MONITOR_" + name.removeprefix("--").upper().replace(".", "_").replace("-", "_")
    target = name.removeprefix("--").replace(".", "_").replace("-", "_")
    return click.option(name, target, envvar=variable, show_envvar=True, **attributes)


config_file_flag = flag(
    "--config.file", required=True, type=click.Path(path_type=Path), help="The configuration, a YAML file."
)


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
