"""Every benchmark and one table: `python -m tests.bench`, or some: `--only=poll,fleet`.

Each runs in processes of its own on loopback; costs are processor time, so that whoever else is busy on the
machine shows in them little. What happens meanwhile is told on stderr.
"""

import argparse
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import traceback
from importlib import import_module, metadata, util
from inspect import signature
from typing import Any, Final

from monitor.clock import Clock
from monitor.tables import table
from tests.bench.contenders import BLACKBOX, PROMETHEUS
from tests.bench.nginx import program as nginx_program

Row = tuple[str, str, str]

_ALL: Final = ("poll", "scrape", "page", "fleet", "flip", "config", "store")
_VERSION: Final = re.compile(r"\d+\.\d+(?:\.\d+)?")


def facts(*, quick: bool) -> str:
    """The machine, and what runs on it."""
    clock = Clock()
    ours = [f"{name} {metadata.version(name)}" for name in ("aiohttp", "uvloop")]
    peers = [
        (nginx_program(), "-v"),
        (shutil.which(BLACKBOX), "--version"),
        (shutil.which(PROMETHEUS), "--version"),
    ]
    found = [_with_version(path, flag) for path, flag in peers if path]
    how = "a first look" if quick else "medians of 5 or more"
    machine = f"{os.cpu_count()} cores ({platform.machine()}), {clock.wall(clock.now()):%Y-%m-%d}, {how}"
    return f"{machine}\n{', '.join([f'Python {platform.python_version()}', *ours, *found])}"


def _with_version(path: str, flag: str) -> str:
    told = subprocess.run([path, flag], capture_output=True, text=True, check=False)
    version = _VERSION.search(told.stdout + told.stderr)
    return f"{os.path.basename(path)} {version[0] if version else '?'}"  # noqa: PTH119  it is a text


def rows_of(name: str, options: dict[str, Any]) -> list[Row]:
    """What that benchmark finds; it is handed those of the options that it takes."""
    module = f"tests.bench.{name}"
    if util.find_spec(module) is None:
        return []
    print(f"{name} …", file=sys.stderr, flush=True)
    rows = import_module(module).rows
    taken = signature(rows).parameters
    try:
        found: list[Row] = rows(**{key: value for key, value in options.items() if key in taken})
    except Exception:  # noqa: BLE001  the others' hour is not to be lost with it
        traceback.print_exc()
        return [(name, "failed", "")]
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
