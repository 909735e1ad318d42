"""Every benchmark and one table: `python -m tests.bench`, or some: `--only=poll,fleet`.

Each runs in processes of its own on loopback; costs are processor time, so that whoever else is busy on the
machine shows in them little. What happens meanwhile is told on stderr.
"""

import argparse
import os
import platform
import signal
import sys
from importlib import import_module, metadata, util
from inspect import signature
from typing import Any, Final

from monitor.clock import Clock
from monitor.tables import table

_ALL: Final = ("poll", "scrape", "fleet", "flip", "config", "store")


def facts(*, quick: bool) -> str:
    """The machine, and what runs on it."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("aiohttp", "uvloop"))
    clock = Clock()
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {versions}, "
        f"{clock.wall(clock.now()):%Y-%m-%d}; {'a first look' if quick else 'medians of 5 or more'}"
    )


def rows_of(name: str, options: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What that benchmark finds; it is handed those of the options that it takes."""
    module = f"tests.bench.{name}"
    if util.find_spec(module) is None:
        return []
    print(f"{name} …", file=sys.stderr, flush=True)
    rows = import_module(module).rows
    found: list[tuple[str, str, str]] = rows(
        **{key: value for key, value in options.items() if key in signature(rows).parameters}
    )
    return found


def main() -> None:
    """Run them and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help=f"comma-separated, of {', '.join(_ALL)}", default=",".join(_ALL))
    parser.add_argument("--quick", action="store_true", help="shorter and fewer windows: a first look")
    parser.add_argument("--minutes", type=float, default=15.0, help="how long the fleet is watched")
    options = vars(parser.parse_args())
    wanted = options.pop("only").split(",")
    if unknown := set(wanted) - set(_ALL):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its processes are ended as with Ctrl-C
    found = [row for name in wanted for row in rows_of(name, options)]
    print(facts(quick=options["quick"]))
    print(table(("what", "figure", "target"), found, right=("figure",)))


if __name__ == "__main__":
    main()
