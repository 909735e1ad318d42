"""The daemon as an operator installs it: a virtual environment under /opt of another root, without a network.

The packages are copied from the environment that runs the tests: what pyproject.toml names and what that
needs in turn, nothing else, so a dependency that nobody declared is missed here.
"""

import shutil
import sys
import tomllib
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

ROOT: Final = Path(__file__).resolve().parent.parent.parent
HOME: Final = "/opt/wix-calendar-monitor"
COMMAND: Final = f"{HOME}/bin/wix-calendar-monitor"

_PYTHON: Final = "/opt/python"
_HIDDEN: Final = ("/root", "/home", "/run/user", "/tmp", "/var/tmp")
"""What the unit's sandbox takes out of sight; an interpreter that lives there is shown at _PYTHON."""

_SCRIPT: Final = f"""#!{HOME}/bin/python3
import sys
from monitor.cli import main
sys.exit(main())
"""


def install(root: Path) -> Sequence[str]:
    """Install into a container's root; what nspawn must be told for it."""
    base = Path(sys.base_prefix)
    outside = base.stat().st_dev != Path("/").stat().st_dev  # the overlay shows one file system
    hidden = outside or any(base.is_relative_to(place) for place in _HIDDEN)
    seen = Path(_PYTHON) if hidden else base
    _make_environment(root, seen)
    if not hidden:
        return ()
    (root / "etc/ld.so.conf.d/python.conf").write_text(f"{seen}/lib\n")  # for libpython, see `settle`
    return (f"--bind-ro={base}:{seen}",)


def settle() -> Sequence[str]:
    """What to run once in the booted container: an interpreter that was moved finds its library again."""
    return ("ldconfig",)


def _make_environment(root: Path, base: Path) -> None:
    home = root / HOME.lstrip("/")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = home / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    (home / "bin").mkdir()
    (home / "bin/python3").symlink_to(base / "bin" / version)
    (home / "pyvenv.cfg").write_text(f"home = {base}/bin\ninclude-system-site-packages = false\n")
    for name in _needed():
        _copy_distribution(name, packages)
    shutil.copytree(ROOT / "monitor", packages / "monitor", ignore=shutil.ignore_patterns("__pycache__"))
    script = home / "bin/wix-calendar-monitor"
    script.write_text(_SCRIPT)
    script.chmod(0o755)


def _needed() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: set[str] = set()
    todo = [
        Requirement(each).name
        for group in (project["dependencies"], *project["optional-dependencies"].values())
        for each in group
    ]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo.extend(_requirements(name))
    return found


def _requirements(name: str) -> Iterator[str]:
    try:
        listed = distribution(name).requires or []
    except PackageNotFoundError:  # an extra that is not installed here
        return
    for requirement in map(Requirement, listed):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement.name


def _copy_distribution(name: str, target: Path) -> None:
    try:
        files = distribution(name).files or []
    except PackageNotFoundError:
        return
    for file in files:
        if ".." not in file.parts and "__pycache__" not in file.parts:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.locate(), target / file)
